//! `sum_over_time` and `avg_over_time`: each sample is added twice at most, however much the windows overlap.
//!
//! Nothing is ever taken away from a sum, which would leave the rounding of large values behind. A window is two
//! parts instead: what ends at `middle`, with the sums of all of its tails ready, and what came since, with one running
//! sum. When the window has left the first part behind, all of it becomes the first part.

use super::over_time::{Kahan, Mean};
use crate::node::engine::window::Window;

/// The sum or mean of a window that moves forward. Places are indices of samples of the series.
#[derive(Debug)]
pub(super) struct Sliding {
    mean: bool,
    middle: usize,
    /// Sums of the last one, two, … samples before the middle.
    tails: Vec<Kahan>,
    /// Sum of the samples from the middle on.
    since: Kahan,
    /// Where the last window ended.
    seen: usize,
}

pub(super) fn find(name: &str) -> Option<Sliding> {
    let mean = match name {
        "sum_over_time" => false,
        "avg_over_time" => true,
        _ => return None,
    };
    Some(Sliding { mean, middle: 0, tails: Vec::new(), since: Kahan::default(), seen: 0 })
}

impl Sliding {
    /// Forgets the series before.
    pub(super) fn start(&mut self) {
        self.middle = 0;
        self.seen = 0;
    }

    pub(super) fn of(&mut self, w: &Window<'_>) -> Option<f64> {
        let end = w.from + w.values.len();
        if w.from >= self.middle {
            self.tails.clear();
            let mut sum = Kahan::default();
            self.tails.extend(w.values.iter().rev().map(|value| {
                sum.add(*value);
                sum
            }));
            self.middle = end;
            self.since = Kahan::default();
        } else {
            let new = w.values.iter().skip(self.seen.saturating_sub(w.from));
            new.for_each(|value| self.since.add(*value));
        }
        self.seen = end;
        let mut sum = self.tails.get(self.middle.checked_sub(w.from + 1)?).copied()?;
        sum.add(self.since.sum);
        sum.lost += self.since.lost;
        let count = w.values.len() as f64;
        match (sum.sum.is_finite(), self.mean) {
            (true, true) => Some(sum.sum / count + sum.lost / count),
            (true, false) => Some(sum.total()),
            // Whether a sum overflows depends on its order.
            (false, true) => Some(Mean::of(w.values)),
            (false, false) => Some(Kahan::of(w.values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_the_sum_of_its_samples() {
        let mut rng = fastrand::Rng::with_seed(5);
        for (name, whole) in [("sum_over_time", Kahan::of as fn(&[f64]) -> f64), ("avg_over_time", Mean::of)]
        {
            for _ in 0..300 {
                let values: Vec<f64> = (0..60)
                    .map(|_| match rng.u8(..60) {
                        0 => f64::NAN,
                        1 => f64::INFINITY,
                        2 => 1e300,
                        _ => f64::from(rng.i16(..)) / 4.0,
                    })
                    .collect();
                let (length, stride) = (rng.usize(1..20), rng.usize(1..25));
                let mut sliding = find(name).unwrap();
                sliding.start();
                for from in (0..60 - length).step_by(stride) {
                    let window = Window::part_of(&values, from, length);
                    let part = window.values;
                    let (got, want) = (sliding.of(&window).unwrap(), whole(part));
                    let near = (got - want).abs() <= 1e-12 * want.abs().max(1.0);
                    assert!(
                        near || got == want || (got.is_nan() && want.is_nan()),
                        "{name} {part:?}: {got} {want}"
                    );
                }
            }
        }
    }
}
