//! `sum_over_time` and `avg_over_time`.
//!
//! Prometheus adds the samples of each window from the first to the last, and the order shows in the last digit. Where
//! every sum is exact, it does not: a window's sum is then the difference of two running sums of its series.

use crate::node::engine::{
    samples_window::Window,
    sums::{mean, sum},
};

/// Below this all sums of whole numbers are exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The sum or mean of windows of one series after the other.
#[derive(Debug)]
pub(super) struct Totals {
    mean: bool,
    /// The sums of the first 0, 1, 2, … samples of the series; empty where they are not exact.
    running: Vec<f64>,
}

impl Totals {
    /// `avg_over_time`, or `sum_over_time`.
    pub(super) fn new(mean: bool) -> Self {
        Self { mean, running: Vec::new() }
    }

    /// Begins with a series.
    pub(super) fn start(&mut self, values: &[f64]) {
        self.running.clear();
        let whole = |v: &f64| v.fract() == 0.0 && (*v != 0.0 || v.is_sign_positive());
        let size: f64 = values.iter().map(|v| v.abs()).sum();
        // NaN is neither whole nor below the bound.
        if size < EXACT_MAX && values.iter().all(whole) {
            let mut total = 0.0;
            self.running.push(total);
            self.running.extend(values.iter().map(|value| {
                total += value;
                total
            }));
        }
    }

    pub(super) fn of(&self, w: &Window<'_>) -> f64 {
        let ends = self.running.get(w.from).zip(self.running.get(w.from + w.values.len()));
        match (ends, self.mean) {
            (Some((before, upto)), false) => upto - before,
            (Some((before, upto)), true) => (upto - before) / w.values.len() as f64,
            (None, false) => sum(w.values),
            (None, true) => mean(w.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_the_sum_of_its_samples_to_the_last_digit() {
        let mut rng = fastrand::Rng::with_seed(5);
        for round in 0..300 {
            let values: Vec<f64> = (0..60)
                .map(|_| match (round % 3, rng.u8(..60)) {
                    (0, _) => f64::from(rng.i32(..)),
                    (_, 0) => f64::NAN,
                    (_, 1) => 1e300,
                    _ => rng.f64() * 100.0,
                })
                .collect();
            let (length, stride) = (rng.usize(1..20), rng.usize(1..25));
            for (is_mean, whole) in [(false, sum as fn(&[f64]) -> f64), (true, mean)] {
                let mut totals = Totals::new(is_mean);
                totals.start(&values);
                assert_eq!(totals.running.is_empty(), round % 3 != 0);
                for from in (0..60 - length).step_by(stride) {
                    let window = Window::part_of(&values, from, length);
                    assert_eq!(totals.of(&window).to_bits(), whole(window.values).to_bits());
                }
            }
        }
    }
}
