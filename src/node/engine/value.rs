//! Values: of one series over the steps of an evaluation, and of a whole query.

use std::fmt;

use super::{
    buffers::{Numbers, Pooled},
    error::{EvalError, execution},
    grid::Grid,
    meter::{Held, Meter, POINT_BYTES},
    places::Places,
};
use crate::series::{Labels, STALE_NAN, Samples, is_stale};

/// "No value at this step". Arithmetic only ever makes quiet NaNs and a literal is never this one, so no computed value
/// can be mistaken for it.
pub(super) const HOLE: f64 = f64::from_bits(STALE_NAN);

/// The value, unless it is a hole.
#[inline]
pub(super) fn present(value: f64) -> Option<f64> {
    (!is_stale(value)).then_some(value)
}

/// A series of an instant vector over all steps of an evaluation.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// The name is dropped from the final result: until then label functions may still use it.
    pub(super) drop_name: bool,
    /// One value a step, [`HOLE`] where there is none.
    pub(super) values: Numbers,
}

impl Series {
    /// A series without a value at any of `steps` steps.
    pub(super) fn empty_row(
        labels: Labels,
        drop_name: bool,
        steps: usize,
        meter: &Meter<'_>,
    ) -> Result<Self, EvalError> {
        Ok(Self { labels, drop_name, values: meter.column_of(HOLE, steps)? })
    }

    /// A series to be filled again and again; it has neither labels nor values yet.
    pub(super) fn blank() -> Self {
        Self { labels: Labels::default(), drop_name: false, values: Numbers::default() }
    }

    /// The values of this series with its labels, taken out of it.
    pub(super) fn take(&mut self) -> Self {
        let values = std::mem::take(&mut self.values);
        Self { labels: self.labels.clone(), drop_name: self.drop_name, values }
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

/// Bytes that a series takes beside its place in a list. Its labels count as if they were its own, though those of a
/// stored series are the storage's; leased values are charged already.
fn bytes_of(series: &Series) -> u64 {
    let own = if series.values.is_own() { series.values.len() as u64 * POINT_BYTES } else { 0 };
    own.saturating_add(series.labels.bytes() as u64)
}

impl Held<'_> {
    /// Counts a series that is to be held.
    pub(super) fn keep(&mut self, series: &Series) -> Result<(), EvalError> {
        self.count(series.values.len() as u64)?;
        self.borrow(bytes_of(series))
    }

    /// Counts a series no longer.
    pub(super) fn let_go(&mut self, series: &Series) {
        self.discount(series.values.len() as u64);
        self.give_back(bytes_of(series));
    }
}

/// Series held at once, and the share of the limit that they draw.
pub(super) struct Matrix<'a> {
    pub(super) series: Vec<Series>,
    pub(super) held: Held<'a>,
}

impl Matrix<'_> {
    /// Takes a series in; its buffers are empty then.
    pub(super) fn push(&mut self, series: &mut Series) -> Result<(), EvalError> {
        self.held.keep(series)?;
        self.held.push(&mut self.series, series.take())
    }
}

/// Brings values of the same labels together into one series, as long as they are not at the same step.
pub(super) struct Merged<'a> {
    /// By labels, and whether the name among them is to be dropped.
    places: Places,
    pub(super) matrix: Matrix<'a>,
    steps: usize,
}

impl<'a> Merged<'a> {
    pub(super) fn new(held: Held<'a>, steps: usize) -> Self {
        Self { places: Places::default(), matrix: Matrix { series: Vec::new(), held }, steps }
    }

    /// The hash of the labels, and the place of the series with them.
    fn find(&self, labels: &Labels, drop_name: bool) -> (u64, Option<usize>) {
        let hash = self.places.hash([labels]);
        let same = |place: usize| {
            self.matrix
                .series
                .get(place)
                .is_some_and(|known| known.drop_name == drop_name && known.labels == *labels)
        };
        (hash, self.places.find(hash, same))
    }

    /// The place of the series with these labels, made if need be.
    pub(super) fn slot(&mut self, labels: Labels, drop_name: bool) -> Result<usize, EvalError> {
        let (hash, known) = self.find(&labels, drop_name);
        if let Some(place) = known {
            return Ok(place);
        }
        let mut series = Series::empty_row(labels, drop_name, self.steps, self.matrix.held.meter)?;
        self.insert(hash, &mut series)
    }

    fn insert(&mut self, hash: u64, series: &mut Series) -> Result<usize, EvalError> {
        let place = self.matrix.series.len();
        self.places.insert(hash, place, &mut self.matrix.held)?;
        self.matrix.push(series)?;
        Ok(place)
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
        let (hash, known) = self.find(&series.labels, series.drop_name);
        let Some(place) = known else {
            return self.insert(hash, series).map(drop);
        };
        for (step, value) in series.values.iter().enumerate() {
            if let Some(value) = present(*value) {
                self.put(place, step, value)?;
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
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Its labels.
    pub labels: Labels,
    /// Its samples.
    pub points: Points,
}

/// The samples of one series of an answer, in memory that goes back to the node with them.
pub struct Points(Kept);

enum Kept {
    /// One a step, but for holes.
    Steps(Grid, Numbers),
    Samples(Pooled<Samples>),
}

impl Points {
    pub(super) fn of_steps(grid: Grid, values: Numbers) -> Self {
        Self(Kept::Steps(grid, values))
    }

    pub(super) fn of_samples(samples: Pooled<Samples>) -> Self {
        Self(Kept::Samples(samples))
    }

    /// Times in milliseconds and values, in time order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        (0..self.places()).filter_map(|place| self.at(place))
    }

    /// How many places there are to look for a sample at.
    pub fn places(&self) -> usize {
        match &self.0 {
            Kept::Steps(_, values) => values.len(),
            Kept::Samples(samples) => samples.len(),
        }
    }

    /// The sample at a place, if there is one.
    #[inline]
    pub fn at(&self, place: usize) -> Option<(i64, f64)> {
        match &self.0 {
            Kept::Steps(grid, values) => Some((grid.time(place), present(*values.get(place)?)?)),
            Kept::Samples(samples) => Some((*samples.times.get(place)?, *samples.values.get(place)?)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl PartialEq for Points {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The result of a query.
#[derive(Debug, PartialEq)]
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

impl Value {
    /// Leaves the first `most` series, and says whether there were more.
    pub fn truncate(&mut self, most: usize) -> bool {
        let before = match self {
            Self::Scalar(_) | Self::String(_) => return false,
            Self::Vector(points) => {
                let before = points.len();
                points.truncate(most);
                before
            }
            Self::Matrix(rows) => {
                let before = rows.len();
                rows.truncate(most);
                before
            }
        };
        before > most
    }
}
