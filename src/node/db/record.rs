//! How writes look in the log.
//!
//! A record lists series: `number << 1 | has labels`, the labels when the log does not know the number yet, then the
//! samples, either one by one (time as the difference to the one before) or, in a checkpoint, as a chunk.

use super::append::Accepted;
use crate::node::{
    engine::Labels,
    head::{Runs, Series},
};

const SAMPLES: u8 = 1;
const CHUNKS: u8 = 2;

/// Builds a record.
pub(super) struct Record {
    bytes: Vec<u8>,
    time: i64,
}

impl Record {
    /// The record of one write.
    pub(super) fn of(accepted: &[Accepted]) -> Vec<u8> {
        let mut record = Self { bytes: vec![SAMPLES], time: 0 };
        for one in accepted {
            record.series(&one.series);
            put_varint(one.samples.len() as u64, &mut record.bytes);
            for (time, value) in &one.samples {
                let delta = time.wrapping_sub(record.time);
                record.time = *time;
                put_varint((delta << 1 ^ delta >> 63) as u64, &mut record.bytes);
                record.bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        record.bytes
    }

    /// The record of one series' samples, as a chunk each.
    pub(super) fn chunks(series: &Series, runs: &Runs) -> Vec<u8> {
        let mut record = Self { bytes: vec![CHUNKS], time: 0 };
        series.not_logged();
        record.series(series);
        let bytes = &mut record.bytes;
        // Nothing here fails.
        let _ = runs.chunks(|chunk| {
            put_varint(chunk.len() as u64, bytes);
            bytes.extend_from_slice(chunk);
            Ok::<_, std::convert::Infallible>(())
        });
        record.bytes
    }

    fn series(&mut self, series: &Series) {
        let new = !series.is_logged();
        put_varint(u64::from(series.id()) << 1 | u64::from(new), &mut self.bytes);
        if new {
            self.labels(series.labels());
        }
    }

    fn labels(&mut self, labels: &Labels) {
        put_varint(labels.iter().len() as u64, &mut self.bytes);
        for label in labels {
            for text in [&label.name, &label.value] {
                put_varint(text.len() as u64, &mut self.bytes);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Who takes a record apart.
pub(super) trait Replay {
    /// The series that follows; labels when the record has them. `false` when the number means nothing.
    fn series(&mut self, number: u64, labels: Option<&[(&str, &str)]>) -> bool;
    /// A sample of it.
    fn sample(&mut self, time: i64, value: f64);
    /// A chunk of it.
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), String>;
}

/// Hands a record's content to `to`.
pub(super) fn replay(payload: &[u8], to: &mut impl Replay) -> Result<(), String> {
    let mut input = Input(payload);
    let kind = input.take(1).and_then(|b| b.first()).copied();
    let cut = || "it is cut off".to_owned();
    let mut time = 0_i64;
    let mut unknown = 0;
    while !input.0.is_empty() {
        let head = input.varint().ok_or_else(cut)?;
        let labels = if head & 1 == 1 { Some(input.labels().ok_or_else(cut)?) } else { None };
        let known = to.series(head >> 1, labels.as_deref());
        unknown += u64::from(!known);
        match kind {
            Some(SAMPLES) => {
                for _ in 0..input.varint().ok_or_else(cut)? {
                    let bits = input.varint().ok_or_else(cut)?;
                    let delta = (bits >> 1) as i64 ^ -((bits & 1) as i64);
                    time = time.wrapping_add(delta);
                    let value = input.take(8).and_then(|b| b.try_into().ok()).ok_or_else(cut)?;
                    if known {
                        to.sample(time, f64::from_le_bytes(value));
                    }
                }
            }
            Some(CHUNKS) => {
                while !input.0.is_empty() {
                    let chunk = input.bytes().ok_or_else(cut)?;
                    if known {
                        to.chunk(chunk)?;
                    }
                }
            }
            _ => return Err("its kind is unknown".to_owned()),
        }
    }
    if unknown > 0 {
        return Err(format!("the labels of {unknown} series are lost, and with them what it says of those"));
    }
    Ok(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * i as u32);
            if byte & 0x80 == 0 {
                self.take(i + 1)?;
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.varint()?).ok()?;
        self.take(count)
    }

    fn labels(&mut self) -> Option<Vec<(&'a str, &'a str)>> {
        let mut labels = Vec::new();
        for _ in 0..self.varint()? {
            let name = std::str::from_utf8(self.bytes()?).ok()?;
            labels.push((name, std::str::from_utf8(self.bytes()?).ok()?));
        }
        Some(labels)
    }
}

fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
