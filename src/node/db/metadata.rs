//! Metadata of metrics, in memory and in a file of its own. Senders repeat it, so that a kill may lose seconds of it.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use super::json_file::{self, Contents};
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
    Ok(match json_file::read(&path, VERSION, &["version", "metrics"])? {
        Contents::Missing => Metadata::default(),
        Contents::Damaged => {
            tracing::warn!(file = %path.display(), "the metadata of metrics are damaged, and begin anew");
            Metadata::default()
        }
        Contents::Sound(Kept { metrics, .. }) => Metadata::of(metrics),
    })
}

/// Writes the file in a folder.
///
/// # Errors
/// It cannot be written; the one before stays.
pub(super) fn write(dir: &Path, metrics: BTreeMap<String, Description>, durable: bool) -> io::Result<()> {
    let json = serde_json::to_vec(&Kept { version: VERSION, metrics }).map_err(io::Error::other)?;
    files::replace(&dir.join(FILE), &json, durable)
}
