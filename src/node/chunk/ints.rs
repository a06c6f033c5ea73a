//! A column of integers: differences of some order, bit-packed in blocks of 128.
//!
//! ```text
//! column  order (0, 1 or 2) · one start value per order · blocks
//! block   width · number of exceptions · base · low bits of (value - base), packed · exceptions
//! ```
//!
//! The few values of a block that need many more bits than the others are exceptions: their high bits follow, with
//! their positions, so that a counter reset or a missed scrape does not widen its neighbours.

use super::{
    Corrupt,
    bytes::{Input, put_signed, put_varint, varint_len},
};

/// Values per block.
pub(super) const BLOCK: usize = 128;

/// Room for 128 values of 64 bits, and for the last two words to be read whole.
const PACKED_MAX: usize = BLOCK * 8 + 16;

/// How many of the smallest values a base may leave out, as exceptions.
const LEFT_OUT: [usize; 4] = [0, 1, 2, 4];

/// Appends a column in the order that makes it smallest.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let mut differences = values.to_vec();
    let mut starts: Vec<i64> = Vec::with_capacity(2);
    let mut best: Option<Vec<u8>> = None;
    for order in 0..=2u8 {
        if order > 0 {
            let Some(first) = differences.first() else { break };
            starts.push(*first);
            differences = differences.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        }
        let mut column = vec![order];
        for start in &starts {
            put_signed(*start, &mut column);
        }
        for block in differences.chunks(BLOCK) {
            encode_block(block, &mut column);
        }
        if best.as_ref().is_none_or(|best| column.len() < best.len()) {
            best = Some(column);
        }
    }
    out.extend(best.unwrap_or_default());
}

fn encode_block(values: &[i64], out: &mut Vec<u8>) {
    let mut sorted = [0; BLOCK];
    let sorted = &mut sorted[..values.len()];
    sorted.copy_from_slice(values);
    sorted.sort_unstable();
    let plans = LEFT_OUT.iter().filter_map(|&out| sorted.get(out)).map(|&base| (plan(values, base), base));
    let Some(((_, width, exceptions), base)) = plans.min() else { return };
    out.push(width as u8);
    out.push(exceptions as u8);
    put_signed(base, out);
    pack(values, base, width, out);
    for (at, value) in values.iter().enumerate() {
        let high = high_bits(value.wrapping_sub(base) as u64, width);
        if high > 0 {
            out.push(at as u8);
            put_varint(high, out);
        }
    }
}

fn high_bits(value: u64, width: u32) -> u64 {
    value.checked_shr(width).unwrap_or(0)
}

/// The cheapest way to store a block over `base`: bytes, width, number of exceptions.
fn plan(values: &[i64], base: i64) -> (usize, u32, usize) {
    // How many values need exactly so many bits.
    let mut needing = [0usize; 65];
    for value in values {
        needing[64 - (value.wrapping_sub(base) as u64).leading_zeros() as usize] += 1;
    }
    let header = varint_len(((base << 1) ^ (base >> 63)) as u64);
    let widest = needing.iter().rposition(|count| *count > 0).unwrap_or(0);
    let mut best = (usize::MAX, 64, 0);
    let (mut exceptions, mut width) = (0, widest);
    loop {
        let outside: usize =
            (width + 1..=widest).map(|bits| needing[bits] * (1 + (bits - width).div_ceil(7))).sum();
        let bytes = header + (values.len() * width).div_ceil(8) + outside;
        if bytes < best.0 {
            best = (bytes, width as u32, exceptions);
        }
        exceptions += needing[width];
        // A quarter at most: beyond that decoding suffers more than the size gains.
        if width == 0 || exceptions > values.len() / 4 {
            return best;
        }
        width -= 1;
    }
}

fn pack(values: &[i64], base: i64, width: u32, out: &mut Vec<u8>) {
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let (mut word, mut used) = (0u128, 0);
    for value in values {
        word |= u128::from(value.wrapping_sub(base) as u64 & mask) << used;
        used += width;
        while used >= 8 {
            out.push(word as u8);
            word >>= 8;
            used -= 8;
        }
    }
    if used > 0 {
        out.push(word as u8);
    }
}

