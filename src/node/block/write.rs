//! Writing a block.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{
    BlockError, CHUNKS_FILE, CHUNKS_MAGIC, INDEX_FILE, META_FILE, Meta, VERSION,
    error::io_error,
    folder::{TMP, number, sync_dir},
    index::{ChunkRef, IndexWriter},
};
use crate::node::chunk;

/// Samples in one chunk of a block at most: two hours at 15 s are one chunk, and a short window over a longer block
/// does not decode much more than it needs.
pub const CHUNK_SAMPLES: usize = 960;

/// Writes a block, series by series.
#[derive(Debug)]
pub struct BlockWriter {
    target: PathBuf,
    tmp: PathBuf,
    chunks: BufWriter<File>,
    index: IndexWriter,
    meta: Meta,
    /// The chunk being written, and the references of the series being written.
    buffer: Vec<u8>,
    refs: Vec<ChunkRef>,
    finished: bool,
}

impl BlockWriter {
    /// Starts the block `name`, a number, in the folder `blocks`, which exists. `replaces` names the blocks that it
    /// stands for.
    pub fn create(blocks: &Path, name: &str, replaces: Vec<String>) -> Result<Self, BlockError> {
        if number(name).is_none() {
            return Err(BlockError::Unfit("the name of a block is a number"));
        }
        let target = blocks.join(name);
        let tmp = blocks.join(format!("{name}{TMP}"));
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(|error| io_error(&tmp, error))?;
        }
        fs::create_dir(&tmp).map_err(|error| io_error(&tmp, error))?;
        let path = tmp.join(CHUNKS_FILE);
        let chunks = File::create_new(&path).map_err(|error| io_error(&path, error))?;
        let mut writer = Self {
            target,
            tmp,
            chunks: BufWriter::with_capacity(1 << 18, chunks),
            index: IndexWriter::default(),
            meta: Meta {
                version: VERSION,
                min_time_ms: i64::MAX,
                max_time_ms: i64::MIN,
                replaces,
                ..Meta::default()
            },
            buffer: Vec::new(),
            refs: Vec::new(),
            finished: false,
        };
        writer.put(CHUNKS_MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.meta.chunks_bytes += bytes.len() as u64;
        self.chunks.write_all(bytes).map_err(|error| io_error(&self.tmp.join(CHUNKS_FILE), error))
    }

    /// Adds a series with its samples, whose times rise strictly. A series without samples is left out. Series are
    /// numbered in the order in which they come; sorted by labels they compress and scan best.
    pub fn series(
        &mut self,
        labels: &[(&str, &str)],
        times: &[i64],
        values: &[f64],
    ) -> Result<(), BlockError> {
        if times.len() != values.len() {
            return Err(BlockError::Unfit("a series has as many times as values"));
        }
        if !times.is_sorted_by(|a, b| a < b) {
            return Err(BlockError::Unfit("times rise strictly"));
        }
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
        if self.index.series() == u32::MAX {
            return Err(BlockError::Unfit("too many series"));
        }
        self.meta.min_time_ms = self.meta.min_time_ms.min(*first);
        self.meta.max_time_ms = self.meta.max_time_ms.max(*last);
        self.refs.clear();
        // Chunks of equal length: a short last one would pay for its header alone.
        let pieces = times.len().div_ceil(CHUNK_SAMPLES);
        let length = times.len().div_ceil(pieces);
        for (times, values) in times.chunks(length).zip(values.chunks(length)) {
            self.chunk(times, values)?;
        }
        self.index.add(labels, &self.refs);
        self.meta.series += 1;
        Ok(())
    }

    fn chunk(&mut self, times: &[i64], values: &[f64]) -> Result<(), BlockError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        chunk::encode(times, values, &mut buffer).map_err(|_| BlockError::Unfit("too many samples"))?;
        self.refs.push(ChunkRef {
            min_time_ms: times.first().copied().unwrap_or(0),
            max_time_ms: times.last().copied().unwrap_or(0),
            samples: times.len() as u32,
            offset: self.meta.chunks_bytes,
            bytes: buffer.len() as u32,
            crc: crc32fast::hash(&buffer),
        });
        self.meta.samples += times.len() as u64;
        self.meta.chunks += 1;
        let put = self.put(&buffer);
        self.buffer = buffer;
        put
    }

    /// Samples written so far.
    pub fn samples(&self) -> u64 {
        self.meta.samples
    }

    /// Makes the block durable and visible, and says where it is. A block without series is not made.
    pub fn finish(mut self) -> Result<Option<PathBuf>, BlockError> {
        if self.meta.series == 0 {
            return Ok(None);
        }
        let path = self.tmp.join(CHUNKS_FILE);
        self.chunks.flush().map_err(|error| io_error(&path, error))?;
        self.chunks.get_ref().sync_all().map_err(|error| io_error(&path, error))?;
        let index = std::mem::take(&mut self.index).finish();
        self.meta.index_bytes = index.len() as u64;
        write_synced(&self.tmp.join(INDEX_FILE), &index)?;
        self.meta.crc = self.meta.checksum();
        let meta =
            serde_json::to_vec_pretty(&self.meta).map_err(|error| io_error(&self.tmp, error.into()))?;
        write_synced(&self.tmp.join(META_FILE), &meta)?;
        sync_dir(&self.tmp)?;
        fs::rename(&self.tmp, &self.target).map_err(|error| io_error(&self.target, error))?;
        self.finished = true;
        sync_dir(self.target.parent().unwrap_or(&self.target))?;
        Ok(Some(self.target.clone()))
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if !self.finished {
            // The rest of an abandoned block is also removed when the folder is opened the next time.
            fs::remove_dir_all(&self.tmp).ok();
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), BlockError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| io_error(path, error))
}
