//! Reading a block.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    BlockError, CHUNKS_FILE, CHUNKS_MAGIC, INDEX_FILE, INDEX_MAGIC, Meta,
    damage::{Damage, Named},
    error::{Bad, corrupt, missing},
    index::{ChunkRef, IndexReader},
    map::Mapped,
};
use crate::{base::TimeRange, node::chunk};

impl ChunkRef {
    fn touches(&self, window: TimeRange) -> bool {
        self.min_time_ms <= window.end && self.max_time_ms >= window.start
    }

    fn within(&self, window: TimeRange) -> bool {
        self.min_time_ms >= window.start && self.max_time_ms <= window.end
    }
}

/// The cost of reading one series over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCost {
    /// Chunks that the window touches.
    pub chunks: u64,
    /// Samples of those chunks: all are decoded.
    pub samples: u64,
    /// Bytes of those chunks.
    pub bytes: u64,
}

/// A sealed block. Series are numbered from 0 to [`series_count`](Self::series_count).
#[derive(Debug)]
pub struct Block {
    path: PathBuf,
    meta: Meta,
    index: IndexReader,
    index_bytes: Mapped,
    chunks: Mapped,
    /// Chunks that cannot be read.
    lost: Damage,
    /// Whether more than chunks is damaged.
    damaged: AtomicBool,
}

impl Block {
    /// Opens a block, after checking all of its index. Chunks behind the end of their file are lost, the others are not.
    pub fn open(path: &Path) -> Result<Self, BlockError> {
        let meta = Meta::read(path)?;
        let index_path = path.join(INDEX_FILE);
        let index_bytes = Mapped::open(&index_path).map_err(|error| missing(&index_path, error))?;
        refuse_version(&index_path, &index_bytes, *INDEX_MAGIC)?;
        let index = IndexReader::open(&index_bytes).map_err(|Bad(what)| corrupt(&index_path, what))?;
        let chunks_path = path.join(CHUNKS_FILE);
        let chunks = Mapped::open(&chunks_path).map_err(|error| missing(&chunks_path, error))?;
        refuse_version(&chunks_path, &chunks, *CHUNKS_MAGIC)?;
        let block = Self {
            path: path.to_owned(),
            meta,
            index,
            index_bytes,
            chunks,
            lost: Damage::default(),
            damaged: AtomicBool::new(false),
        };
        block.check_index()?;
        if (block.chunks.len() as u64) < block.meta.chunks_bytes {
            block.lose_what_is_cut_off()?;
        }
        Ok(block)
    }

    fn check_index(&self) -> Result<(), BlockError> {
        let mut seen = Meta {
            min_time_ms: i64::MAX,
            max_time_ms: i64::MIN,
            series: u64::from(self.index.len()),
            index_bytes: self.index_bytes.len() as u64,
            ..self.meta.clone()
        };
        (seen.samples, seen.chunks) = (0, 0);
        let mut inside = true;
        for series in 0..self.index.len() {
            self.labels(series)?;
            self.each_chunk(series, |chunk| {
                seen.min_time_ms = seen.min_time_ms.min(chunk.min_time_ms);
                seen.max_time_ms = seen.max_time_ms.max(chunk.max_time_ms);
                seen.samples += u64::from(chunk.samples);
                seen.chunks += 1;
                let end = chunk.offset.checked_add(u64::from(chunk.bytes));
                inside &= end.is_some_and(|end| end <= self.meta.chunks_bytes);
            })?;
        }
        if !inside {
            return Err(self.corrupt_index("a chunk lies outside the file of chunks"));
        }
        if seen != self.meta {
            Err(self.corrupt_index("it is not the index of this meta.json"))
        } else {
            Ok(())
        }
    }

    fn lose_what_is_cut_off(&self) -> Result<(), BlockError> {
        for series in 0..self.index.len() {
            self.each_chunk(series, |chunk| {
                if self.bytes_of(&chunk).is_none() {
                    self.lose(&chunk, "it lies behind the end of the file");
                }
            })?;
        }
        Ok(())
    }

    /// Leaves a chunk out from now on.
    fn lose(&self, chunk: &ChunkRef, why: &str) {
        let Some(named) = self.lost.add(chunk) else { return };
        let (block, offset, from_ms, to_ms) =
            (self.path.display(), chunk.offset, chunk.min_time_ms, chunk.max_time_ms);
        let message = "a chunk of a block is damaged; answers about its times carry a warning";
        tracing::error!(%block, offset, from_ms, to_ms, why, "{message}");
        if named == Named::Last {
            tracing::error!(%block, "more damaged chunks of this block are only counted");
        }
    }

    /// How many chunks were found damaged.
    pub fn lost_chunks(&self) -> u64 {
        self.lost.count()
    }

    /// An error if any was.
    pub fn intact(&self) -> Result<(), BlockError> {
        match self.lost_chunks() {
            0 => Ok(()),
            _ => Err(self.corrupt_chunks("a chunk of it cannot be read")),
        }
    }

    /// Reads every chunk; an error if any is damaged.
    pub(super) fn check_chunks(&self) -> Result<(), BlockError> {
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for series in 0..self.index.len() {
            times.clear();
            values.clear();
            self.read(series, all, &mut times, &mut values)?;
        }
        self.intact()
    }

    /// The times of samples in chunks that were found damaged.
    pub fn lost_ranges(&self) -> Vec<TimeRange> {
        self.lost.ranges()
    }

    fn corrupt_index(&self, what: &'static str) -> BlockError {
        corrupt(&self.path.join(INDEX_FILE), what)
    }

