//! Logs of other programs, line by line. A field that a line does not have stays unknown.

mod fields;
mod logfmt;
mod prometheus;
mod victoriametrics;

use std::{
    io::{self, BufRead},
    str::FromStr,
};

use crate::journal::Record;

/// Bytes of one line; a longer one is skipped.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The program that wrote the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "product names")]
pub enum Format {
    Prometheus,
    Mimir,
    Cortex,
    Thanos,
    VictoriaMetrics,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "prometheus" => Self::Prometheus,
            "mimir" => Self::Mimir,
            "cortex" => Self::Cortex,
            "thanos" => Self::Thanos,
            "victoriametrics" => Self::VictoriaMetrics,
            _ => return Err("one of prometheus, mimir, cortex, thanos, victoriametrics".to_owned()),
        })
    }
}

impl Format {
    /// The query of a line; `None` where the line is about something else.
    pub fn record(self, line: &str) -> Option<Record> {
        match self {
            Self::Prometheus => prometheus::record(line),
            Self::Mimir | Self::Cortex | Self::Thanos => logfmt::record(self, line),
            Self::VictoriaMetrics => victoriametrics::record(line),
        }
    }
}

/// Reads a log; lines that are about no query are counted.
#[derive(Debug)]
pub struct Importer<R> {
    format: Format,
    lines: R,
    buffer: Vec<u8>,
    skipped: u64,
}

impl<R: BufRead> Importer<R> {
    /// A log in this format.
    pub const fn new(format: Format, lines: R) -> Self {
        Self { format, lines, buffer: Vec::new(), skipped: 0 }
    }

    /// Lines so far that are about no query.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Reads a line into the buffer, as far as it fits; `false` at the end.
    fn line(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        loop {
            let chunk = self.lines.fill_buf()?;
            if chunk.is_empty() {
                return Ok(!self.buffer.is_empty());
            }
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            let read = part.len() + usize::from(end.is_some());
            self.lines.consume(read);
            if end.is_some() {
                // An empty line is no end.
                self.buffer.push(b'\n');
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Iterator for Importer<R> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<io::Result<Record>> {
        loop {
            match self.line() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            let line = String::from_utf8_lossy(&self.buffer);
            let line = line.trim();
            let record = (line.len() <= LINE_BYTES_MAX).then(|| self.format.record(line)).flatten();
            match record {
                Some(record) => return Some(Ok(record)),
                None => self.skipped += u64::from(!line.is_empty()),
            }
        }
    }
}
