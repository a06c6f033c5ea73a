//! A folder of blocks: those that are opened, set aside or cleared away.

use std::{
    cmp::Reverse,
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use super::{Block, BlockError, Meta, error::io_error};
use crate::base::TimeRange;

/// Ends the name of a block that is being written.
pub(super) const TMP: &str = ".tmp";
/// Ends the name of a damaged block.
const QUARANTINED: &str = ".corrupt";
/// The most damaged blocks that may share one name.
const QUARANTINED_MAX: usize = 1_000;
/// Foreign folders that are named.
const FOREIGN_MAX: usize = 10;
/// The largest number of a block.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// The contents of a folder of blocks.
#[derive(Debug, Default)]
pub struct Opened {
    /// Sound blocks, by rising start.
    pub blocks: Vec<Block>,
    /// Damaged blocks: their places and their damage. [`repair`](Self::repair) moves them.
    pub damaged: Vec<(PathBuf, BlockError)>,
    /// Those that were set aside, earlier or by [`repair`](Self::repair).
    pub quarantined: Vec<Quarantined>,
    /// Foreign files that were left alone, the first few of them.
    pub foreign: Vec<PathBuf>,
    /// Blocks that were never finished, and those that another one replaces.
    obsolete: Vec<PathBuf>,
}

impl Opened {
    fn open(&mut self, path: &Path) -> Result<(), BlockError> {
        match Block::open(path) {
            Ok(block) => self.blocks.push(block),
            Err(error) if error.is_corrupt() => self.damaged.push((path.to_owned(), error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes out the blocks that another one replaces, if they are still there. That one is read as a whole before: with
    /// damage in it, it is set aside, and they stay.
    fn take_out_replaced(&mut self) {
        let there: HashSet<String> = self.blocks.iter().map(name_of).collect();
        // The newest first: the blocks that it replaces may themselves stand for others that are still there.
        self.blocks.sort_by_key(|block| Reverse(number(&name_of(block))));
        let mut replaced = HashSet::new();
        for block in std::mem::take(&mut self.blocks) {
            let stands_for = block.meta().replaces.iter().filter(|other| there.contains(*other));
            let stands_for: Vec<String> = stands_for.cloned().collect();
            if replaced.contains(&name_of(&block)) {
                self.obsolete.push(block.path().to_owned());
            } else if !stands_for.is_empty()
                && let Err(error) = block.check_chunks()
            {
                self.damaged.push((block.path().to_owned(), error));
                continue;
            } else {
                self.blocks.push(block);
            }
            replaced.extend(stands_for);
        }
    }

    /// Sets damaged blocks aside by renaming them, and removes obsolete ones.
    ///
    /// # Errors
    /// The blocks that were not reached are still there, and found again.
    pub fn repair(&mut self) -> Result<(), BlockError> {
        for (place, _) in &mut self.damaged {
            *place = quarantine(place)?;
            self.quarantined.push(Quarantined::of(place.clone()));
        }
        for path in self.obsolete.drain(..) {
            if Kind::of(&file_name(&path)) == Kind::Unfinished {
                fs::remove_dir_all(&path).map_err(|error| io_error(&path, error))?;
            } else {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// A damaged block that lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Where it is.
    pub place: PathBuf,
    /// From its first sample to its last; `None` where its metadata cannot be read.
    pub range: Option<TimeRange>,
}

impl Quarantined {
    fn of(place: PathBuf) -> Self {
        let range = Meta::read(&place).ok().map(|meta| meta.range());
        Self { place, range }
    }
}

/// The kind of a folder in the folder of blocks, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block,
    Unfinished,
    Quarantined,
    Foreign,
}

impl Kind {
    fn of(name: &str) -> Self {
        let (stem, rest) = name.split_once('.').map_or((name, None), |(stem, rest)| (stem, Some(rest)));
        match rest {
            _ if number(stem).is_none() => Self::Foreign,
            None => Self::Block,
            Some(rest) if TMP.strip_prefix('.') == Some(rest) => Self::Unfinished,
            Some(rest) if QUARANTINED.strip_prefix('.').is_some_and(|word| rest.starts_with(word)) => {
                Self::Quarantined
            }
            Some(_) => Self::Foreign,
        }
    }
}

/// The number that a block has for a name. Numbers are given one by one, so that larger ones are not ours.
pub fn number(name: &str) -> Option<u64> {
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    name.parse().ok().filter(|number| digits && *number <= NUMBER_MAX)
}

/// Opens all blocks of a folder, and changes nothing there: [`Opened::repair`] does, once nothing speaks against it.
/// Files whose names are not those of blocks are left alone.
///
/// # Errors
/// The folder cannot be read, or a block is of another version.
pub fn open_all(blocks: &Path) -> Result<Opened, BlockError> {
    let mut opened = Opened::default();
    let entries = fs::read_dir(blocks).map_err(|error| io_error(blocks, error))?;
    for entry in entries {
        let path = entry.map_err(|error| io_error(blocks, error))?.path();
        if !path.is_dir() {
            continue;
        }
        match Kind::of(&file_name(&path)) {
            Kind::Block => opened.open(&path)?,
            Kind::Unfinished => opened.obsolete.push(path),
            Kind::Quarantined => opened.quarantined.push(Quarantined::of(path)),
            Kind::Foreign if opened.foreign.len() < FOREIGN_MAX => opened.foreign.push(path),
            Kind::Foreign => {}
        }
    }
    opened.take_out_replaced();
    opened.blocks.sort_by_key(|block| (block.meta().min_time_ms, block.meta().max_time_ms));
    Ok(opened)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name of a block: its number.
pub fn name_of(block: &Block) -> String {
    file_name(block.path())
}

/// Whether a block of this name was set aside in the folder.
pub fn is_quarantined(blocks: &Path, name: &str) -> bool {
    (0..QUARANTINED_MAX).any(|i| blocks.join(format!("{name}{QUARANTINED}-{i}")).exists())
}

/// Sets a damaged block aside and says where it is: nothing reads it any more, and nothing deletes it.
pub fn quarantine(block: &Path) -> Result<PathBuf, BlockError> {
    let name = block.file_name().unwrap_or_default().to_string_lossy();
    let target = (0..QUARANTINED_MAX)
        .map(|i| block.with_file_name(format!("{name}{QUARANTINED}-{i}")))
        .find(|path| !path.exists())
        .ok_or(BlockError::Unfit("too many damaged blocks of this name"))?;
    fs::rename(block, &target).map_err(|error| io_error(block, error))?;
    // It is done, though perhaps not for good: with the old name back, the next start finds the damage again.
    if let Err(error) = sync_dir(target.parent().unwrap_or(&target)) {
        tracing::warn!(%error, "the new name of a damaged block may not outlive a power failure");
    }
    Ok(target)
}

/// Removes a block: under another name first, so that half of it is never taken for a damaged one.
pub fn remove(block: &Path) -> Result<(), BlockError> {
    let name = block.file_name().unwrap_or_default().to_string_lossy();
    let going = block.with_file_name(format!("{name}{TMP}"));
    fs::rename(block, &going).map_err(|error| io_error(block, error))?;
    fs::remove_dir_all(&going).map_err(|error| io_error(&going, error))
}

/// Makes names in a folder durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), BlockError> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| io_error(path, error))
}
