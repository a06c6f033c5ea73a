//! Damaged files of the log, kept when a checkpoint makes them superfluous: what is left in them may be wanted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// In the name of a damaged file, before a number.
const MARKED: &str = ".corrupt-";
/// Damaged files that are kept; each may be as large as a whole log.
const KEPT_MAX: usize = 8;

/// Renames a damaged file; where it is then, or `None` where enough of them lie already.
pub(super) fn set_aside(file: &Path) -> io::Result<Option<PathBuf>> {
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
    let Some(place) = places.find(|place| !place.exists()) else { return Ok(None) };
    fs::rename(file, &place)?;
    Ok(Some(place))
}
