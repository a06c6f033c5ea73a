//! Remote write 1.0: a snappy block that holds a `WriteRequest`, walked by hand so that labels stay where they are.

use super::{BadInput, Place};
use crate::node::head::{Batch, LabelLimits, LabelProblem};

const TIMESERIES: u64 = 1;
const LABELS: u64 = 1;
const SAMPLES: u64 = 2;
const HISTOGRAMS: u64 = 4;
const NAME: u64 = 1;
const VALUE: u64 = 2;
const VALUE_OF_SAMPLE: u64 = 1;
const TIMESTAMP: u64 = 2;

/// How many bytes a snappy block holds, by its own account.
///
/// # Errors
/// It is no snappy block, or it would be larger than `max`.
pub fn unpacked_size(packed: &[u8], max: usize) -> Result<usize, BadInput> {
    let bad = |message| BadInput { place: Place::Whole, message };
    let size = snap::raw::decompress_len(packed).map_err(|e| bad(format!("malformed snappy block: {e}")))?;
    if size > max {
        return Err(bad(format!("the snappy block holds {size} bytes, {max} are allowed")));
    }
    // A byte cannot stand for more than about 22 (a copy of 64 bytes takes 3): what claims more lies, and no room is made.
    if size / 32 > packed.len() {
        return Err(bad(format!("the snappy block of {} bytes claims to hold {size}", packed.len())));
    }
    Ok(size)
}

/// Undoes the snappy block format, up to `max` bytes of result.
///
/// # Errors
/// It is no snappy block, or it would be larger than `max`.
pub fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, BadInput> {
    unpacked_size(packed, max)?;
    snap::raw::Decoder::new()
        .decompress_vec(packed)
        .map_err(|e| BadInput { place: Place::Whole, message: format!("malformed snappy block: {e}") })
}

/// Reads a `WriteRequest` and hands it to `sink` in batches of bounded size, once all of it is known to be well formed.
/// Series that cannot be stored are noted in their batch as refused; those without samples are skipped, as are exemplars
/// and metadata.
///
/// # Errors
/// The message is malformed, and nothing of it was handed over; or what `sink` answered.
pub fn remote_write<'a, E: From<BadInput>>(
    message: &'a [u8],
    limits: LabelLimits,
    sink: impl FnMut(&Batch<'a>) -> Result<(), E>,
) -> Result<(), E> {
    check(message)?;
    let mut writing = Writing { batch: Batch::new(limits), labels: Vec::new(), limits, sink };
    let mut fields = Fields::new(message, 0);
    while let Some((field, value)) = fields.next()? {
        if field == TIMESERIES {
            let (bytes, offset) = value.bytes(fields.at)?;
            writing.series(bytes, offset)?;
        }
    }
    writing.hand_over()
}

/// Walks through all of a message and keeps nothing.
fn check(message: &[u8]) -> Result<(), BadInput> {
    let mut fields = Fields::new(message, 0);
    while let Some((field, value)) = fields.next()? {
        if field != TIMESERIES {
            continue;
        }
        let (bytes, offset) = value.bytes(fields.at)?;
        let mut fields = Fields::new(bytes, offset);
        while let Some((field, value)) = fields.next()? {
            match field {
                LABELS => {
                    let (bytes, offset) = value.bytes(fields.at)?;
                    label(bytes, offset)?;
                }
                SAMPLES => {
                    let (bytes, offset) = value.bytes(fields.at)?;
                    sample(bytes, offset)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A message on its way into batches.
struct Writing<'a, S> {
    batch: Batch<'a>,
    /// Of the series that is read now, no more than it may have.
    labels: Vec<(&'a str, &'a str)>,
    limits: LabelLimits,
    sink: S,
}

impl<'a, S> Writing<'a, S> {
    fn series<E: From<BadInput>>(&mut self, bytes: &'a [u8], offset: usize) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        let (samples, problem) = self.head(bytes, offset)?;
        if samples == 0 {
            return Ok(());
        }
        let taken = match problem {
            Some(problem) => Err(problem),
            None => self.samples(bytes, offset)?,
        };
        if let Err(problem) = taken {
            self.batch.refuse(&self.labels, samples, &problem);
        }
        if self.batch.is_full() { self.hand_over() } else { Ok(()) }
    }

    /// Reads the labels; how many samples there are, histograms included, and why the series cannot be stored.
    fn head(&mut self, bytes: &'a [u8], offset: usize) -> Result<(u64, Option<LabelProblem>), BadInput> {
        self.labels.clear();
        let (mut labels, mut samples, mut problem) = (0, 0, None);
        let mut fields = Fields::new(bytes, offset);
        while let Some((field, value)) = fields.next()? {
            match field {
                LABELS => {
                    labels += 1;
                    let (bytes, offset) = value.bytes(fields.at)?;
                    let (name, text) = label(bytes, offset)?;
                    match (std::str::from_utf8(name), std::str::from_utf8(text)) {
                        (Ok(name), Ok(text)) if labels <= self.limits.labels => {
                            self.labels.push((name, text));
                        }
                        (Ok(_), Ok(_)) => {}
                        _ => problem = Some(LabelProblem::NotUtf8),
                    }
                }
                SAMPLES => samples += 1,
                HISTOGRAMS => {
                    samples += 1;
                    problem = Some(LabelProblem::NativeHistograms);
                }
                _ => {}
            }
        }
        if labels > self.limits.labels {
            problem = Some(LabelProblem::TooMany(labels));
        }
        Ok((samples, problem))
    }

    /// Takes the samples, those of a long series in several batches. Labels are refused before the first is taken.
    fn samples<E: From<BadInput>>(
        &mut self,
        bytes: &'a [u8],
        offset: usize,
    ) -> Result<Result<(), LabelProblem>, E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        self.begin();
        let mut fields = Fields::new(bytes, offset);
        while let Some((field, value)) = fields.next()? {
            if field != SAMPLES {
                continue;
            }
            if self.batch.is_full() {
                if let Err(problem) = self.batch.end_series() {
                    return Ok(Err(problem));
                }
                self.hand_over()?;
                self.begin();
            }
            let (bytes, offset) = value.bytes(fields.at)?;
            let (time, value) = sample(bytes, offset)?;
            self.batch.sample(time, value);
        }
        Ok(self.batch.end_series())
    }

    fn begin(&mut self) {
        for (name, value) in &self.labels {
            self.batch.label(name, value);
        }
    }

    fn hand_over<E>(&mut self) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.limits));
        (self.sink)(&batch)
    }
}

/// Name and value, which should be UTF-8.
fn label(bytes: &[u8], offset: usize) -> Result<(&[u8], &[u8]), BadInput> {
    let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        match field {
            NAME => (name, _) = value.bytes(fields.at)?,
            VALUE => (text, _) = value.bytes(fields.at)?,
            _ => {}
        }
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