    fn bytes_of(&self, chunk: &ChunkRef) -> Option<&[u8]> {
        let start = usize::try_from(chunk.offset).ok()?;
        self.chunks.get(start..start.checked_add(chunk.bytes as usize)?)
    }

    fn each_chunk(&self, series: u32, visit: impl FnMut(ChunkRef)) -> Result<(), BlockError> {
        self.index.chunks(&self.index_bytes, series, visit).map_err(|Bad(what)| self.corrupt_index(what))
    }

    /// Chunks that are not known to be damaged.
    fn each_sound_chunk(&self, series: u32, mut visit: impl FnMut(ChunkRef)) -> Result<(), BlockError> {
        self.each_chunk(series, |chunk| {
            if !self.lost.has(&chunk) {
                visit(chunk);
            }
        })
    }

    /// Says that damage was found that is not one chunk's.
    pub fn damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    /// Whether damage was found that is not one chunk's.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Times of the first and the last sample of a series, and how many it has.
    pub fn extent(&self, series: u32) -> Result<(i64, i64, u64), BlockError> {
        let mut extent = (i64::MAX, i64::MIN, 0);
        self.each_chunk(series, |chunk| {
            extent.0 = extent.0.min(chunk.min_time_ms);
            extent.1 = extent.1.max(chunk.max_time_ms);
            extent.2 += u64::from(chunk.samples);
        })?;
        Ok(extent)
    }

    /// The number of samples of a series in the window; only chunks that the window cuts are read.
    pub fn count(&self, series: u32, window: TimeRange) -> Result<u64, BlockError> {
        let mut count = 0;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        self.each_sound_chunk(series, |chunk| {
            if chunk.within(window) {
                count += u64::from(chunk.samples);
            } else if chunk.touches(window) {
                times.clear();
                values.clear();
                self.read_chunk(&chunk, window, &mut times, &mut values);
                count += times.len() as u64;
            }
        })?;
        Ok(count)
    }

    /// The folder of the block.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The range and the size of the block.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Number of series.
    pub fn series_count(&self) -> u32 {
        self.index.len()
    }

    /// Whether the block has times in the window.
    pub fn touches(&self, window: TimeRange) -> bool {
        self.meta.min_time_ms <= window.end && self.meta.max_time_ms >= window.start
    }

    /// The labels of a series, in the order in which they were written.
    pub fn labels(&self, series: u32) -> Result<Vec<(&str, &str)>, BlockError> {
        self.index.labels(&self.index_bytes, series).map_err(|Bad(what)| self.corrupt_index(what))
    }

    /// The chunks of a series that the window touches, in the order of time.
    pub fn chunks(&self, series: u32, window: TimeRange) -> Result<Vec<ChunkRef>, BlockError> {
        let mut chunks = Vec::new();
        self.each_chunk(series, |chunk| {
            if chunk.touches(window) {
                chunks.push(chunk);
            }
        })?;
        Ok(chunks)
    }

    /// The cost of reading a series over the window; touches no chunk.
    pub fn cost(&self, series: u32, window: TimeRange) -> Result<SeriesCost, BlockError> {
        let mut cost = SeriesCost::default();
        self.each_sound_chunk(series, |chunk| {
            if chunk.touches(window) {
                cost.chunks += 1;
                cost.samples += u64::from(chunk.samples);
                cost.bytes += u64::from(chunk.bytes);
            }
        })?;
        Ok(cost)
    }

    /// The bytes of a chunk, checked against its checksum.
    pub fn chunk(&self, chunk: &ChunkRef) -> Result<&[u8], BlockError> {
        let bytes = self.bytes_of(chunk).filter(|bytes| crc32fast::hash(bytes) == chunk.crc);
        bytes.ok_or_else(|| self.corrupt_chunks("the checksum of a chunk does not match"))
    }

    fn corrupt_chunks(&self, what: &'static str) -> BlockError {
        corrupt(&self.path.join(CHUNKS_FILE), what)
    }

    /// Appends the samples of a series that lie in the window (both ends included) to the columns, and says how many
    /// they are. A damaged chunk is left out.
    pub fn read(
        &self,
        series: u32,
        window: TimeRange,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<usize, BlockError> {
        let before = times.len();
        self.each_sound_chunk(series, |chunk| {
            if chunk.touches(window) {
                self.read_chunk(&chunk, window, times, values);
            }
        })?;
        Ok(times.len() - before)
    }

    fn read_chunk(&self, chunk: &ChunkRef, window: TimeRange, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        let start = times.len();
        let Ok(bytes) = self.chunk(chunk) else {
            return self.lose(chunk, "its checksum does not match");
        };
        if chunk::decode_into(bytes, times, values).is_err() {
            times.truncate(start);
            values.truncate(start);
            return self.lose(chunk, "it cannot be decoded");
        }
        if !chunk.within(window) {
            let decoded = times.get(start..).unwrap_or_default();
            let end = start + decoded.partition_point(|time| *time <= window.end);
            let first = start + decoded.partition_point(|time| *time < window.start);
            times.truncate(end);
            values.truncate(end);
            times.drain(start..first.min(end));
            values.drain(start..first.min(end));
        }
    }
}

/// An error if a file begins as another version of it would: with another digit at the end of its magic.
fn refuse_version(path: &Path, bytes: &[u8], magic: [u8; 8]) -> Result<(), BlockError> {
    let [word @ .., ours] = magic;
    match bytes.strip_prefix(&word).and_then(<[u8]>::first) {
        Some(version) if version.is_ascii_digit() && *version != ours => {
            let what = format!("version {} of the format", char::from(*version));
            Err(BlockError::Version { path: path.to_owned(), what })
        }
        _ => Ok(()),
    }
}
