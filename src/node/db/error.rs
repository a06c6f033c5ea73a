//! Why a write or a round of upkeep failed.

use std::{fmt, io, path::PathBuf};

use crate::node::{block::BlockError, wal::LogError};

/// Why nothing of a batch was written. Reads go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// No room is left on the disk.
    DiskFull,
    /// The disk takes no writes.
    ReadOnly,
    /// The data folder, or the file of the log, was deleted, moved or replaced.
    Deleted(PathBuf),
    /// The log could not be written.
    Log(String),
}

impl WriteError {
    /// Every [`reason`](Self::reason).
    pub const REASONS: [&str; 4] = ["disk_full", "read_only", "deleted", "failed"];

    /// The label that it has in metrics.
    pub const fn reason(&self) -> &'static str {
        let [full, read_only, deleted, failed] = Self::REASONS;
        match self {
            Self::DiskFull => full,
            Self::ReadOnly => read_only,
            Self::Deleted(_) => deleted,
            Self::Log(_) => failed,
        }
    }
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full => Self::DiskFull,
            LogError::ReadOnly => Self::ReadOnly,
            LogError::Gone(path) => Self::Deleted(path),
            LogError::Io(text) => Self::Log(text),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull => f.write_str("the disk is full: writes are refused, reads go on"),
            Self::ReadOnly => f.write_str("the disk is read-only: writes are refused, reads go on"),
            Self::Deleted(path) => write!(
                f,
                "{} was deleted, moved or replaced: writes are refused, reads go on; put the data folder back and start \
                 the node again",
                path.display()
            ),
            Self::Log(text) => write!(f, "the write-ahead log failed: {text}"),
        }
    }
}

impl std::error::Error for WriteError {}

/// The reason why upkeep stopped. Its finished steps hold, and it goes on the next time.
#[derive(Debug)]
pub enum MaintainError {
    /// The log could not be shortened.
    Log(LogError),
    /// A block could not be written or removed.
    Block(BlockError),
    /// The manifest could not be written.
    Manifest(io::Error),
}

impl fmt::Display for MaintainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => write!(f, "the log: {error}"),
            Self::Block(error) => error.fmt(f),
            Self::Manifest(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MaintainError {}

impl From<LogError> for MaintainError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<io::Error> for MaintainError {
    fn from(error: io::Error) -> Self {
        Self::Manifest(error)
    }
}

impl From<BlockError> for MaintainError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}
