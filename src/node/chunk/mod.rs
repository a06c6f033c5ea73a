//! Compressed samples of one series.
//!
//! A chunk holds its times and its values apart, each as a column of its own:
//!
//! ```text
//! chunk   count · times · values
//! times   regular  first, delta                                    regular scrapes: ten bytes in all
//!         runs     first, then (delta, how often) pairs            scrapes that were missed
//!         packed   an integer column                               jitter
//!         grid     interval, then an integer column of offsets     jitter around a fixed grid
//! values  one      64 bits                                         a constant
//!         decimal  power of ten, exceptions, an integer column     counters, and gauges with few decimals
//!         xor      Gorilla's bit stream                            any other float
//! ```
//!
//! An integer column is bit-packed in blocks of 128 (`ints`): one width per block, so that decoding is a shift, a mask
//! and an addition per sample, where Gorilla branches on every sample; high bits that are rare, or fall off as those of
//! noise do, are written apart. Every float comes back with the bits it had: a value that a decimal cannot give back
//! exactly (NaN with its payload, infinities, -0) is an exception, stored raw.
//!
//! Decoding trusts nothing: damaged bytes give [`Corrupt`] or wrong samples, never a panic nor more than
//! [`SAMPLES_MAX`] samples. Checksums belong to the storage of chunks.

mod bits;
pub(in crate::node) mod bytes;
pub(in crate::node) mod decimal;
mod error;
mod ints;
mod times;
mod values;

#[cfg(test)]
mod tests;

use self::bytes::{Input, put_varint};

pub use error::{Corrupt, EncodeError, SAMPLES_MAX};

/// Appends one chunk with these samples to `out`.
pub fn encode(times: &[i64], values: &[f64], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if times.len() != values.len() || times.len() > SAMPLES_MAX {
        return Err(EncodeError);
    }
    put_varint(times.len() as u64, out);
    times::encode(times, out);
    values::encode(values, out);
    Ok(())
}

/// Appends the samples of a chunk to the two columns, and says how many they are. On an error the columns are as
/// before.
pub fn decode_into(chunk: &[u8], times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<usize, Corrupt> {
    let (had_times, had_values) = (times.len(), values.len());
    let result = decode_columns(chunk, times, values);
    if result.is_err() {
        times.truncate(had_times);
        values.truncate(had_values);
    }
    result
}

fn decode_columns(chunk: &[u8], times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<usize, Corrupt> {
    let mut input = Input::new(chunk);
    let samples = read_count(&mut input)?;
    times::decode(&mut input, samples, times)?;
    values::decode(&mut input, samples, values)?;
    if input.is_empty() { Ok(samples) } else { Err(Corrupt("bytes after the last sample")) }
}

fn read_count(input: &mut Input<'_>) -> Result<usize, Corrupt> {
    let samples = input.varint()? as usize;
    if samples <= SAMPLES_MAX { Ok(samples) } else { Err(Corrupt("too many samples")) }
}

/// The number of samples in a chunk, without decoding it.
pub fn count(chunk: &[u8]) -> Result<usize, Corrupt> {
    read_count(&mut Input::new(chunk))
}

/// Collects samples for a chunk.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Encoder {
    /// No samples yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample: milliseconds and value. Fails when the chunk is full.
    pub fn append(&mut self, time: i64, value: f64) -> Result<(), EncodeError> {
        if self.times.len() == SAMPLES_MAX {
            return Err(EncodeError);
        }
        self.times.push(time);
        self.values.push(value);
        Ok(())
    }

    /// Samples so far.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Times so far.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// Values so far.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    /// The chunk; the samples stay until [`clear`](Self::clear).
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // `append` keeps both columns equal and within the bound, so this cannot fail.
        encode(&self.times, &self.values, &mut out).ok();
        out
    }
}

/// The samples of a chunk, one by one. [`decode_into`] is the faster way to all of them.
#[derive(Clone, Debug)]
pub struct Decoder {
    samples: std::iter::Zip<std::vec::IntoIter<i64>, std::vec::IntoIter<f64>>,
}

impl Decoder {
    /// Decodes a chunk.
    pub fn new(chunk: &[u8]) -> Result<Self, Corrupt> {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        decode_into(chunk, &mut times, &mut values)?;
        Ok(Self { samples: times.into_iter().zip(values) })
    }
}

impl Iterator for Decoder {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<Self::Item> {
        self.samples.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.samples.size_hint()
    }
}
