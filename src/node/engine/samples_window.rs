//! The samples that one step sees of a range vector's series.

use crate::promql::ast::Edges;

/// The samples of one series that a step sees, in the left-open `(start, end]`. With `anchored` and `smoothed` edges the
/// columns reach past the window by the lookback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'w> {
    pub(super) times: &'w [i64],
    pub(super) values: &'w [f64],
    /// How many samples of the series come before the first.
    pub(super) from: usize,
    /// Empty where starts are not known.
    pub(super) starts: &'w [i64],
    pub(super) start: i64,
    pub(super) end: i64,
    /// The evaluation time.
    pub(super) at: i64,
    pub(super) edges: Edges,
}

#[cfg(test)]
impl<'w> Window<'w> {
    /// `length` values of a series, from the one with the number `from` on.
    pub(super) fn part_of(values: &'w [f64], from: usize, length: usize) -> Self {
        let values = &values[from..from + length];
        Self { times: &[], values, from, starts: &[], start: 0, end: 0, at: 0, edges: Edges::Plain }
    }
}

impl Window<'_> {
    /// Length in seconds, put together as Go's `Duration.Seconds` does: rounding shows in the last digit.
    #[inline]
    pub(super) fn seconds(&self) -> f64 {
        let ms = self.end.saturating_sub(self.start);
        (ms / 1_000) as f64 + (ms % 1_000 * 1_000_000) as f64 / 1e9
    }

    /// First time and value.
    #[inline]
    pub(super) fn first(&self) -> Option<(i64, f64)> {
        self.times.first().copied().zip(self.values.first().copied())
    }

    /// Last time and value.
    #[inline]
    pub(super) fn last(&self) -> Option<(i64, f64)> {
        self.times.last().copied().zip(self.values.last().copied())
    }
}
