//! JSON files of a data folder, which another version of Weir may have written.

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The contents of a file.
pub(super) enum Contents<T> {
    /// There is no file.
    Missing,
    /// The file cannot be understood.
    Damaged,
    /// The file was understood.
    Sound(T),
}

/// Reads a file of this version, which has no fields but these.
///
/// # Errors
/// It cannot be read, or another version of Weir wrote it.
pub(super) fn read<T: DeserializeOwned>(
    path: &Path,
    version: u64,
    fields: &[&str],
) -> io::Result<Contents<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Missing),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let other = |has: String| {
        io::Error::other(format!(
            "{} has {has}, and this Weir reads version {version} only: start the Weir that wrote it",
            path.display()
        ))
    };
    if let Some(found) = json.get("version").and_then(Value::as_u64).filter(|found| *found != version) {
        return Err(other(format!("version {found}")));
    }
    let mut names = json.as_object().into_iter().flat_map(serde_json::Map::keys);
    let added = names.find(|name| !fields.contains(&name.as_str())).cloned();
    match (serde_json::from_value(json), added) {
        (Ok(_), Some(name)) => Err(other(format!("the field `{name}`"))),
        (Ok(read), None) => Ok(Contents::Sound(read)),
        (Err(_), _) => Ok(Contents::Damaged),
    }
}
