//! Quarantine of damaged files of the log, or of parts of them: an operator may want the rest of their data.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// In the name of a file that is kept, before a number.
const MARKED: &str = ".corrupt-";
/// Files that are kept; each may be as large as a whole log.
const KEPT_MAX: usize = 8;

/// Renames a damaged file; where it is then, or `None` where enough of them lie already.
pub(super) fn quarantine(file: &Path) -> io::Result<Option<PathBuf>> {
    let Some(place) = free_place(file)? else { return Ok(None) };
    fs::rename(file, &place)?;
    Ok(Some(place))
}

/// Copies the end of a file, which is about to be cut off; where it is then, or `None` where enough of them lie already.
pub(super) fn copy_end(file: &Path, end: &[u8]) -> io::Result<Option<PathBuf>> {
    let Some(place) = free_place(file)? else { return Ok(None) };
    let copy = || {
        let mut copy = File::create_new(&place)?;
        copy.write_all(end)?;
        copy.sync_all()?;
        place.parent().map_or(Ok(()), super::sync_dir)
    };
    // Half of it is of no use and takes the place of another one.
    copy().inspect_err(|_| drop(fs::remove_file(&place)))?;
    Ok(Some(place))
}

fn free_place(file: &Path) -> io::Result<Option<PathBuf>> {
    let Some(dir) = file.parent() else { return Ok(None) };
    let mut kept = 0;
    for entry in fs::read_dir(dir)? {
        kept += usize::from(entry?.file_name().to_string_lossy().contains(MARKED));
    }
    if kept >= KEPT_MAX {
        return Ok(None);
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut places = (0..KEPT_MAX).map(|i| dir.join(format!("{name}{MARKED}{i}")));
    Ok(places.find(|place| !place.exists()))
}
