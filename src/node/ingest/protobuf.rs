//! Remote write 1.0: a snappy block that holds a `WriteRequest`, walked by hand so that labels stay where they are.

use super::{BadInput, Place};
use crate::node::head::{Batch, LabelLimits};

const TIMESERIES: u64 = 1;
const LABELS: u64 = 1;
const SAMPLES: u64 = 2;
const HISTOGRAMS: u64 = 4;
const NAME: u64 = 1;
const VALUE: u64 = 2;
const VALUE_OF_SAMPLE: u64 = 1;
const TIMESTAMP: u64 = 2;

/// Undoes the snappy block format, up to `max` bytes of result.
///
/// # Errors
/// It is no snappy block, or it would be larger than `max`.
pub fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, BadInput> {
    let bad = |message| BadInput { place: Place::Whole, message };
    let size = snap::raw::decompress_len(packed).map_err(|e| bad(format!("malformed snappy block: {e}")))?;
    if size > max {
        return Err(bad(format!("the snappy block holds {size} bytes, {max} are allowed")));
    }
    // A byte cannot stand for more than about 22 (a copy of 64 bytes takes 3): what claims more lies, and no room is made.
    if size / 32 > packed.len() {
        return Err(bad(format!("the snappy block of {} bytes claims to hold {size}", packed.len())));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(|e| bad(format!("malformed snappy block: {e}")))
}

/// Reads a `WriteRequest`. Exemplars and metadata are skipped.
///
/// # Errors
/// The message is malformed, a label set is invalid, or a series holds native histograms.
pub fn remote_write(message: &[u8], limits: LabelLimits) -> Result<Batch<'_>, BadInput> {
    let mut batch = Batch::new(limits);
    let mut fields = Fields::new(message, 0);
    while let Some((field, value)) = fields.next()? {
        if field == TIMESERIES {
            let (bytes, offset) = value.bytes(fields.at)?;
            series(bytes, offset, &mut batch)?;
        }
    }
    Ok(batch)
}

fn series<'a>(bytes: &'a [u8], offset: usize, batch: &mut Batch<'a>) -> Result<(), BadInput> {
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        match field {
            LABELS => {
                let (bytes, offset) = value.bytes(fields.at)?;
                let (name, value) = label(bytes, offset)?;
                batch.label(name, value);
            }
            SAMPLES => {
                let (bytes, offset) = value.bytes(fields.at)?;
                let (time, value) = sample(bytes, offset)?;
                batch.sample(time, value);
            }
            HISTOGRAMS => return Err(at(offset, "native histograms are not stored by this node")),
            _ => {}
        }
    }
    batch.end_series().map_err(|problem| at(offset, problem))
}

fn label(bytes: &[u8], offset: usize) -> Result<(&str, &str), BadInput> {
    let (mut name, mut text) = ("", "");
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        let into = match field {
            NAME => &mut name,
            VALUE => &mut text,
            _ => continue,
        };
        let (bytes, offset) = value.bytes(fields.at)?;
        *into = std::str::from_utf8(bytes).map_err(|_| at(offset, "a label is not UTF-8"))?;
    }
    Ok((name, text))
}

fn sample(bytes: &[u8], offset: usize) -> Result<(i64, f64), BadInput> {
    let (mut time, mut number) = (0, 0.0);
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (VALUE_OF_SAMPLE, Field::Fixed64(bits)) => number = f64::from_bits(bits),
            (TIMESTAMP, Field::Varint(bits)) => time = bits as i64,
            (VALUE_OF_SAMPLE | TIMESTAMP, _) => {
                return Err(at(fields.at, "a sample's field has the wrong type"));
            }
            _ => {}
        }
    }
    Ok((time, number))
}

pub(super) fn at(offset: usize, message: impl ToString) -> BadInput {
    BadInput { place: Place::Offset(offset), message: message.to_string() }
}

/// One field's value.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes, and where they begin; `end` is where they end.
    pub(super) fn bytes(self, end: usize) -> Result<(&'a [u8], usize), BadInput> {
        match self {
            Self::Bytes(bytes) => Ok((bytes, end - bytes.len())),
            _ => Err(at(end, "a field that holds bytes has the wrong type")),
        }
    }
}

/// The fields of a message, in order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the whole message.
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(rest: &'a [u8], at: usize) -> Self {
        Self { rest, at }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, BadInput> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                Field::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Field::Fixed32
            }
            other => return Err(at(self.at, format!("unknown wire type {other}"))),
        };
        match key >> 3 {
            0 => Err(at(self.at, "field number 0")),
            number => Ok(Some((number, field))),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadInput> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(at(self.at, format!("{count} bytes announced, {} left", self.rest.len())));
        };
        self.rest = rest;
        self.at += count;
        Ok(taken)
    }

    fn fixed64(&mut self) -> Result<u64, BadInput> {
        let bytes = self.take(8)?;
        Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    fn varint(&mut self) -> Result<u64, BadInput> {
        let mut value = 0_u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * i as u32);
            if byte & 0x80 == 0 {
                // The tenth byte has room for one bit.
                if i == 9 && *byte > 1 {
                    break;
                }
                self.take(i + 1)?;
                return Ok(value);
            }
        }
        Err(at(self.at, if self.rest.len() < 10 { "a number is cut off" } else { "a number is too large" }))
    }
}
