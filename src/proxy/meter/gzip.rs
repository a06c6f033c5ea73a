//! Reads a copy of a gzip answer: the original bytes go on untouched, the inflated ones are counted and forgotten.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;

use super::scan::Scanner;

/// Size of the buffer that inflated bytes pass through.
const SCRATCH_BYTES: usize = 16 * 1024;

/// Inflates into a scratch buffer of fixed size and counts the output.
#[derive(Debug)]
pub(super) struct GzipReader {
    decoder: MultiGzDecoder<Feed>,
    scratch: Box<[u8]>,
    scanner: Scanner,
    bytes: u64,
    broken: bool,
}

/// The chunk that the decoder reads next. It runs dry between chunks, which the decoder takes for "not yet".
#[derive(Debug)]
struct Feed {
    chunk: Bytes,
    ended: bool,
}

impl GzipReader {
    pub(super) fn new() -> Self {
        Self {
            decoder: MultiGzDecoder::new(Feed { chunk: Bytes::new(), ended: false }),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            scanner: Scanner::new(),
            bytes: 0,
            broken: false,
        }
    }

    /// Takes the next chunk, to be read by `inflate`; the one before was read to its end.
    pub(super) fn load(&mut self, chunk: &Bytes) {
        if !self.broken {
            self.decoder.get_mut().chunk = chunk.clone();
        }
    }

    /// Inflates until the chunk is used up (`true`) or about `budget` bytes came out (`false`).
    pub(super) fn inflate(&mut self, budget: u64) -> bool {
        let stop = self.bytes.saturating_add(budget);
        while !self.broken && self.bytes < stop {
            match self.decoder.read(&mut self.scratch) {
                Ok(0) => return true,
                Ok(length) => {
                    self.bytes += length as u64;
                    self.scanner.feed(self.scratch.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => self.broken = true,
            }
        }
        self.broken
    }

    /// Whether the stream ended where gzip says that it ends, every checksum right and the document whole.
    pub(super) fn finish(&mut self) -> bool {
        self.decoder.get_mut().ended = true;
        // The decoder itself holds the rest: less than its window.
        self.inflate(u64::MAX) && !self.broken && self.scanner.is_whole()
    }

    /// Bytes inflated so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn scanner(&self) -> &Scanner {
        &self.scanner
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, length: usize) {
        self.chunk.advance(length);
    }
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.len().min(into.len());
        self.chunk.copy_to_slice(into.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
