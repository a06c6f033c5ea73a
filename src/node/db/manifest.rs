//! The manifest: the list of expected files. A start holds the folder against it, since a file that was deleted or cut
//! to nothing leaves no other trace.
//!
//! It is written before anything that it names is removed, and after anything new has its name, so that every file it
//! names was there once.

use std::{fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    json_file::{self, Contents},
    metadata,
};
use crate::{
    base::files,
    node::{
        block,
        wal::{self, LogFile},
    },
};

const FILE: &str = "manifest.json";
const VERSION: u32 = 1;
const FIELDS: [&str; 7] = ["version", "blocks", "log", "metadata", "earliest_ms", "latest_ms", "crc"];
/// It is written this often even if no file changed, for the time in it.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Files that a message names.
const NAMED_MAX: usize = 10;

/// The expected contents of a data folder.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Manifest {
    version: u32,
    /// Names of blocks.
    blocks: Vec<String>,
    /// Files of the log, oldest first.
    log: Vec<LogFile>,
    /// Whether there is a file with the metadata of metrics; absent in manifests of folders without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    metadata: bool,
    /// The bounds of the present when it was written, milliseconds since the Unix epoch.
    pub(super) earliest_ms: i64,
    pub(super) latest_ms: i64,
    /// CRC-32 of this JSON with 0 in this place.
    crc: u32,
}

/// The manifest that was written last, and when by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Written {
    manifest: Manifest,
    at: Duration,
}

impl Manifest {
    /// The manifest of these blocks, this log and these bounds of the present.
    pub(super) fn of(blocks: Vec<String>, log: Vec<LogFile>, earliest_ms: i64, latest_ms: i64) -> Self {
        Self { version: VERSION, blocks, log, metadata: false, earliest_ms, latest_ms, crc: 0 }
    }

    fn checksum(&self) -> u32 {
        let blank = Self { crc: 0, ..self.clone() };
        serde_json::to_vec(&blank).map_or(0, |json| crc32fast::hash(&json))
    }

    /// The manifest of a folder; `None` where there is none, or none that can be read, which the log then says.
    ///
    /// # Errors
    /// It cannot be read, or another version of Weir wrote it.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(FILE);
        let manifest = match json_file::read::<Self>(&path, VERSION.into(), &FIELDS)? {
            Contents::Missing => return Ok(None),
            Contents::Damaged => None,
            Contents::Sound(manifest) => Some(manifest),
        };
        let sound = manifest.filter(|manifest| manifest.crc == manifest.checksum());
        if sound.is_none() {
            tracing::warn!(file = %path.display(), "the manifest is damaged: files that are missing are not noticed");
        }
        Ok(sound)
    }

    /// Files that are missing in the folder, or shorter than they were.
    pub(super) fn missing(&self, dir: &Path) -> Vec<String> {
        let mut missing = Vec::new();
        let blocks = dir.join("blocks");
        for name in &self.blocks {
            if !blocks.join(name).is_dir() && !block::is_quarantined(&blocks, name) {
                missing.push(format!("the block {name} is missing"));
            }
        }
        if self.metadata && !dir.join(metadata::FILE).exists() {
            missing.push(format!("{} is missing", metadata::FILE));
        }
        let log = dir.join("wal");
        for file in self.log.iter().filter(|file| !wal::is_superseded(&log, &file.name)) {
            match fs::metadata(log.join(&file.name)) {
                Ok(found) if found.len() >= file.bytes => {}
                Ok(found) => {
                    missing.push(format!(
                        "{} of the log has {} bytes, and had at least {}",
                        file.name,
                        found.len(),
                        file.bytes
                    ));
                }
                Err(_) => missing.push(format!("{} of the log is missing", file.name)),
            }
        }
        missing
    }
}

impl Written {
    /// Writes a manifest, if files came or went since the last one or that is old; `now` is by the monotonic clock.
    pub(super) fn write(
        &mut self,
        dir: &Path,
        mut manifest: Manifest,
        now: Duration,
        durable: bool,
    ) -> io::Result<()> {
        // Nothing deletes it: once written it is expected, until a start has missed it.
        manifest.metadata = self.manifest.metadata || dir.join(metadata::FILE).exists();
        let Manifest { earliest_ms, latest_ms, .. } = manifest;
        let same = Manifest { earliest_ms, latest_ms, crc: 0, ..self.manifest.clone() } == manifest;
        if same && now.saturating_sub(self.at) < WRITTEN_EVERY {
            return Ok(());
        }
        manifest.crc = manifest.checksum();
        let json = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        files::replace(&dir.join(FILE), &json, durable)?;
        *self = Self { manifest, at: now };
        Ok(())
    }
}

/// Holds a folder against its manifest, before anything there is changed. Returns the number of missing files.
pub(super) fn compare(dir: &Path, manifest: Option<&Manifest>) -> usize {
    let folder = dir.display();
    let Some(manifest) = manifest else {
        let is_used = ["blocks", "wal"].iter().any(|part| holds_data(&dir.join(part)));
        match is_used {
            true if !dir.join(FILE).exists() => {
                tracing::warn!(%folder, "there is no manifest.json: files that are missing are not noticed");
            }
            true => {}
            false => tracing::info!(%folder, "the data folder is empty"),
        }
        return 0;
    };
    let missing = manifest.missing(dir);
    if !missing.is_empty() {
        let files = missing.len();
        let shown = missing.get(..NAMED_MAX).unwrap_or(&missing).join("; ");
        tracing::error!(files, %folder, missing = shown, "files are missing, and their contents are lost");
    }
    missing.len()
}

/// Whether a folder has more in it than its lock.
fn holds_data(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() != files::LOCK)
}