/// Reads a column block by block.
#[derive(Debug)]
pub(super) struct Column {
    order: u8,
    /// The last value, and its difference to the one before.
    last: i64,
    step: i64,
    left: usize,
    /// Start values not yet handed out.
    starts: usize,
}

impl Column {
    /// Reads the head of a column of `count` values.
    pub(super) fn open(input: &mut Input<'_>, count: usize) -> Result<Self, Corrupt> {
        let mut column = Self { order: 0, last: 0, step: 0, left: count, starts: 0 };
        if count == 0 {
            return Ok(column);
        }
        column.order = input.byte()?;
        column.starts = usize::from(column.order);
        if column.order > 2 || column.starts > count {
            return Err(Corrupt("an unknown order of differences"));
        }
        if column.order > 0 {
            column.last = input.signed()?;
        }
        if column.order > 1 {
            column.step = input.signed()?;
        }
        Ok(column)
    }

    /// Decodes the next values into the front of `out` and says how many; 0 at the end.
    pub(super) fn next(&mut self, input: &mut Input<'_>, out: &mut [i64; BLOCK]) -> Result<usize, Corrupt> {
        if self.starts > 0 {
            // The values that the start values stand for come as a short block of their own.
            out[0] = self.last;
            let count = self.starts;
            if count == 2 {
                self.last = self.last.wrapping_add(self.step);
                out[1] = self.last;
            }
            self.starts = 0;
            self.left -= count;
            return Ok(count);
        }
        let count = self.left.min(BLOCK);
        if count == 0 {
            return Ok(0);
        }
        self.left -= count;
        decode_block(input, count, out)?;
        match self.order {
            0 => {}
            1 => {
                for value in &mut out[..count] {
                    self.last = self.last.wrapping_add(*value);
                    *value = self.last;
                }
            }
            _ => {
                for value in &mut out[..count] {
                    self.step = self.step.wrapping_add(*value);
                    self.last = self.last.wrapping_add(self.step);
                    *value = self.last;
                }
            }
        }
        Ok(count)
    }
}

fn decode_block(input: &mut Input<'_>, count: usize, out: &mut [i64; BLOCK]) -> Result<(), Corrupt> {
    let width = u32::from(input.byte()?);
    let exceptions = input.byte()?;
    let base = input.signed()?;
    if width > 64 {
        return Err(Corrupt("a width over 64 bits"));
    }
    let packed = input.take((count * width as usize).div_ceil(8))?;
    let mut padded = [0; PACKED_MAX];
    padded[..packed.len()].copy_from_slice(packed);
    unpack(&padded, width, base, &mut out[..count]);
    for _ in 0..exceptions {
        let at = usize::from(input.byte()?);
        let high = input.varint()?.checked_shl(width).unwrap_or(0);
        let value = out[..count].get_mut(at).ok_or(Corrupt("an exception outside its block"))?;
        *value = value.wrapping_add(high as i64);
    }
    Ok(())
}

fn unpack(packed: &[u8; PACKED_MAX], width: u32, base: i64, out: &mut [i64]) {
    let width = width as usize;
    if width == 0 {
        out.fill(base);
    } else if width <= 57 {
        // Any value of up to 57 bits lies within the eight bytes from the byte it starts in.
        let mask = (1u64 << width) - 1;
        for (i, value) in out.iter_mut().enumerate() {
            let bit = i * width;
            let word = word_at::<8>(packed, bit / 8).map_or(0, u64::from_le_bytes);
            *value = base.wrapping_add((word >> (bit % 8) & mask) as i64);
        }
    } else {
        let mask = u64::MAX >> (64 - width);
        for (i, value) in out.iter_mut().enumerate() {
            let bit = i * width;
            let word = word_at::<16>(packed, bit / 8).map_or(0, u128::from_le_bytes);
            *value = base.wrapping_add(((word >> (bit % 8)) as u64 & mask) as i64);
        }
    }
}

fn word_at<const N: usize>(packed: &[u8; PACKED_MAX], at: usize) -> Option<[u8; N]> {
    packed.get(at..)?.first_chunk().copied()
}
