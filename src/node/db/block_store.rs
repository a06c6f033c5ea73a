//! The folder of blocks.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::{Mutex, MutexGuard};

use super::lost_ranges::LostRanges;
use crate::{base::files::FolderLock, node::block::Block};

/// The blocks on the disk, and those that are damaged.
#[derive(Debug, Default)]
pub(super) struct BlockStore {
    /// `None` when nothing is to survive.
    pub(super) path: Option<PathBuf>,
    blocks: Mutex<Vec<Arc<Block>>>,
    /// Held by upkeep.
    pub(super) turn: Mutex<()>,
    /// Number of the next block.
    pub(super) next: AtomicU64,
    pub(super) quarantined: AtomicU64,
    pub(super) compacted: AtomicU64,
    pub(super) lost_ranges: LostRanges,
    /// Held for as long as the database is open, so that no second process touches the blocks.
    _lock: Option<FolderLock>,
}

impl BlockStore {
    /// Takes the folder `blocks` in `dir`, made if it is missing.
    pub(super) fn lock(dir: &Path) -> io::Result<Self> {
        let lock = FolderLock::take(dir)?;
        let path = dir.join("blocks");
        fs::create_dir_all(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be made: {error}", path.display()))
        })?;
        Ok(Self { path: Some(path), _lock: Some(lock), ..Self::default() })
    }

    pub(super) fn list(&self) -> MutexGuard<'_, Vec<Arc<Block>>> {
        self.blocks.lock()
    }
}
