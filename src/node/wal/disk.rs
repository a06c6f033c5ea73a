//! Writing, with a disk that tests can fill.

use std::{
    fs::File,
    io::{self, Write},
};

/// Free disk space; only a test bounds it here, the system bounds it anyway.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct DiskSpace {
    #[cfg(test)]
    left: std::sync::Arc<parking_lot::Mutex<Option<usize>>>,
}

impl DiskSpace {
    /// Takes up to this many bytes of the space; returns how many fit.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "only a test's disk has bounds"))]
    fn take(&self, bytes: usize) -> usize {
        #[cfg(test)]
        if let Some(left) = self.left.lock().as_mut() {
            let taken = bytes.min(*left);
            *left -= taken;
            return taken;
        }
        bytes
    }

    /// Sets the space that is left, bytes; `None` is unbounded.
    #[cfg(test)]
    pub(in crate::node) fn leave(&self, bytes: Option<usize>) {
        *self.left.lock() = bytes;
    }

    /// A file that takes no more than there is room for.
    pub(super) fn writer<'a>(&'a self, file: &'a mut File) -> impl Write + 'a {
        Bounded { file, room: self }
    }
}

struct Bounded<'a> {
    file: &'a mut File,
    room: &'a DiskSpace,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.room.take(bytes.len()) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            fits => self.file.write(bytes.get(..fits).unwrap_or(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
