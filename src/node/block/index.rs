//! The index of a block: its strings and its series.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{INDEX_MAGIC, error::Bad};
use crate::node::chunk::bytes::{Input, put_signed, put_varint};

/// The place of a chunk, and its properties known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Time of its first sample.
    pub min_time_ms: i64,
    /// Time of its last sample.
    pub max_time_ms: i64,
    /// Its samples.
    pub samples: u32,
    /// Where it starts in the file of chunks.
    pub offset: u64,
    /// Its length.
    pub bytes: u32,
    /// Checksum of its bytes.
    pub crc: u32,
}

/// Three lengths, three checksums, how many series, two times, and the checksum of all this.
const TAIL_BYTES: usize = 3 * 8 + 3 * 4 + 3 * 8 + 4;
/// Every this many series the index stores an offset; the others are counted from there.
const GROUP: u32 = 16;
/// Where it is in its section, and where its chunks are.
const GROUP_BYTES: usize = 16;

/// Collects the index of a block.
#[derive(Debug, Default)]
pub(super) struct IndexWriter {
    numbers: HashMap<Arc<str>, u32>,
    strings: Vec<u8>,
    series: Vec<u8>,
    groups: Vec<u8>,
    count: u32,
    near: Near,
    /// The entry being written.
    entry: Vec<u8>,
}

/// The first and the last time of the first series: those of the others are near.
#[derive(Clone, Copy, Debug, Default)]
struct Near {
    first: i64,
    last: i64,
}

impl IndexWriter {
    pub(super) fn series(&self) -> u32 {
        self.count
    }

    /// Adds a series of at least one chunk; its chunks lie behind those of the series before.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], chunks: &[ChunkRef]) {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return };
        if self.count == 0 {
            self.near = Near { first: first.min_time_ms, last: last.max_time_ms };
        }
        if self.count.is_multiple_of(GROUP) {
            self.groups.extend_from_slice(&(self.series.len() as u64).to_le_bytes());
            self.groups.extend_from_slice(&first.offset.to_le_bytes());
        }
        self.count += 1;
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        put_varint(labels.len() as u64, &mut entry);
        for (name, value) in labels {
            for text in [name, value] {
                put_varint(u64::from(self.number(text)), &mut entry);
            }
        }
        self.near.put(chunks, &mut entry);
        let bytes = last.offset + u64::from(last.bytes) - first.offset;
        put_varint(entry.len() as u64, &mut self.series);
        put_varint(bytes, &mut self.series);
        self.series.extend_from_slice(&entry);
        self.entry = entry;
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
        let sections = [&self.strings, &self.series, &self.groups];
        let mut out = INDEX_MAGIC.to_vec();
        let mut tail = Vec::with_capacity(TAIL_BYTES);
        for section in sections {
            out.extend_from_slice(section);
            tail.extend_from_slice(&(section.len() as u64).to_le_bytes());
        }
        for section in sections {
            tail.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
        }
        tail.extend_from_slice(&u64::from(self.count).to_le_bytes());
        tail.extend_from_slice(&self.near.first.to_le_bytes());
        tail.extend_from_slice(&self.near.last.to_le_bytes());
        let check = crc32fast::hash(&tail);
        tail.extend_from_slice(&check.to_le_bytes());
        out.extend(tail);
        out
    }
}

impl Near {
    fn put(self, chunks: &[ChunkRef], out: &mut Vec<u8>) {
        put_varint(chunks.len() as u64, out);
        let mut before = self.first;
        for (i, chunk) in chunks.iter().enumerate() {
            put_signed(chunk.min_time_ms.wrapping_sub(before), out);
            put_varint(u64::from(chunk.samples), out);
            before = chunk.max_time_ms;
            // The last one ends where all others do, and takes the rest of the bytes.
            if i + 1 == chunks.len() {
                put_signed(chunk.max_time_ms.wrapping_sub(self.last), out);
            } else {
                put_signed(chunk.max_time_ms.wrapping_sub(chunk.min_time_ms), out);
                put_varint(u64::from(chunk.bytes), out);
            }
            out.extend_from_slice(&chunk.crc.to_le_bytes());
        }
    }

