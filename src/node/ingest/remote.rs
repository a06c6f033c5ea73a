//! Remote write 1.0: a snappy block that holds a `WriteRequest`, walked by hand so that labels stay where they are.

use super::{BadInput, Place};
use crate::{
    base::protobuf::{Field, Fields, ProtobufError},
    node::head::{Batch, LabelLimits, LabelProblem, MetadataField},
};

/// Fields of `WriteRequest`.
const TIMESERIES: u32 = 1;
const METADATA: u32 = 3;
/// Fields of `TimeSeries`.
const LABELS: u32 = 1;
const SAMPLES: u32 = 2;
const EXEMPLARS: u32 = 3;
const HISTOGRAMS: u32 = 4;
/// Fields of `Label`.
const NAME: u32 = 1;
const VALUE: u32 = 2;
/// Fields of `Sample`.
const VALUE_OF_SAMPLE: u32 = 1;
const TIMESTAMP: u32 = 2;
/// Fields of `MetricMetadata`.
const TYPE: u32 = 1;
const FAMILY: u32 = 2;
const HELP: u32 = 4;
const UNIT: u32 = 5;
/// The names of `MetricMetadata.MetricType`, in its order.
const TYPES: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

/// How many bytes a snappy block holds, by its own account.
///
/// # Errors
/// It is no snappy block, or it would be larger than `max`.
pub fn unpacked_size(packed: &[u8], max: usize) -> Result<usize, BadInput> {
    let bad = |message| BadInput { place: Place::Whole, message };
    let size = snap::raw::decompress_len(packed).map_err(|error| malformed(packed, &error))?;
    if size > max {
        return Err(bad(format!("the snappy block holds {size} bytes, {max} are allowed")));
    }
    // A byte cannot stand for more than about 22 (a copy of 64 bytes takes 3): a message that claims more lies, and no
    // room is made.
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
    snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| malformed(packed, &error))
}

/// The problem with a body that is no snappy block.
fn malformed(packed: &[u8], error: &snap::Error) -> BadInput {
    let message = match compression_of(packed) {
        Some(other) => format!("the body is compressed with {other}; a block of snappy is expected"),
        None => format!("malformed snappy block: {error}"),
    };
    BadInput { place: Place::Whole, message }
}

/// The compression that bytes begin as, where it has a mark. A snappy block begins with its length, and has none.
pub fn compression_of(bytes: &[u8]) -> Option<&'static str> {
    const MARKS: [(&[u8], &str); 3] = [
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0x1f, 0x8b, 0x08], "gzip"),
        (b"\xff\x06\x00\x00sNaPpY", "the framed format of snappy"),
    ];
    MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)).map(|(_, name)| *name)
}

/// Reads a `WriteRequest` and hands it to `sink` in batches of bounded size, once all of it is known to be well formed.
/// Series that cannot be stored, and exemplars, are noted in their batch as refused; series without samples are
/// skipped.
///
/// # Errors
/// The message is malformed, and nothing of it was handed over; or the error of `sink`.
pub fn remote_write<'a, E: From<BadInput>>(
    message: &'a [u8],
    limits: LabelLimits,
    sink: impl FnMut(&Batch<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut writing =
        Writing { message, checked: false, batch: Batch::new(limits), labels: Vec::new(), limits, sink };
    for field in Fields::new(message) {
        let field = field.map_err(BadInput::from)?;
        match field.number {
            TIMESERIES => writing.series(&field)?,
            METADATA => writing.metadata(&field)?,
            _ => {}
        }
    }
    writing.end()
}

/// Walks through all of a message and keeps nothing.
fn check(message: &[u8]) -> Result<(), ProtobufError> {
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            TIMESERIES => {
                for part in field.message()? {
                    let part = part?;
                    match part.number {
                        LABELS => drop(label(&part)?),
                        SAMPLES => drop(sample(&part)?),
                        _ => {}
                    }
                }
            }
            METADATA => drop(metadata(&field)?),
            _ => {}
        }
    }
    Ok(())
}

/// A message on its way into batches.
struct Writing<'a, S> {
    message: &'a [u8],
    /// All of the message is known to be well formed.
    checked: bool,
    batch: Batch<'a>,
    /// Of the series that is read now, no more than it may have.
    labels: Vec<(&'a str, &'a str)>,
    limits: LabelLimits,
    sink: S,
}

