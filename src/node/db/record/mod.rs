//! How writes look in the log.
//!
//! ```text
//! record   kind · series, one behind the other
//! series   head · labels, when the log does not know the number yet · samples
//! head     (number - the number before) · times as before · has labels
//! labels   how many · of each label two texts
//! text     0 · length · bytes, or how many texts of this record were new up to the one that is meant
//! write    how many · first time · differences of their differences, unless "times as before" · values (`values`)
//! held     how many chunks · of each its length and bytes
//! ```
//!
//! A record leans on no other one but for the labels of its numbers, so that a damaged one costs itself only. A
//! record is never larger in memory than its bytes allow: every sample of a write takes one at least.

mod read;
#[cfg(test)]
mod tests;
mod values;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use smallvec::SmallVec;

pub(super) use read::{Replay, replay};

use crate::{
    node::{
        chunk::bytes::{put_signed, put_varint},
        head::{Runs, Series},
    },
    series::Labels,
};

const WRITE: u8 = 3;
const HELD: u8 = 4;
/// Bytes of a record of the head's samples, after which another one begins: one flipped bit costs this much.
const HELD_BYTES: usize = 32 << 10;

const HAS_LABELS: u64 = 1;
const TIMES_AS_BEFORE: u64 = 2;
const FLAG_BITS: u32 = 2;

/// Samples of a series that were accepted.
pub(super) struct Accepted<'b> {
    /// Borrowed from the batch where it is known there: a count that a million writes raise and lower is cold memory.
    pub(super) series: Cow<'b, Arc<Series>>,
    pub(super) samples: AcceptedSamples,
}

/// A scrape has one of each series.
pub(super) type AcceptedSamples = SmallVec<[(i64, f64); 1]>;

/// Builds a record.
struct Record<'a> {
    bytes: Vec<u8>,
    number: i64,
    /// Texts that the record has, by the number of the new ones up to it.
    texts: HashMap<&'a str, u64>,
}

/// The record of one write.
pub(super) fn of_write(accepted: &[Accepted<'_>]) -> Vec<u8> {
    let mut record = Record::new(WRITE);
    let mut before: &[(i64, f64)] = &[];
    for one in accepted {
        let samples = one.samples.as_slice();
        let as_before = !before.is_empty() && before.iter().map(|s| s.0).eq(samples.iter().map(|s| s.0));
        record.series(&one.series, if as_before { TIMES_AS_BEFORE } else { 0 });
        if !as_before {
            record.times(samples, before.first().map_or(0, |s| s.0));
        }
        values::encode(samples.iter().map(|s| s.1), &mut record.bytes);
        before = samples;
    }
    record.bytes
}

/// Collects the content of memory into records.
pub(super) struct HeldRecords<'a>(Record<'a>);

impl<'a> HeldRecords<'a> {
    pub(super) fn new() -> Self {
        Self(Record::new(HELD))
    }

    /// Adds a series; a record, when one is full.
    pub(super) fn add(&mut self, series: &'a Series, runs: &Runs) -> Option<Vec<u8>> {
        series.not_logged();
        self.0.series(series, 0);
        let bytes = &mut self.0.bytes;
        put_varint(runs.len() as u64, bytes);
        // Nothing here fails.
        let _ = runs.chunks(|chunk| {
            put_varint(chunk.len() as u64, bytes);
            bytes.extend_from_slice(chunk);
            Ok::<_, std::convert::Infallible>(())
        });
        (self.0.bytes.len() >= HELD_BYTES).then(|| std::mem::replace(&mut self.0, Record::new(HELD)).bytes)
    }

    /// The last record, if there is something in it.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        (self.0.bytes.len() > 1).then_some(self.0.bytes)
    }
}

impl<'a> Record<'a> {
    fn new(kind: u8) -> Self {
        Self { bytes: vec![kind], number: 0, texts: HashMap::new() }
    }

    fn series(&mut self, series: &'a Series, flags: u64) {
        let number = i64::from(series.id());
        let new = !series.is_logged();
        let difference = number - self.number;
        self.number = number;
        let head = ((difference << 1 ^ difference >> 63) as u64) << FLAG_BITS;
        put_varint(head | flags | if new { HAS_LABELS } else { 0 }, &mut self.bytes);
        if new {
            self.labels(series.labels());
        }
    }

    fn labels(&mut self, labels: &'a Labels) {
        put_varint(labels.iter().len() as u64, &mut self.bytes);
        for label in labels {
            self.text(&label.name);
            self.text(&label.value);
        }
    }

    fn text(&mut self, text: &'a str) {
        let next = self.texts.len() as u64 + 1;
        match *self.texts.entry(text).or_insert(next) {
            number if number < next => put_varint(number, &mut self.bytes),
            _ => {
                put_varint(0, &mut self.bytes);
                put_varint(text.len() as u64, &mut self.bytes);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// How many there are and their times, of which the first is near `origin`.
    fn times(&mut self, samples: &[(i64, f64)], origin: i64) {
        put_varint(samples.len() as u64, &mut self.bytes);
        let (mut last, mut step) = (origin, 0_i64);
        for (i, (time, _)) in samples.iter().enumerate() {
            let difference = time.wrapping_sub(last);
            put_signed(difference.wrapping_sub(step), &mut self.bytes);
            // How far off the first one is says nothing about the others.
            (last, step) = (*time, if i == 0 { 0 } else { difference });
        }
    }
}
