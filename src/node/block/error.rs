//! Why a block cannot be read or written.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::VERSION;
use crate::node::chunk::Corrupt;

/// Why a block cannot be read or written.
#[derive(Debug)]
pub enum BlockError {
    /// The file system failed; the block may be fine.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The bytes differ from those written.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The damage.
        what: &'static str,
    },
    /// Another version of Weir wrote it; no damage was found in it.
    Version {
        /// The file that shows it.
        path: PathBuf,
        /// The unknown version or field.
        what: String,
    },
    /// The data does not fit into a block.
    Unfit(&'static str),
}

impl BlockError {
    /// Whether the block is damaged and should be quarantined.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether the block is not there any more.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Corrupt { path, what } => write!(f, "{} is corrupt: {what}", path.display()),
            Self::Version { path, what } => write!(
                f,
                "{} has {what}, and this Weir reads version {VERSION} only: start the Weir that wrote it, or move its \
                 folder away",
                path.display()
            ),
            Self::Unfit(what) => write!(f, "cannot write a block: {what}"),
        }
    }
}

impl std::error::Error for BlockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Corrupt { .. } | Self::Version { .. } | Self::Unfit(_) => None,
        }
    }
}

/// Something in a section that cannot be; the caller knows the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bad(pub(super) &'static str);

impl From<Corrupt> for Bad {
    fn from(_: Corrupt) -> Self {
        Self("an entry ends early")
    }
}

pub(super) fn corrupt(path: &Path, what: &'static str) -> BlockError {
    BlockError::Corrupt { path: path.to_owned(), what }
}

/// A file of a block that is not there, or a folder in its place, is damage; any other failure may pass.
pub(super) fn missing(path: &Path, error: io::Error) -> BlockError {
    if error.kind() == io::ErrorKind::NotFound {
        corrupt(path, "it is missing")
    } else if path.is_dir() {
        corrupt(path, "it is a folder")
    } else {
        io_error(path, error)
    }
}

pub(super) fn io_error(path: &Path, error: io::Error) -> BlockError {
    BlockError::Io { path: path.to_owned(), error }
}