impl<'a, S> Writing<'a, S> {
    fn series<E: From<BadInput>>(&mut self, series: &Field<'a>) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        let (samples, problem) = self.head(series).map_err(BadInput::from)?;
        if samples == 0 {
            return Ok(());
        }
        let taken = match problem {
            Some(problem) => Err(problem),
            None => self.samples(series)?,
        };
        if let Err(problem) = taken {
            // Samples of a refused series are not read.
            self.check()?;
            self.batch.refuse(&self.labels, samples, &problem);
        }
        if self.batch.is_full() { self.hand_over() } else { Ok(()) }
    }

    /// Reads the labels; how many samples there are, histograms included, and why the series cannot be stored.
    fn head(&mut self, series: &Field<'a>) -> Result<(u64, Option<LabelProblem>), ProtobufError> {
        self.labels.clear();
        let (mut labels, mut samples, mut problem) = (0, 0, None);
        for field in series.message()? {
            let field = field?;
            match field.number {
                LABELS => {
                    labels += 1;
                    let (name, text) = label(&field)?;
                    match (std::str::from_utf8(name), std::str::from_utf8(text)) {
                        (Ok(name), Ok(text)) if labels <= self.limits.labels => {
                            self.labels.push((name, text));
                        }
                        (Ok(_), Ok(_)) => {}
                        _ => problem = Some(LabelProblem::NotUtf8),
                    }
                }
                SAMPLES => samples += 1,
                EXEMPLARS => self.batch.refuse_exemplars(1),
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
    fn samples<E: From<BadInput>>(&mut self, series: &Field<'a>) -> Result<Result<(), LabelProblem>, E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        self.begin();
        for field in series.message().map_err(BadInput::from)? {
            let field = field.map_err(BadInput::from)?;
            if field.number != SAMPLES {
                continue;
            }
            if self.batch.is_full() {
                if let Err(problem) = self.batch.end_series() {
                    return Ok(Err(problem));
                }
                self.hand_over()?;
                self.begin();
            }
            let (time, value) = sample(&field).map_err(BadInput::from)?;
            self.batch.sample(time, value);
        }
        Ok(self.batch.end_series())
    }

    fn metadata<E: From<BadInput>>(&mut self, field: &Field<'a>) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        let (metric, fields) = metadata(field).map_err(BadInput::from)?;
        for field in fields {
            self.batch.describe(metric, field);
        }
        if self.batch.is_full() { self.hand_over() } else { Ok(()) }
    }

    fn begin(&mut self) {
        for (name, value) in &self.labels {
            self.batch.label(name, value);
        }
    }

    /// Hands over a full batch. Of a message that ends within its first batch, the usual one, no pass of its own is made to
    /// check it.
    fn hand_over<E: From<BadInput>>(&mut self) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        self.check()?;
        self.end()
    }

    /// Hands over the last batch.
    fn end<E>(&mut self) -> Result<(), E>
    where
        S: FnMut(&Batch<'a>) -> Result<(), E>,
    {
        let batch = std::mem::replace(&mut self.batch, Batch::new(self.limits));
        (self.sink)(&batch)
    }

    fn check(&mut self) -> Result<(), BadInput> {
        if !self.checked {
            check(self.message)?;
            self.checked = true;
        }
        Ok(())
    }
}

/// Name and value, which should be UTF-8.
fn label<'a>(label: &Field<'a>) -> Result<(&'a [u8], &'a [u8]), ProtobufError> {
    let (mut name, mut text): (&[u8], &[u8]) = (&[], &[]);
    for field in label.message()? {
        let field = field?;
        match field.number {
            NAME => name = field.bytes()?,
            VALUE => text = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn sample(sample: &Field<'_>) -> Result<(i64, f64), ProtobufError> {
    let (mut time, mut number) = (0, 0.0);
    for field in sample.message()? {
        let field = field?;
        match field.number {
            VALUE_OF_SAMPLE => number = field.double()?,
            TIMESTAMP => time = field.varint()? as i64,
            _ => {}
        }
    }
    Ok((time, number))
}

/// A metric, and its metadata.
fn metadata<'a>(said: &Field<'a>) -> Result<(&'a str, [MetadataField<'a>; 3]), ProtobufError> {
    let (mut metric, mut kind, mut help, mut unit) = ("", 0, "", "");
    for field in said.message()? {
        let field = field?;
        match field.number {
            TYPE => kind = field.varint()?,
            FAMILY => metric = field.text()?,
            HELP => help = field.text()?,
            UNIT => unit = field.text()?,
            _ => {}
        }
    }
    let [unknown, ..] = TYPES;
    let kind = usize::try_from(kind).ok().and_then(|kind| TYPES.get(kind)).copied().unwrap_or(unknown);
    Ok((metric, [MetadataField::Type(kind), MetadataField::Help(help), MetadataField::Unit(unit)]))
}
