//! Values: of one series over the steps of an evaluation, and of a whole query.

use std::collections::{HashMap, hash_map::Entry};

use super::{
    error::{EvalError, execution},
    labels::Labels,
    meter::Held,
};

/// The bits of the NaN that ends a series in Prometheus' storage.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// "No value at this step". Arithmetic only ever makes quiet NaNs and a literal is never this one, so no computed value
/// can be mistaken for it.
pub(super) const HOLE: f64 = f64::from_bits(STALE_NAN);

/// Whether a value marks the end of a series.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN
}

/// The value, unless it is a hole.
#[inline]
pub(super) fn present(value: f64) -> Option<f64> {
    (!is_stale(value)).then_some(value)
}

/// A series of an instant vector over all steps of an evaluation.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// The name is dropped from the final result: until then label functions may still use it.
    pub(super) drop_name: bool,
    /// One value a step, [`HOLE`] where there is none.
    pub(super) values: Vec<f64>,
}

impl Series {
    /// A series without a value at any of `steps` steps.
    pub(super) fn holes(labels: Labels, drop_name: bool, steps: usize) -> Self {
        Self { labels, drop_name, values: vec![HOLE; steps] }
    }

    #[inline]
    pub(super) fn at(&self, step: usize) -> Option<f64> {
        self.values.get(step).copied().and_then(present)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().copied().all(is_stale)
    }

    /// Replaces every present value; `None` makes a hole.
    pub(super) fn map(&mut self, mut f: impl FnMut(usize, f64) -> Option<f64>) {
        for (step, value) in self.values.iter_mut().enumerate() {
            if !is_stale(*value) {
                *value = f(step, *value).unwrap_or(HOLE);
            }
        }
    }
}

/// Series held at once, and the share of the limit that they draw.
pub(super) struct Matrix<'a> {
    pub(super) series: Vec<Series>,
    pub(super) held: Held<'a>,
}

impl Matrix<'_> {
    /// With the series of another one behind its own.
    #[must_use]
    pub(super) fn and(mut self, mut other: Self) -> Self {
        self.series.append(&mut other.series);
        self.held.absorb(other.held);
        self
    }
}

/// Brings values of the same labels together into one series, as long as they are not at the same step.
pub(super) struct Merged<'a> {
    /// By labels, and whether the name among them is to be dropped.
    index: HashMap<(Labels, bool), usize>,
    pub(super) matrix: Matrix<'a>,
    steps: usize,
}

impl<'a> Merged<'a> {
    pub(super) fn new(held: Held<'a>, steps: usize) -> Self {
        Self { index: HashMap::new(), matrix: Matrix { series: Vec::new(), held }, steps }
    }

    /// The place of the series with these labels, made if need be.
    pub(super) fn slot(&mut self, labels: Labels, drop_name: bool) -> Result<usize, EvalError> {
        let key = (labels, drop_name);
        if let Some(&slot) = self.index.get(&key) {
            return Ok(slot);
        }
        self.matrix.held.grow(self.steps as u64)?;
        let slot = self.matrix.series.len();
        self.matrix.series.push(Series::holes(key.0.clone(), drop_name, self.steps));
        self.index.insert(key, slot);
        Ok(slot)
    }

    pub(super) fn put(&mut self, slot: usize, step: usize, value: f64) -> Result<(), EvalError> {
        let cell = self.matrix.series.get_mut(slot).and_then(|s| s.values.get_mut(step));
        match cell {
            Some(cell) if is_stale(*cell) => *cell = value,
            Some(_) => return execution("vector cannot contain metrics with the same labelset"),
            None => {}
        }
        Ok(())
    }

    /// Takes a whole series in.
    pub(super) fn add(&mut self, series: &mut Series) -> Result<(), EvalError> {
        self.take(series, self.steps as u64)
    }

    /// Takes a series in that is counted already.
    pub(super) fn add_held(&mut self, series: &mut Series) -> Result<(), EvalError> {
        self.take(series, 0)
    }

    fn take(&mut self, series: &mut Series, points: u64) -> Result<(), EvalError> {
        let slot = match self.index.entry((series.labels.clone(), series.drop_name)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.matrix.held.grow(points)?;
                new.insert(self.matrix.series.len());
                let values = std::mem::take(&mut series.values);
                let Series { labels, drop_name, .. } = series;
                self.matrix.series.push(Series { labels: labels.clone(), drop_name: *drop_name, values });
                return Ok(());
            }
        };
        for (step, value) in series.values.iter().enumerate() {
            if let Some(value) = present(*value) {
                self.put(slot, step, value)?;
            }
        }
        Ok(())
    }
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// One series of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its labels.
    pub labels: Labels,
    /// Times in milliseconds and values, in time order.
    pub points: Vec<(i64, f64)>,
}

/// What a query evaluates to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number, of an instant query.
    Scalar(f64),
    /// A string literal.
    String(Box<str>),
    /// Samples at the instant asked for, in the order that the query gives them.
    Vector(Vec<Point>),
    /// Series sorted by labels.
    Matrix(Vec<Row>),
}
