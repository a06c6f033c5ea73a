//! Aggregations that make one value out of many: `sum`, `avg`, `quantile` and their like.

use super::{Groups, Node, group_of};
use crate::node::engine::{
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
    functions::{self, Kahan, Mean},
    labels::Labels,
    value::{Series, present},
};

/// What an aggregation knows of one group at one step.
pub(super) trait Cell: Sized {
    /// Whether the operator has a parameter.
    const PARAMETER: bool = false;
    /// Points that one more value makes a cell hold.
    const GROWS: u64 = 0;

    fn first(value: f64) -> Self;
    fn add(&mut self, value: f64);
    fn result(self, parameter: f64) -> f64;
}

pub(super) struct Sum(Kahan);

impl Cell for Sum {
    fn first(value: f64) -> Self {
        Self(Kahan { sum: value, lost: 0.0 })
    }

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn result(self, _: f64) -> f64 {
        self.0.sum + self.0.lost
    }
}

pub(super) struct Avg(Mean);

impl Cell for Avg {
    fn first(value: f64) -> Self {
        Self(Mean::new(value))
    }

    fn add(&mut self, value: f64) {
        self.0.add(value);
    }

    fn result(self, _: f64) -> f64 {
        self.0.value()
    }
}

pub(super) struct Count(u64);

impl Cell for Count {
    fn first(_: f64) -> Self {
        Self(1)
    }

    fn add(&mut self, _: f64) {
        self.0 += 1;
    }

    fn result(self, _: f64) -> f64 {
        self.0 as f64
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

    fn result(mut self, parameter: f64) -> f64 {
        functions::quantile(parameter, &mut self.0)
    }
}

/// A group, and what is known of it at each step.
struct Folded<C> {
    labels: Labels,
    drop_name: bool,
    cells: Vec<Option<C>>,
}

pub(super) fn stream<C: Cell>(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let parameters = match node.param {
        Some(id) if C::PARAMETER => {
            let values = eval.scalars(id)?;
            for q in &values {
                functions::check_quantile(eval, *q, id);
            }
            values
        }
        None if C::PARAMETER => return execution("the aggregation needs a parameter"),
        _ => vec![0.0; eval.grid.count],
    };
    let steps = eval.grid.count;
    // A cell is a few floats wide.
    let width = (size_of::<Option<C>>() as u64).div_ceil(8);
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::default();
    let mut folded: Vec<Folded<C>> = Vec::new();
    eval.stream(node.expr, &mut |series| {
        let labels = group_of(node.grouping, &series.labels);
        let (number, new) = groups.number(labels.clone());
        if new {
            held.grow(width.saturating_mul(steps as u64))?;
            let cells = std::iter::repeat_with(|| None).take(steps).collect();
            folded.push(Folded { labels, drop_name: false, cells });
        }
        held.grow(C::GROWS * steps as u64)?;
        let Some(group) = folded.get_mut(number) else { return Ok(()) };
        group.drop_name |= series.drop_name;
        for (cell, value) in group.cells.iter_mut().zip(&series.values) {
            if let Some(value) = present(*value) {
                match cell {
                    Some(cell) => cell.add(value),
                    None => *cell = Some(C::first(value)),
                }
            }
        }
        Ok(())
    })?;
    for group in folded {
        let mut out = Series::holes(group.labels, group.drop_name, steps);
        for ((cell, parameter), value) in group.cells.into_iter().zip(&parameters).zip(&mut out.values) {
            if let Some(cell) = cell {
                *value = cell.result(*parameter);
            }
        }
        emit(&mut out, sink)?;
    }
    Ok(())
}
