//! `min_over_time` and `max_over_time`: each sample is looked at once, however much the windows overlap.

use std::collections::VecDeque;

use crate::node::engine::samples_window::Window;

/// The smallest or largest value of a window that moves forward.
#[derive(Debug)]
pub(super) struct Extreme {
    largest: bool,
    /// Index and value of each sample that may still become the result: none after it beats it, and it beats all behind.
    candidates: VecDeque<(usize, f64)>,
    /// Samples taken in so far.
    seen: usize,
}

impl Extreme {
    /// `max_over_time`, or `min_over_time`.
    pub(super) fn new(largest: bool) -> Self {
        Self { largest, candidates: VecDeque::new(), seen: 0 }
    }

    /// Forgets the series before.
    pub(super) fn start(&mut self) {
        self.candidates.clear();
        self.seen = 0;
    }

    pub(super) fn of(&mut self, w: &Window<'_>) -> Option<f64> {
        // Between two windows there may be samples of neither.
        let from = self.seen.max(w.from);
        for (number, value) in w.values.iter().enumerate().skip(from - w.from) {
            self.take(w.from + number, *value);
        }
        self.seen = w.from + w.values.len();
        while self.candidates.front().is_some_and(|(number, _)| *number < w.from) {
            self.candidates.pop_front();
        }
        self.candidates.front().map(|(_, value)| *value)
    }

    fn take(&mut self, number: usize, value: f64) {
        // NaN gives way to any number.
        let largest = self.largest;
        let beaten = |old: f64| old.is_nan() || if largest { old < value } else { old > value };
        while self.candidates.back().is_some_and(|(_, old)| beaten(*old)) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((number, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_the_extreme_of_its_samples() {
        let mut rng = fastrand::Rng::with_seed(3);
        for largest in [false, true] {
            for round in 0..200 {
                let of = |rng: &mut fastrand::Rng| {
                    if rng.u8(..6) == 0 { f64::NAN } else { f64::from(rng.u8(..9)) }
                };
                let values: Vec<f64> = (0..40).map(|_| of(&mut rng)).collect();
                let (length, stride) = (rng.usize(1..12), rng.usize(1..9));
                let mut extreme = Extreme::new(largest);
                extreme.start();
                for from in (0..40 - length).step_by(stride) {
                    let window = Window::part_of(&values, from, length);
                    let part = window.values;
                    let numbers = part.iter().copied().filter(|v| !v.is_nan());
                    let want = numbers.reduce(if largest { f64::max } else { f64::min }).unwrap_or(f64::NAN);
                    let got = extreme.of(&window).unwrap();
                    assert!(
                        got == want || (got.is_nan() && want.is_nan()),
                        "{largest} {round}: {part:?} {got}"
                    );
                }
            }
        }
    }
}
