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
        // SAFETY: a mapping is a valid `&[u8]` while nobody writes to the file or shortens it. The files of a block
        // get their name only once they are complete and synced, this crate never opens them for writing after
        // that, and unlinking or renaming leaves a mapping intact. The data folder belongs to one process: a
        // stranger who shortens a file in it can end the process, as with every database that maps its files.
        // Bytes that changed on disk are caught by the checksums, and nothing derived from them is trusted.
        unsafe { Mmap::map(&file) }.map(Self)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
