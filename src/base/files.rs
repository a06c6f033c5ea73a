//! Folders that belong to one process, and files that must not lose their names.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The name of the file that is locked.
pub const LOCK: &str = "lock";

/// A data folder, taken until this is dropped or the process ends: no second process gets it meanwhile.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
    path: PathBuf,
}

/// Why a data folder cannot be had.
#[derive(Debug)]
pub enum FolderError {
    /// Another process has it.
    InUse(PathBuf),
    /// It cannot be made or locked.
    Io(PathBuf, io::Error),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(folder) => write!(
                f,
                "the folder {} is in use by another Weir: give each its own with `--data`",
                folder.display()
            ),
            Self::Io(path, error) => write!(f, "{} cannot be used: {error}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

impl From<FolderError> for io::Error {
    fn from(error: FolderError) -> Self {
        let kind = match &error {
            FolderError::InUse(_) => io::ErrorKind::ResourceBusy,
            FolderError::Io(_, error) => error.kind(),
        };
        Self::new(kind, error.to_string())
    }
}

impl FolderLock {
    /// Takes a folder, made if it is missing.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written to.
    pub fn take(folder: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(folder).map_err(|error| FolderError::Io(folder.to_owned(), error))?;
        let path = folder.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|error| FolderError::Io(path.clone(), error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(FolderError::Io(path, error)),
        }
    }

    /// Whether the folder is still where it was, and was not deleted or replaced.
    pub fn is_in_place(&self) -> bool {
        is_named(&self.file, &self.path)
    }
}

/// Whether an open file is the one that has this name: one that was deleted or moved away takes bytes that nobody will
/// ever read.
pub fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Replaces a file by one with this content, whole or not at all. With `durable` it outlives a power failure.
///
/// # Errors
/// The old file stays in place.
pub fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    replace_with_mode(path, content, durable, 0o666)
}

/// The same for a file that nobody but its owner may read: texts of queries may hold secrets.
///
/// # Errors
/// The old file stays in place.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with_mode(path, content, false, 0o600)
}

fn replace_with_mode(path: &Path, content: &[u8], durable: bool, mode: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    let written = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&draft)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&draft, path)
    };
    written().map_err(|error| {
        // Half a draft is of no use and takes room.
        let _ = fs::remove_file(&draft);
        io::Error::new(error.kind(), format!("{} cannot be written: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_sees_it_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        let lock = FolderLock::take(&folder).unwrap();
        let refused = FolderLock::take(&folder).unwrap_err().to_string();
        assert!(refused.ends_with("is in use by another Weir: give each its own with `--data`"), "{refused}");
        assert!(lock.is_in_place());
        fs::rename(&folder, dir.path().join("moved")).unwrap();
        assert!(!lock.is_in_place());
        let other = FolderLock::take(&folder).unwrap();
        assert!(!lock.is_in_place() && other.is_in_place());
        fs::remove_dir_all(&folder).unwrap();
        assert!(!other.is_in_place());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        replace(&path, b"one", false).unwrap();
        replace(&path, b"two", true).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()),
            (b"two".to_vec(), 1)
        );
        let refused = replace(&dir.path().join("gone/file"), b"", false).unwrap_err().to_string();
        assert!(refused.contains("gone/file cannot be written"), "{refused}");
    }
}
