//! Metadata of metrics, in memory and in a file of its own. Senders repeat it, so that a kill may lose seconds of it.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    base::files,
    node::head::{Description, Metadata},
};

/// Its name in the data folder.
pub(super) const FILE: &str = "metadata.json";
const VERSION: u64 = 1;

/// The file.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    version: u64,
    metrics: BTreeMap<String, Description>,
}

/// Reads the file in a folder. A damaged one counts as empty, and is named in the log.
///
/// # Errors
/// It cannot be read, or another version of Weir wrote it.
pub(super) fn read(dir: &Path) -> io::Result<Metadata> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Metadata::default()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    };
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let version = json.get("version").and_then(Value::as_u64);
    let added =
        json.as_object().into_iter().flatten().find(|(name, _)| *name != "version" && *name != "metrics");
    let what = match (version, added) {
        (Some(version), _) if version != VERSION => Some(format!("version {version}")),
        (Some(_), Some((name, _))) => Some(format!("the field `{name}`")),
        _ => None,
    };
    if let Some(what) = what {
        return Err(io::Error::other(format!(
            "{} has {what}, and this Weir reads version {VERSION} only: start the Weir that wrote it",
            path.display()
        )));
    }
    Ok(serde_json::from_value(json).map_or_else(
        |_| {
            tracing::warn!(file = %path.display(), "the metadata of metrics are damaged, and begin anew");
            Metadata::default()
        },
        |kept: Kept| Metadata::of(kept.metrics),
    ))
}

/// Writes the file in a folder.
///
/// # Errors
/// It cannot be written; the one before stays.
pub(super) fn write(dir: &Path, metrics: BTreeMap<String, Description>, durable: bool) -> io::Result<()> {
    let json = serde_json::to_vec(&Kept { version: VERSION, metrics }).map_err(io::Error::other)?;
    files::replace(&dir.join(FILE), &json, durable)
}
