//! The accumulator of an aggregation for one group at one step.

use super::fold::Column;
use crate::node::engine::{buffers::Numbers, error::EvalError, meter::Held, sums::Mean, value::present};

/// A cell a step; none where no series had a value.
pub(super) struct Cells<C>(Vec<Option<C>>);

impl<C: Cell> Column for Cells<C> {
    const STEP_BYTES: usize = size_of::<Option<C>>();

    fn new(steps: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(steps).collect())
    }

    fn add(&mut self, values: &mut Numbers, _: &mut Held<'_>) -> Result<(), EvalError> {
        for (cell, value) in self.0.iter_mut().zip(values.iter()) {
            if let Some(value) = present(*value) {
                match cell {
                    Some(cell) => cell.add(value),
                    None => *cell = Some(C::first(value)),
                }
            }
        }
        Ok(())
    }

    fn finish(self, _: &[f64], out: &mut [f64]) {
        for (cell, value) in self.0.into_iter().zip(out) {
            if let Some(cell) = cell {
                *value = cell.result();
            }
        }
    }
}

/// The accumulator of an aggregation for one group at one step.
pub(super) trait Cell: Sized {
    fn first(value: f64) -> Self;
    fn add(&mut self, value: f64);
    fn result(self) -> f64;
}

pub(super) struct Avg(Mean);

impl Cell for Avg {
    fn first(value: f64) -> Self {
        Self(Mean::new(value))
    }

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn result(self) -> f64 {
        self.0.value()
    }
}

/// NaN gives way to any number.
pub(super) struct Min(f64);

impl Cell for Min {
    fn first(value: f64) -> Self {
        Self(value)
    }

    fn add(&mut self, value: f64) {
        if self.0 > value || self.0.is_nan() {
            self.0 = value;
        }
    }

    fn result(self) -> f64 {
        self.0
    }
}

/// NaN gives way to any number.
pub(super) struct Max(f64);

impl Cell for Max {
    fn first(value: f64) -> Self {
        Self(value)
    }

    fn add(&mut self, value: f64) {
        if self.0 < value || self.0.is_nan() {
            self.0 = value;
        }
    }

    fn result(self) -> f64 {
        self.0
    }
}

pub(super) struct Group;

impl Cell for Group {
    fn first(_: f64) -> Self {
        Self
    }

    fn add(&mut self, _: f64) {}

    fn result(self) -> f64 {
        1.0
    }
}

/// Welford's running variance.
pub(super) struct Stdvar {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Cell for Stdvar {
    fn first(value: f64) -> Self {
        let squares = if value.is_finite() { 0.0 } else { f64::NAN };
        Self { count: 1.0, mean: value, squares }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn result(self) -> f64 {
        self.squares / self.count
    }
}

pub(super) struct Stddev(Stdvar);

impl Cell for Stddev {
    fn first(value: f64) -> Self {
        Self(Stdvar::first(value))
    }

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn result(self) -> f64 {
        self.0.result().sqrt()
    }
}
