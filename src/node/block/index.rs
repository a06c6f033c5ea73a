//! The index of a block: its strings and its series.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{ChunkRef, INDEX_MAGIC, error::Bad};
use crate::node::chunk::bytes::{Input, put_signed, put_varint};

/// Three lengths, three checksums, and the checksum of both.
const TAIL_BYTES: usize = 3 * 8 + 3 * 4 + 4;

/// Collects the index of a block.
#[derive(Debug, Default)]
pub(super) struct IndexWriter {
    numbers: HashMap<Arc<str>, u32>,
    strings: Vec<u8>,
    series: Vec<u8>,
    offsets: Vec<u8>,
}

impl IndexWriter {
    pub(super) fn series(&mut self) -> usize {
        self.offsets.len() / 8
    }

    /// Adds a series; its chunks lie behind those of the series before.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], chunks: &[ChunkRef]) {
        self.offsets.extend_from_slice(&(self.series.len() as u64).to_le_bytes());
        put_varint(labels.len() as u64, &mut self.series);
        for (name, value) in labels {
            for text in [name, value] {
                let number = self.number(text);
                put_varint(u64::from(number), &mut self.series);
            }
        }
        put_varint(chunks.len() as u64, &mut self.series);
        put_varint(chunks.first().map_or(0, |chunk| chunk.offset), &mut self.series);
        let mut last = 0;
        for chunk in chunks {
            put_signed(chunk.min_time_ms.wrapping_sub(last), &mut self.series);
            put_varint(chunk.max_time_ms.wrapping_sub(chunk.min_time_ms) as u64, &mut self.series);
            put_varint(u64::from(chunk.samples), &mut self.series);
            put_varint(u64::from(chunk.bytes), &mut self.series);
            self.series.extend_from_slice(&chunk.crc.to_le_bytes());
            last = chunk.max_time_ms;
        }
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        put_varint(text.len() as u64, &mut self.strings);
        self.strings.extend_from_slice(text.as_bytes());
        number
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let sections = [&self.strings, &self.series, &self.offsets];
        let mut out = INDEX_MAGIC.to_vec();
        let mut tail = Vec::with_capacity(TAIL_BYTES);
        for section in sections {
            out.extend_from_slice(section);
            tail.extend_from_slice(&(section.len() as u64).to_le_bytes());
        }
        for section in sections {
            tail.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
        }
        let check = crc32fast::hash(&tail);
        tail.extend_from_slice(&check.to_le_bytes());
        out.extend(tail);
        out
    }
}

/// Where the parts of an index are; what they hold is read from the map each time.
#[derive(Debug)]
pub(super) struct IndexReader {
    series: Range<usize>,
    offsets: Range<usize>,
    /// Where each string starts and ends.
    strings: Vec<Range<usize>>,
}

impl IndexReader {
    /// Checks every checksum and finds the sections.
    pub(super) fn open(bytes: &[u8]) -> Result<Self, Bad> {
        if !bytes.starts_with(INDEX_MAGIC) {
            return Err(Bad("it does not start as an index does"));
        }
        let tail_at = bytes.len().checked_sub(TAIL_BYTES).ok_or(Bad("it is too short"))?;
        let mut tail = Input::new(bytes.get(tail_at..).unwrap_or_default());
        let checked = tail.ahead().take(TAIL_BYTES - 4)?;
        let mut at = INDEX_MAGIC.len();
        let mut sections = [0..0, 0..0, 0..0];
        for section in &mut sections {
            let end = usize::try_from(tail.word()?).ok().and_then(|length| at.checked_add(length));
            let end = end.filter(|end| *end <= tail_at).ok_or(Bad("a section ends behind the file"))?;
            *section = at..end;
            at = end;
        }
        for section in &sections {
            let crc = crc32fast::hash(bytes.get(section.clone()).unwrap_or_default());
            if tail.half()? != crc {
                return Err(Bad("the checksum of a section does not match"));
            }
        }
        if tail.half()? != crc32fast::hash(checked) || at != tail_at {
            return Err(Bad("the checksum of the tail does not match"));
        }
        let [strings, series, offsets] = sections;
        if !offsets.len().is_multiple_of(8) {
            return Err(Bad("an offset is cut off"));
        }
        Ok(Self { series, offsets, strings: find_strings(bytes, strings)? })
    }

    /// Number of series.
    pub(super) fn len(&self) -> u32 {
        (self.offsets.len() / 8) as u32
    }

    fn entry<'a>(&self, bytes: &'a [u8], series: u32) -> Result<Input<'a>, Bad> {
        let at = self.offsets.start + series as usize * 8;
        let offset = bytes.get(at..self.offsets.end).ok_or(Bad("no such series"))?;
        let offset = Input::new(offset).word()? as usize;
        let entry = bytes.get(self.series.clone()).and_then(|section| section.get(offset..));
        Ok(Input::new(entry.ok_or(Bad("a series lies outside the index"))?))
    }

    /// The labels of a series, in the order in which they were written.
    pub(super) fn labels<'a>(&self, bytes: &'a [u8], series: u32) -> Result<Vec<(&'a str, &'a str)>, Bad> {
        let mut entry = self.entry(bytes, series)?;
        let count = entry.varint()?;
        let mut labels = Vec::new();
        for _ in 0..count {
            let name = self.string(bytes, entry.varint()?)?;
            let value = self.string(bytes, entry.varint()?)?;
            labels.push((name, value));
        }
        Ok(labels)
    }

    fn string<'a>(&self, bytes: &'a [u8], number: u64) -> Result<&'a str, Bad> {
        let range = self.strings.get(number as usize).ok_or(Bad("no such string"))?;
        let text = bytes.get(range.clone()).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| Bad("a string is no UTF-8"))
    }

    /// Hands the chunks of a series to `visit`, in the order of time.
    pub(super) fn chunks(
        &self,
        bytes: &[u8],
        series: u32,
        mut visit: impl FnMut(ChunkRef),
    ) -> Result<(), Bad> {
        let mut entry = self.entry(bytes, series)?;
        for _ in 0..entry.varint()? {
            entry.varint()?;
            entry.varint()?;
        }
        let chunks = entry.varint()?;
        let mut offset = entry.varint()?;
        let mut last = 0i64;
        for _ in 0..chunks {
            let min_time_ms = last.wrapping_add(entry.signed()?);
            let max_time_ms = min_time_ms.wrapping_add(entry.varint()? as i64);
            let samples = entry.varint()? as u32;
            let length = entry.varint()? as u32;
            let crc = entry.half()?;
            visit(ChunkRef { min_time_ms, max_time_ms, samples, offset, bytes: length, crc });
            offset = offset.saturating_add(u64::from(length));
            last = max_time_ms;
        }
        Ok(())
    }
}

fn find_strings(bytes: &[u8], section: Range<usize>) -> Result<Vec<Range<usize>>, Bad> {
    let mut input = Input::new(bytes.get(section.clone()).unwrap_or_default());
    let mut strings = Vec::new();
    while !input.is_empty() {
        let length = input.varint()? as usize;
        let start = section.end - input.len();
        input.take(length)?;
        strings.push(start..start + length);
    }
    Ok(strings)
}