    /// The next chunk, of `left` ones, which begins at `offset` and ends there or before `end`.
    fn chunk(
        self,
        entry: &mut Input<'_>,
        before: Option<i64>,
        left: u64,
        offset: u64,
        end: u64,
    ) -> Result<ChunkRef, Bad> {
        let min_time_ms = before.unwrap_or(self.first).wrapping_add(entry.signed()?);
        let samples = u32::try_from(entry.varint()?).map_err(|_| Bad("a chunk is too long"))?;
        let (max_time_ms, bytes) = if left == 1 {
            (self.last.wrapping_add(entry.signed()?), end.saturating_sub(offset))
        } else {
            (min_time_ms.wrapping_add(entry.signed()?), entry.varint()?)
        };
        let bytes = u32::try_from(bytes).map_err(|_| Bad("a chunk is too long"))?;
        Ok(ChunkRef { min_time_ms, max_time_ms, samples, offset, bytes, crc: entry.half()? })
    }
}

/// The part of an index that is about one series.
struct Entry<'a> {
    input: Input<'a>,
    /// Where its chunks begin and end.
    chunks: Range<u64>,
}

/// The places of an index's parts; their content is read from the map each time.
#[derive(Debug)]
pub(super) struct IndexReader {
    series: Range<usize>,
    groups: Range<usize>,
    count: u32,
    near: Near,
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
        let (count, first, last) = (tail.word()?, tail.word()? as i64, tail.word()? as i64);
        if tail.half()? != crc32fast::hash(checked) || at != tail_at {
            return Err(Bad("the checksum of the tail does not match"));
        }
        let [strings, series, groups] = sections;
        let count = u32::try_from(count).map_err(|_| Bad("there are too many series"))?;
        if groups.len() != count.div_ceil(GROUP) as usize * GROUP_BYTES {
            return Err(Bad("there are not as many groups as its series make"));
        }
        let strings = find_strings(bytes, strings)?;
        Ok(Self { series, groups, count, near: Near { first, last }, strings })
    }

    /// Number of series.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    fn entry<'a>(&self, bytes: &'a [u8], series: u32) -> Result<Entry<'a>, Bad> {
        if series >= self.count {
            return Err(Bad("no such series"));
        }
        let at = self.groups.start + (series / GROUP) as usize * GROUP_BYTES;
        let mut group = Input::new(bytes.get(at..self.groups.end).unwrap_or_default());
        let (start, mut offset) = (group.word()?, group.word()?);
        let entries = bytes.get(self.series.clone()).unwrap_or_default();
        let entries = usize::try_from(start).ok().and_then(|start| entries.get(start..));
        let mut entries = Input::new(entries.ok_or(Bad("a series lies outside the index"))?);
        for _ in 0..series % GROUP {
            let length = entries.varint()?;
            offset = offset.saturating_add(entries.varint()?);
            entries.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        }
        let (length, chunks) = (entries.varint()?, entries.varint()?);
        let input = Input::new(entries.take(usize::try_from(length).unwrap_or(usize::MAX))?);
        Ok(Entry { input, chunks: offset..offset.saturating_add(chunks) })
    }

    /// The labels of a series, in the order in which they were written.
    pub(super) fn labels<'a>(&self, bytes: &'a [u8], series: u32) -> Result<Vec<(&'a str, &'a str)>, Bad> {
        let mut entry = self.entry(bytes, series)?.input;
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
        let Entry { input: mut entry, chunks: place } = self.entry(bytes, series)?;
        for _ in 0..entry.varint()? {
            entry.varint()?;
            entry.varint()?;
        }
        let (mut before, mut offset) = (None, place.start);
        for left in (1..=entry.varint()?).rev() {
            let chunk = self.near.chunk(&mut entry, before, left, offset, place.end)?;
            offset = offset.saturating_add(u64::from(chunk.bytes));
            before = Some(chunk.max_time_ms);
            visit(chunk);
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
