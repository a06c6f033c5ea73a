//! The file: a head that names the format and its version, then blocks.
//!
//! ```text
//! file   "WEIRJRNL"  version u32
//! block  "BLK1"  stored bytes u32  raw bytes u32  records u32  CRC-32 of all before and of the payload u32  payload
//! ```
//!
//! Numbers are little-endian. A payload is the records of the block, deflated.

use std::{
    fmt,
    io::{self, Read, Write},
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

const MAGIC: [u8; 8] = *b"WEIRJRNL";
const MARK: [u8; 4] = *b"BLK1";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// Bytes of a file's head.
pub(super) const FILE_HEAD: usize = 12;
/// Bytes of a block's head.
const BLOCK_HEAD: usize = 20;
/// Bytes of a block, inflated; the writer stays far below.
pub(super) const RAW_MAX: usize = 1 << 20;
/// Bytes of a block as it is stored: deflate adds a little where it cannot compress.
const STORED_MAX: usize = RAW_MAX + (RAW_MAX >> 8) + 64;

/// Why a file is not read.
#[derive(Debug)]
pub enum FormatError {
    /// It does not begin as a journal does.
    NotAJournal,
    /// Another program wrote it.
    Version(u32),
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAJournal => f.write_str("this is not a journal of Weir"),
            Self::Version(version) => {
                write!(
                    f,
                    "this journal has version {version}, and this program reads version {VERSION}; use the program \
                     that wrote it"
                )
            }
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
        }
    }
}

impl std::error::Error for FormatError {}

impl From<io::Error> for FormatError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn file_head() -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// Reads and checks the head of a file; `false` where not even that was written.
pub(super) fn read_file_head(file: &mut impl Read) -> Result<bool, FormatError> {
    let mut head = [0; FILE_HEAD];
    let got = fill(file, &mut head)?;
    if got < FILE_HEAD {
        return if head[..got.min(8)] == MAGIC[..got.min(8)] {
            Ok(false)
        } else {
            Err(FormatError::NotAJournal)
        };
    }
    if head[..8] != MAGIC {
        return Err(FormatError::NotAJournal);
    }
    match number(&head, 8) {
        VERSION => Ok(true),
        other => Err(FormatError::Version(other)),
    }
}

/// The records of one block as it is stored.
pub(super) fn encode(raw: &[u8], records: u32) -> io::Result<Vec<u8>> {
    let mut out = vec![0; BLOCK_HEAD];
    let mut deflate = DeflateEncoder::new(out, Compression::fast());
    deflate.write_all(raw)?;
    out = deflate.finish()?;
    let stored = (out.len() - BLOCK_HEAD) as u32;
    out[..4].copy_from_slice(&MARK);
    out[4..8].copy_from_slice(&stored.to_le_bytes());
    out[8..12].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    out[12..16].copy_from_slice(&records.to_le_bytes());
    let crc = checksum(&out[..16], &out[BLOCK_HEAD..]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// The next part of a file.
#[derive(Debug)]
pub(super) enum Block {
    /// The records of a block, inflated, and their number.
    Good(Vec<u8>, u32),
    /// A block whose checksum is wrong; the next one may be good.
    Damaged,
    /// These bytes are no block, so that nothing behind them is found either.
    Lost,
    /// The file ends in the middle of a block: it is being written, or its writer was killed.
    Torn,
    /// The file ends.
    End,
}

pub(super) fn read(file: &mut impl Read) -> io::Result<Block> {
    let mut head = [0; BLOCK_HEAD];
    match fill(file, &mut head)? {
        0 => return Ok(Block::End),
        got if got < BLOCK_HEAD => return Ok(Block::Torn),
        _ => {}
    }
    let [stored, raw, records, crc] = [4, 8, 12, 16].map(|at| number(&head, at));
    let (stored, raw) = (stored as usize, raw as usize);
    if head[..4] != MARK || stored > STORED_MAX || raw > RAW_MAX {
        return Ok(Block::Lost);
    }
    let mut payload = vec![0; stored];
    if fill(file, &mut payload)? < stored {
        return Ok(Block::Torn);
    }
    if checksum(&head[..16], &payload) != crc {
        return Ok(Block::Damaged);
    }
    let mut inflated = Vec::with_capacity(raw);
    // One byte more than it should be, so that a longer one is seen.
    let read = DeflateDecoder::new(&payload[..]).take(raw as u64 + 1).read_to_end(&mut inflated);
    Ok(match read {
        Ok(length) if length == raw => Block::Good(inflated, records),
        _ => Block::Damaged,
    })
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// A number of four bytes within a head, which is long enough for it.
fn number(head: &[u8], at: usize) -> u32 {
    head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Reads until the buffer is full or the file ends; how much was read.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
