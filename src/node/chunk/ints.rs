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
    bits::BitWriter,
    bytes::{Input, put_signed, put_varint, varint_len},
};

/// Values per block.
pub(super) const BLOCK: usize = 128;

/// Room for 128 values of 64 bits, and for the last two words to be read whole.
const PACKED_MAX: usize = BLOCK * 8 + 16;

/// How many of the smallest values a base may leave out, as exceptions: all numbers below this.
const LEFT_OUT: usize = 5;

/// Appends a column in the order that makes it smallest.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let once = differences(values);
    let twice = differences(&once);
    let columns: [(&[i64], &[i64]); 3] = [
        (&[], values),
        (values.get(..1).unwrap_or_default(), &once),
        (&[values.first().copied().unwrap_or(0), once.first().copied().unwrap_or(0)], &twice),
    ];
    // The first blocks tell which order suits; a series seldom changes its ways within one chunk.
    let usable = columns.iter().enumerate().filter(|(order, _)| *order <= values.len());
    let best = usable.min_by_key(|(order, (_, column))| {
        let looked_at = column.chunks(BLOCK).take(LOOKED_AT);
        looked_at.map(|block| Plan::of(block).bytes).sum::<usize>() + order
    });
    let Some((order, (starts, column))) = best else { return };
    out.push(order as u8);
    for start in *starts {
        put_signed(*start, out);
    }
    for block in column.chunks(BLOCK) {
        encode_block(block, out);
    }
}

/// Blocks that the choice of the order rests on.
const LOOKED_AT: usize = 2;

fn differences(values: &[i64]) -> Vec<i64> {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

fn encode_block(values: &[i64], out: &mut Vec<u8>) {
    let Plan { base, width, exceptions, .. } = Plan::of(values);
    out.push(width as u8);
    out.push(exceptions as u8);
    put_signed(base, out);
    pack(values, base, width, out);
    if exceptions == 0 {
        return;
    }
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

/// How to store a block.
#[derive(Clone, Copy, Debug)]
struct Plan {
    bytes: usize,
    base: i64,
    width: u32,
    exceptions: usize,
}

impl Plan {
    /// The cheapest over any of the bases that are tried.
    fn of(values: &[i64]) -> Self {
        let smallest = smallest(values);
        let mut best = Self::over(values, smallest[0]);
        for pair in smallest.windows(2) {
            // Leaving values out pays only if there is a gap above them as wide as what the others need.
            let gap = 64 - (pair[1].wrapping_sub(pair[0]) as u64).leading_zeros();
            if gap > 0 && gap + 1 >= best.width {
                let other = Self::over(values, pair[1]);
                if other.bytes < best.bytes {
                    best = other;
                }
            }
        }
        best
    }

    /// The cheapest way over `base`.
    fn over(values: &[i64], base: i64) -> Self {
        // How many values need exactly so many bits.
        let mut needing = [0usize; 65];
        for value in values {
            needing[64 - (value.wrapping_sub(base) as u64).leading_zeros() as usize] += 1;
        }
        let header = varint_len(((base << 1) ^ (base >> 63)) as u64);
        let mut best = Self { bytes: usize::MAX, base, width: 64, exceptions: 0 };
        let mut exceptions = 0;
        let widest = needing.iter().rposition(|count| *count > 0).unwrap_or(0);
        // Only widths that some value needs: in between nothing is won.
        for width in (0..=widest).rev().filter(|width| needing[*width] > 0) {
            let outside = (width + 1..=widest).filter(|bits| needing[*bits] > 0);
            let outside: usize = outside.map(|bits| needing[bits] * (1 + (bits - width).div_ceil(7))).sum();
            let bytes = header + (values.len() * width).div_ceil(8) + outside;
            if bytes < best.bytes {
                (best.bytes, best.width, best.exceptions) = (bytes, width as u32, exceptions);
            }
            exceptions += needing[width];
            // A quarter at most: beyond that decoding suffers more than the size gains.
            if exceptions > values.len() / 4 {
                break;
            }
        }
        best
    }
}

/// The smallest values, rising; the last of them again where there are fewer.
fn smallest(values: &[i64]) -> [i64; LEFT_OUT] {
    let mut least = [i64::MAX; LEFT_OUT];
    for &value in values {
        if value < least[LEFT_OUT - 1] {
            let at = least.iter().position(|held| value < *held).unwrap_or(LEFT_OUT - 1);
            least[at..].rotate_right(1);
            least[at] = value;
        }
    }
    if let Some(last) = values.len().checked_sub(1).filter(|last| *last < LEFT_OUT - 1) {
        let last_value = least[last];
        least[last + 1..].fill(last_value);
    }
    least
}

fn pack(values: &[i64], base: i64, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let mut bits = BitWriter::new(out);
    for value in values {
        bits.put(value.wrapping_sub(base) as u64 & mask, width);
    }
    bits.finish();
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
