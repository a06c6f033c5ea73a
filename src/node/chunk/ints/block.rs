//! A block of integers, bit-packed over a base.
//!
//! ```text
//! block   head · base · low bits of (value - base), packed · the bits above them
//! head    0 to 64            the width of the low bits; there is nothing above
//!         128 + width        how many exceptions · of each its position and high bits
//!         65 + 2 * width     high bits of every value, in unary (`rice`)
//!         66 + 2 * width     the same, of differences folded to one sign
//! ```
//!
//! The few values of a block that need many more bits than the others are exceptions, so that a counter reset or a
//! missed scrape does not widen its neighbours. Where many values are small and ever fewer are large, as with noise and
//! bursts, unary high bits come close to the entropy. Either way decoding has no branch per value that depends on it.

use super::{BLOCK, rice};
use crate::node::chunk::{
    Corrupt,
    bits::BitWriter,
    bytes::{Input, put_signed, put_varint, varint_len},
};

/// Room for 128 values of 64 bits, and for the last two words to be read whole.
const PACKED_MAX: usize = BLOCK * 8 + 16;

/// How many of the smallest values a base may leave out, as exceptions: all numbers below this.
const LEFT_OUT: usize = 5;

/// In a head: exceptions follow.
const EXCEPTIONS: u8 = 0x80;
/// The first head that says unary.
const UNARY: u8 = 65;
/// The fewest bytes that unary high bits must save, since decoding them takes longer.
const UNARY_SAVES: usize = 3;

/// Appends a block.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let Plan { base, width, above, .. } = Plan::of(values);
    match above {
        Above::Nothing => out.push(width as u8),
        Above::Exceptions(count) => out.extend([width as u8 | EXCEPTIONS, count as u8]),
        Above::Unary(fold) => out.push(UNARY + 2 * width as u8 + u8::from(fold)),
    }
    put_signed(base, out);
    let fold = matches!(above, Above::Unary(true));
    let over_base = |value: &i64| rice::fold(value.wrapping_sub(base), fold);
    pack(values.iter().map(over_base), width, out);
    match above {
        Above::Nothing => {}
        Above::Exceptions(_) => {
            for (at, value) in values.iter().enumerate() {
                let high = high_bits(over_base(value), width);
                if high > 0 {
                    out.push(at as u8);
                    put_varint(high, out);
                }
            }
        }
        Above::Unary(_) => rice::encode(values.iter().map(|v| high_bits(over_base(v), width)), out),
    }
}

fn high_bits(value: u64, width: u32) -> u64 {
    value.checked_shr(width).unwrap_or(0)
}

/// How to store a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) bytes: usize,
    base: i64,
    width: u32,
    above: Above,
}

/// How bits above the width are stored.
#[derive(Clone, Copy, Debug)]
enum Above {
    Nothing,
    /// A number of bits.
    Exceptions(usize),
    /// Of every value; whether differences to the base are folded to one sign.
    Unary(bool),
}

impl Plan {
    /// The cheapest of all ways.
    pub(super) fn of(values: &[i64]) -> Self {
        let packed = Self::packed(values);
        if packed.width <= 1 && matches!(packed.above, Above::Nothing) {
            return packed;
        }
        let unary = rice::cheapest(values).map(|rice| Self {
            bytes: rice.bytes + varint_len(((rice.base << 1) ^ (rice.base >> 63)) as u64),
            base: rice.base,
            width: rice.width,
            above: Above::Unary(rice.fold),
        });
        unary.filter(|unary| unary.bytes + UNARY_SAVES <= packed.bytes).unwrap_or(packed)
    }

    /// The cheapest with exceptions over any of the bases that are tried.
    fn packed(values: &[i64]) -> Self {
        let smallest = smallest(values);
        let mut best = Self::over(values, smallest[0]);
        for pair in smallest.windows(2) {
            // Leaving values out pays only if there is a gap above them as wide as the others' width.
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
        // How many values need exactly this number of bits.
        let mut needing = [0usize; 65];
        for value in values {
            needing[64 - (value.wrapping_sub(base) as u64).leading_zeros() as usize] += 1;
        }
        let header = varint_len(((base << 1) ^ (base >> 63)) as u64);
        let mut best = Self { bytes: usize::MAX, base, width: 64, above: Above::Nothing };
        let mut exceptions = 0;
        let widest = needing.iter().rposition(|count| *count > 0).unwrap_or(0);
        // Only widths that some value needs: in between nothing is won.
        for width in (0..=widest).rev().filter(|width| needing[*width] > 0) {
            let outside = (width + 1..=widest).filter(|bits| needing[*bits] > 0);
            let outside: usize = outside.map(|bits| needing[bits] * (1 + (bits - width).div_ceil(7))).sum();
            let bytes = header + (values.len() * width).div_ceil(8) + outside;
            if bytes < best.bytes {
                let above = if exceptions > 0 { Above::Exceptions(exceptions) } else { Above::Nothing };
                (best.bytes, best.width, best.above) = (bytes, width as u32, above);
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

fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let mut bits = BitWriter::new(out);
    for value in values {
        bits.put(value & mask, width);
    }
    bits.finish();
}

/// Fills `out`, at most [`BLOCK`] values, with a block.
pub(super) fn decode(input: &mut Input<'_>, out: &mut [i64]) -> Result<(), Corrupt> {
    let head = input.byte()?;
    let (width, fold) = match head & !EXCEPTIONS {
        width @ 0..UNARY => (u32::from(width), false),
        unary => (u32::from((unary - UNARY) / 2), (unary - UNARY) % 2 == 1),
    };
    let unary = (UNARY..EXCEPTIONS).contains(&head);
    let exceptions = if head & EXCEPTIONS == 0 { 0 } else { input.byte()? };
    let base = input.signed()?;
    if head >= EXCEPTIONS + UNARY {
        return Err(Corrupt("an unknown form of a block"));
    }
    let packed = input.take((out.len() * width as usize).div_ceil(8))?;
    let mut padded = [0; PACKED_MAX];
    padded[..packed.len()].copy_from_slice(packed);
    if unary {
        unpack(&padded, width, 0, out);
        return rice::decode(input, width, base, fold, out);
    }
    unpack(&padded, width, base, out);
    for _ in 0..exceptions {
        let at = usize::from(input.byte()?);
        let high = input.varint()?.checked_shl(width).unwrap_or(0);
        let value = out.get_mut(at).ok_or(Corrupt("an exception outside its block"))?;
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
