//! Sealed, immutable blocks on disk.
//!
//! ```text
//! <block>/meta.json   the block's span and counts
//!         index       labels and chunk references of every series
//!         chunks      chunks, one behind the other
//! index   magic · strings · series · groups · tail
//! series  length of the rest behind the next number · bytes of all its chunks · labels as pairs of string numbers · chunks
//! chunk   start and end, near those of the first series · samples · length, unless it is the last · crc32
//! groups  of every 16th series: where it is among the series, and where its chunks are
//! tail    lengths of the three · crc32 of the three · number of series · start and end of the first · crc32 of the tail
//! ```
//!
//! A block is written into a folder with another name, synced and renamed, so that it exists whole or not at all. It
//! is read through a memory map. Opening checks every section of the index, not the chunks: each chunk has its own
//! checksum, which is checked whenever the chunk is read. A chunk that cannot be read is left out, and the block goes
//! on without it; only a damaged index or `meta.json` costs the whole block.

mod damage;
mod error;
mod folder;
mod index;
mod map;
mod meta;
mod read;
mod write;

#[cfg(test)]
pub(in crate::node) mod tests;

pub use damage::joined;
pub use error::BlockError;
pub use folder::{Opened, Quarantined, is_quarantined, name_of, number, open_all, quarantine, remove};
pub use index::ChunkRef;
pub use meta::Meta;
pub use read::{Block, SeriesCost};
pub use write::{BlockWriter, CHUNK_SAMPLES};

const META_FILE: &str = "meta.json";
const INDEX_FILE: &str = "index";
const CHUNKS_FILE: &str = "chunks";

/// The version of the format that this code writes and reads.
const VERSION: u32 = 2;

/// First bytes of a file of chunks; the last one is the version.
const CHUNKS_MAGIC: &[u8; 8] = b"WEIRCHK2";
/// First bytes of an index; the last one is the version.
const INDEX_MAGIC: &[u8; 8] = b"WEIRIDX2";
