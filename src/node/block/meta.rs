//! The metadata of a block.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    BlockError, META_FILE, VERSION,
    error::{corrupt, missing},
};
use crate::base::TimeRange;

/// The range and the size of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the format.
    pub version: u32,
    /// Time of the first sample, milliseconds since the Unix epoch.
    pub min_time_ms: i64,
    /// Time of the last sample.
    pub max_time_ms: i64,
    /// Distinct series.
    pub series: u64,
    /// Samples of all series.
    pub samples: u64,
    /// Chunks of all series.
    pub chunks: u64,
    /// Bytes of the file of chunks.
    pub chunks_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Names of the blocks that this one was made from and replaces.
    pub replaces: Vec<String>,
    /// CRC-32 of this JSON with 0 in this place: a flipped bit in `replaces` must not delete another block.
    pub crc: u32,
}

impl Meta {
    /// Reads the metadata of the block in this folder.
    pub(super) fn read(block: &Path) -> Result<Self, BlockError> {
        let path = block.join(META_FILE);
        let bytes = fs::read(&path).map_err(|error| missing(&path, error))?;
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|_| corrupt(&path, "it is not the expected JSON"))?;
        // Before the checksum: another version may have it elsewhere.
        if let Some(version) =
            json.get("version").and_then(Value::as_u64).filter(|v| *v != u64::from(VERSION))
        {
            return Err(BlockError::Version { path, what: format!("version {version} of the format") });
        }
        let added = Self::field_added_to(&json);
        let meta: Self =
            serde_json::from_value(json).map_err(|_| corrupt(&path, "it is not the expected JSON"))?;
        if let Some(name) = added {
            return Err(BlockError::Version { path, what: format!("the field `{name}`") });
        }
        if meta.crc != meta.checksum() {
            return Err(corrupt(&path, "its checksum does not match"));
        }
        Ok(meta)
    }

    /// A field that this version does not know.
    fn field_added_to(json: &Value) -> Option<String> {
        let known = serde_json::to_value(Self::default()).ok()?;
        json.as_object()?.keys().find(|name| known.get(name.as_str()).is_none()).cloned()
    }

    /// Bytes of the block on the disk.
    pub fn bytes(&self) -> u64 {
        self.chunks_bytes.saturating_add(self.index_bytes)
    }

    /// From its first sample to its last.
    pub fn range(&self) -> TimeRange {
        TimeRange { start: self.min_time_ms, end: self.max_time_ms }
    }

    /// The checksum that belongs into `crc`.
    pub(super) fn checksum(&self) -> u32 {
        let blank = Self { crc: 0, ..self.clone() };
        serde_json::to_vec(&blank).map_or(0, |json| crc32fast::hash(&json))
    }
}
