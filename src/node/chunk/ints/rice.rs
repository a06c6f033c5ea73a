//! High bits in unary: a number is that number of zeros and a one (Rice's code, with the low bits apart).

use crate::node::chunk::{Corrupt, bytes::Input};

/// Low bits of a number at most: beyond that there is noise below, and packing is as good.
const WIDTH_MAX: u32 = 30;

/// A way to store a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rice {
    /// Without the base.
    pub(super) bytes: usize,
    pub(super) base: i64,
    pub(super) width: u32,
    pub(super) fold: bool,
}

/// The difference to the base as a number: small ones of either sign become small numbers when they are folded.
pub(super) fn fold(difference: i64, fold: bool) -> u64 {
    if fold { ((difference << 1) ^ (difference >> 63)) as u64 } else { difference as u64 }
}

/// The cheapest over the smallest value, or folded over the mean. `None` where numbers are too large.
pub(super) fn cheapest(values: &[i64]) -> Option<Rice> {
    let smallest = values.iter().copied().min()?;
    let mut sum = 0_u64;
    for value in values {
        sum = sum.checked_add(value.wrapping_sub(smallest) as u64)?;
    }
    let mean = sum / values.len() as u64;
    if mean >> WIDTH_MAX > 0 {
        return None;
    }
    let middle = smallest.wrapping_add(mean as i64);
    let ways = [Rice::over(values, smallest, false, mean), Rice::over(values, middle, true, mean)];
    ways.into_iter().min_by_key(|rice| rice.bytes)
}

impl Rice {
    /// With the width that suits numbers of `about` this size.
    fn over(values: &[i64], base: i64, folded: bool, about: u64) -> Self {
        let bits = |width: u32| {
            let high =
                values.iter().map(|value| fold(value.wrapping_sub(base), folded) >> width).sum::<u64>();
            high + values.len() as u64 * u64::from(width + 1)
        };
        // A geometric distribution has half of its numbers below seven tenths of their mean; others have it elsewhere.
        let guess = about.max(1).ilog2().min(WIDTH_MAX);
        let widths = guess.saturating_sub(2)..=guess;
        let best = widths.map(|width| (bits(width), width)).min().unwrap_or((u64::MAX, 0));
        Self { bytes: best.0.div_ceil(8) as usize, base, width: best.1, fold: folded }
    }
}

/// Appends numbers.
pub(super) fn encode(numbers: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    let (mut byte, mut used) = (0_u8, 0_u64);
    for number in numbers {
        used += number;
        while used >= 8 {
            out.push(byte);
            (byte, used) = (0, used - 8);
        }
        byte |= 1 << used;
        used += 1;
    }
    if used > 0 {
        out.push(byte);
    }
}

/// Puts numbers above the low bits in `out`, and makes values of them.
pub(super) fn decode(
    input: &mut Input<'_>,
    width: u32,
    base: i64,
    fold: bool,
    out: &mut [i64],
) -> Result<(), Corrupt> {
    let bytes = input.ahead().rest();
    let mut words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    // Behind the one of the number before, and where the word begins, in bits.
    let (mut after, mut origin) = (0_u64, 0_u64);
    let mut word = words.next().unwrap_or(0);
    for value in &mut *out {
        while word == 0 {
            word = words.next().ok_or(Corrupt("it ends early"))?;
            origin += 64;
        }
        let one = origin + u64::from(word.trailing_zeros());
        word &= word - 1;
        *value |= ((one - after) << width) as i64;
        after = one + 1;
    }
    input.take(after.div_ceil(8) as usize)?;
    if fold {
        for value in out {
            *value = base.wrapping_add((*value as u64 >> 1) as i64 ^ -(*value & 1));
        }
    } else {
        for value in out {
            *value = base.wrapping_add(*value);
        }
    }
    Ok(())
}
