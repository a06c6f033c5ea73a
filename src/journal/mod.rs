//! A record of every query, on disk: its text, its client, its expected cost, its verdict and its outcome.
//!
//! ```text
//! end of a query ─▶ Journal::write ─▶ bounded queue ─▶ thread ─▶ blocks ─▶ DATA/journal/00000001.journal
//!                     full: counted, dropped            │  64 KiB or 5 s      rotated, the oldest deleted
//!                                                       └▶ Top: the ranking of queries
//! ```
//!
//! A query pays one allocation and one push; encoding, compressing and writing happen on the thread. A file is a head
//! with the version, then blocks that are compressed and checked each by itself, so that it is read while it is written.

mod block;
mod codec;
mod read;
mod record;
#[cfg(test)]
mod tests;
mod write;

pub use block::{FormatError, VERSION};
pub use read::{Damage, Reader};
pub use record::{Actual, Basis, Priced, Record, SelectorCount, SplitMode, Text};
pub use write::{Counters, Journal, Settings, TextKept, Writer};

/// Bytes of a query's text that are kept; a longer one is cut and replayed by the numbers recorded with it.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Selectors of one query whose series are kept; a query of more is replayed by its sums.
pub const COUNTS_MAX: usize = 64;

/// The folder of the journal, below `--data`.
pub const FOLDER: &str = "journal";

/// As much of a query's text as is kept.
pub fn kept(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
