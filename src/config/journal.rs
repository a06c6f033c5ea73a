//! The record of every query.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{defaults::lit, scalar::Size};
use crate::journal::TextKept;

/// The record of every query in `--data`, which `weir replay` and `weir suggest` read. Takes effect at the next start.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Whether it is kept; without it, the heaviest users are ranked all the same.
    pub enabled: bool,
    /// Most bytes on disk, at least `1MiB`; the oldest queries go first. A query takes some dozens of bytes.
    pub size: Size,
    /// The part of a query's text that is kept.
    pub text: JournalText,
}

impl Default for Journal {
    fn default() -> Self {
        Self { enabled: true, size: lit("64MiB"), text: JournalText::Full }
    }
}

/// The part of a query's text that is kept.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalText {
    /// All of it, up to 16 KiB.
    Full,
    /// Its fingerprint alone; a replay then judges by the numbers that were recorded.
    Fingerprint,
}

impl JournalText {
    /// As the journal has it.
    pub const fn kept(self) -> TextKept {
        match self {
            Self::Full => TextKept::Full,
            Self::Fingerprint => TextKept::Fingerprint,
        }
    }
}
