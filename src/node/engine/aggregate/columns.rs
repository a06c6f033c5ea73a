//! Sums and counts: a plain column of numbers each, and loops without a branch.

use super::fold::Column;
use crate::{
    node::engine::{
        buffers::Numbers, error::EvalError, meter::Held, quantile::quantile, sums::two_sum, value::present,
    },
    series::is_stale,
};

/// `sum`: compensated sums.
pub(super) struct Sums {
    totals: Vec<f64>,
    /// The rounding error of each sum.
    lost: Vec<f64>,
    /// Not zero where a series had a value.
    seen: Vec<u64>,
}

impl Column for Sums {
    const STEP_BYTES: usize = 24;

    fn new(steps: usize) -> Self {
        Self { totals: vec![0.0; steps], lost: vec![0.0; steps], seen: vec![0; steps] }
    }

    fn add(&mut self, values: &mut Numbers, _: &mut Held<'_>) -> Result<(), EvalError> {
        let cells = self.totals.iter_mut().zip(&mut self.lost).zip(&mut self.seen);
        for (((sum, lost), seen), value) in cells.zip(values.iter()) {
            let hole = is_stale(*value);
            two_sum(sum, lost, if hole { 0.0 } else { *value });
            *seen |= u64::from(!hole);
        }
        Ok(())
    }

    fn finish(self, _: &[f64], out: &mut [f64]) {
        for (((sum, lost), seen), out) in self.totals.into_iter().zip(self.lost).zip(self.seen).zip(out) {
            if seen != 0 {
                // The compensation of an infinite sum is not a number.
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

    fn add(&mut self, values: &mut Numbers, _: &mut Held<'_>) -> Result<(), EvalError> {
        for (count, value) in self.0.iter_mut().zip(values.iter()) {
            *count += u64::from(!is_stale(*value));
        }
        Ok(())
    }

    fn finish(self, _: &[f64], out: &mut [f64]) {
        for (count, out) in self.0.into_iter().zip(out) {
            if count > 0 {
                *out = count as f64;
            }
        }
    }
}

/// `quantile`: the rows of all series, since every value counts to the end.
#[derive(Default)]
pub(super) struct Rows(Vec<Numbers>);

impl Column for Rows {
    const PARAMETER: bool = true;
    const STEP_BYTES: usize = 0;

    fn new(_: usize) -> Self {
        Self::default()
    }

    fn add(&mut self, values: &mut Numbers, held: &mut Held<'_>) -> Result<(), EvalError> {
        held.count(values.len() as u64)?;
        // One more number for each series is scratch space for the values of one step.
        held.borrow(size_of::<f64>() as u64)?;
        held.push(&mut self.0, std::mem::take(values))
    }

    fn finish(self, parameters: &[f64], out: &mut [f64]) {
        let mut values = Vec::with_capacity(self.0.len());
        for (step, (q, out)) in parameters.iter().zip(out).enumerate() {
            values.clear();
            values.extend(self.0.iter().filter_map(|row| present(*row.get(step)?)));
            if !values.is_empty() {
                *out = quantile(*q, &mut values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::node::engine::{buffers::Pooled, meter::Meter, options::Options, value::HOLE};

    fn sum(columns: &[&[f64]]) -> f64 {
        let cancel = AtomicBool::new(false);
        let meter = Meter::new(&Options::default(), &cancel);
        let mut sums = Sums::new(1);
        for values in columns {
            sums.add(&mut Pooled::Own(values.to_vec()), &mut meter.hold()).unwrap();
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
