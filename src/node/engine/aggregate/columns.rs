//! Sums and counts: a plain column of numbers each, and loops without a branch.

use super::fold::Column;
use crate::series::is_stale;

/// `sum`: compensated sums.
pub(super) struct Sums {
    totals: Vec<f64>,
    /// What rounding took from each sum.
    lost: Vec<f64>,
    /// Not zero where a series had a value.
    seen: Vec<u64>,
}

/// Adds to a sum, and what that loses to the other; Knuth's way to the rounding error, which compares nothing.
fn add(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    let added = total - *sum;
    *lost += (*sum - (total - added)) + (value - added);
    *sum = total;
}

impl Column for Sums {
    const STEP_BYTES: usize = 24;

    fn new(steps: usize) -> Self {
        Self { totals: vec![0.0; steps], lost: vec![0.0; steps], seen: vec![0; steps] }
    }

    fn add(&mut self, values: &[f64]) {
        let cells = self.totals.iter_mut().zip(&mut self.lost).zip(&mut self.seen);
        for (((sum, lost), seen), value) in cells.zip(values) {
            let hole = is_stale(*value);
            add(sum, lost, if hole { 0.0 } else { *value });
            *seen |= u64::from(!hole);
        }
    }

    fn merge(&mut self, later: Self) {
        let cells = self.totals.iter_mut().zip(&mut self.lost).zip(&mut self.seen);
        let later = later.totals.into_iter().zip(later.lost).zip(later.seen);
        for (((sum, lost), seen), ((more, more_lost), more_seen)) in cells.zip(later) {
            add(sum, lost, more);
            *lost += more_lost;
            *seen |= more_seen;
        }
    }

    fn finish(self, _: &[f64], out: &mut [f64]) {
        for (((sum, lost), seen), out) in self.totals.into_iter().zip(self.lost).zip(self.seen).zip(out) {
            if seen != 0 {
                // What an infinite sum lost is not a number.
                *out = if sum.is_finite() { sum + lost } else { sum };
            }
        }
    }
}

/// `count`
pub(super) struct Counts(Vec<u64>);

impl Column for Counts {
    const STEP_BYTES: usize = 8;

    fn new(steps: usize) -> Self {
        Self(vec![0; steps])
    }

    fn add(&mut self, values: &[f64]) {
        for (count, value) in self.0.iter_mut().zip(values) {
            *count += u64::from(!is_stale(*value));
        }
    }

    fn merge(&mut self, later: Self) {
        for (count, more) in self.0.iter_mut().zip(later.0) {
            *count += more;
        }
    }

    fn finish(self, _: &[f64], out: &mut [f64]) {
        for (count, out) in self.0.into_iter().zip(out) {
            if count > 0 {
                *out = count as f64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::engine::value::HOLE;

    fn sum(columns: &[&[f64]]) -> f64 {
        let mut sums = Sums::new(1);
        for values in columns {
            sums.add(values);
        }
        let mut out = [HOLE];
        sums.finish(&[0.0], &mut out);
        out[0]
    }

    #[test]
    fn a_sum_keeps_what_rounding_takes_and_knows_infinity() {
        assert_eq!(sum(&[&[1.0], &[1e100], &[HOLE], &[1.0], &[-1e100]]), 2.0);
        assert_eq!(sum(&[&[f64::INFINITY], &[1.0]]), f64::INFINITY);
        assert!(sum(&[&[f64::INFINITY], &[f64::NEG_INFINITY]]).is_nan());
        assert!(sum(&[&[f64::MAX], &[f64::MAX], &[-f64::MAX]]).is_infinite());
        assert!(is_stale(sum(&[&[HOLE]])));
    }
}
