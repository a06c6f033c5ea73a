//! The few values that one write has of a series.
//!
//! ```text
//! values  power of ten · differences of the integers over it      counters, and gauges with few decimals
//!         RAW · 64 bits each                                      any other float
//! ```

use crate::node::chunk::{
    Corrupt,
    bytes::{Input, put_signed},
    decimal::{POWERS, from_int, to_int},
};

const RAW: u8 = 0xff;

/// Appends values.
pub(super) fn encode(values: impl Iterator<Item = f64> + Clone, out: &mut Vec<u8>) {
    let start = out.len();
    let power = values
        .clone()
        .try_fold(0, |power, value| (power..POWERS.len()).find(|&more| to_int(value, more).is_some()));
    if let Some(power) = power {
        out.push(power as u8);
        let mut last = 0_i64;
        let fits = values.clone().all(|value| {
            // An integer that fitted with fewer decimals may be too large for more.
            to_int(value, power).is_some_and(|int| {
                put_signed(int.wrapping_sub(last), out);
                last = int;
                true
            })
        });
        if fits {
            return;
        }
        out.truncate(start);
    }
    out.push(RAW);
    values.for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

/// Hands `count` values to `each`.
pub(super) fn decode(
    input: &mut Input<'_>,
    count: usize,
    mut each: impl FnMut(usize, f64),
) -> Result<(), Corrupt> {
    let power = input.byte()?;
    if power == RAW {
        for at in 0..count {
            each(at, f64::from_bits(input.word()?));
        }
        return Ok(());
    }
    let mut int = 0_i64;
    for at in 0..count {
        int = int.wrapping_add(input.signed()?);
        each(at, from_int(int, usize::from(power)));
    }
    Ok(())
}
