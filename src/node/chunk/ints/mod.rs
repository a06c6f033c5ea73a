//! A column of integers: differences of some order, in blocks of 128 (`block`).
//!
//! ```text
//! column  order (0, 1 or 2) · one start value per order · blocks
//! ```

mod block;
mod rice;

use self::block::Plan;
use super::{
    Corrupt,
    bytes::{Input, put_signed},
};

/// Values per block.
pub(super) const BLOCK: usize = 128;

/// Appends a column in the order that makes it smallest.
pub(super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let once = differences(values);
    let twice = differences(&once);
    let columns: [(&[i64], &[i64]); 3] = [
        (&[], values),
        (values.get(..1).unwrap_or_default(), &once),
        (&[values.first().copied().unwrap_or(0), once.first().copied().unwrap_or(0)], &twice),
    ];
    // The first blocks decide the order; a series seldom changes its shape within one chunk.
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
        block::encode(block, out);
    }
}

/// Blocks that the choice of the order rests on.
const LOOKED_AT: usize = 2;

fn differences(values: &[i64]) -> Vec<i64> {
    values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
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
        block::decode(input, &mut out[..count])?;
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
