//! What an aggregation knows of one group at one step.

use super::fold::Column;
use crate::node::engine::{
    functions::{self, Mean},
    value::present,
};

/// A cell a step; none where no series had a value.
pub(super) struct Cells<C>(Vec<Option<C>>);

impl<C: Cell> Column for Cells<C> {
    const PARAMETER: bool = C::PARAMETER;
    const GROWS: u64 = C::GROWS;
    const STEP_BYTES: usize = size_of::<Option<C>>();

    fn new(steps: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(steps).collect())
    }

    fn add(&mut self, values: &[f64]) {
        for (cell, value) in self.0.iter_mut().zip(values) {
            if let Some(value) = present(*value) {
                match cell {
                    Some(cell) => cell.add(value),
                    None => *cell = Some(C::first(value)),
                }
            }
        }
    }

    fn merge(&mut self, later: Self) {
        for (cell, later) in self.0.iter_mut().zip(later.0) {
            match (cell, later) {
                (Some(cell), Some(later)) => cell.merge(later),
                (cell @ None, later) => *cell = later,
                (Some(_), None) => {}
            }
        }
    }

    fn finish(self, parameters: &[f64], out: &mut [f64]) {
        for ((cell, parameter), value) in self.0.into_iter().zip(parameters).zip(out) {
            if let Some(cell) = cell {
                *value = cell.result(*parameter);
            }
        }
    }
}

/// What an aggregation knows of one group at one step.
pub(super) trait Cell: Sized + Send {
    /// Whether the operator has a parameter.
    const PARAMETER: bool = false;
    /// Points that one more value makes a cell hold.
    const GROWS: u64 = 0;

    fn first(value: f64) -> Self;
    fn add(&mut self, value: f64);
    /// Takes in what is known of series that come later.
    fn merge(&mut self, later: Self);
    fn result(self, parameter: f64) -> f64;
}

pub(super) struct Avg(Mean);

impl Cell for Avg {
    fn first(value: f64) -> Self {
        Self(Mean::new(value))
    }

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn merge(&mut self, later: Self) {
        self.0.merge(later.0);
    }

    fn result(self, _: f64) -> f64 {
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

    fn merge(&mut self, later: Self) {
        self.add(later.0);
    }

    fn result(self, _: f64) -> f64 {
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

    fn merge(&mut self, later: Self) {
        self.add(later.0);
    }

    fn result(self, _: f64) -> f64 {
        self.0
    }
}

pub(super) struct Group;

impl Cell for Group {
    fn first(_: f64) -> Self {
        Self
    }

    fn add(&mut self, _: f64) {}

    fn merge(&mut self, _: Self) {}

    fn result(self, _: f64) -> f64 {
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

    fn merge(&mut self, later: Self) {
        // Chan's formula for the variance of two sets.
        let count = self.count + later.count;
        let delta = later.mean - self.mean;
        self.squares += later.squares + delta * delta * self.count * later.count / count;
        self.mean += delta * later.count / count;
        self.count = count;
    }

    fn result(self, _: f64) -> f64 {
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

    fn merge(&mut self, later: Self) {
        self.0.merge(later.0);
    }

    fn result(self, parameter: f64) -> f64 {
        self.0.result(parameter).sqrt()
    }
}

pub(super) struct Quantile(Vec<f64>);

impl Cell for Quantile {
    const PARAMETER: bool = true;
    const GROWS: u64 = 1;

    fn first(value: f64) -> Self {
        Self(vec![value])
    }

    fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    fn result(mut self, parameter: f64) -> f64 {
        functions::quantile(parameter, &mut self.0)
    }
}
