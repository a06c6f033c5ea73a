//! Files mapped into memory: the one place of this module with `unsafe`.

use std::{fs::File, io, ops::Deref, path::Path};

use memmap2::Mmap;

/// A whole file, read only.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl Mapped {
    /// Maps a file that is complete and will not change.
    #[allow(unsafe_code)]
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: nobody writes to a mapped file or shortens it: the files of a block get their name when they are
        // complete and synced, are never opened for writing after that, and a mapping outlives their unlinking. The
        // folder belongs to one process, and checksums catch bytes that changed on the disk.
        unsafe { Mmap::map(&file) }.map(Self)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
