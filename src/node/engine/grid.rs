//! The steps of an evaluation.

use crate::base::time::EvalTimes;

/// Evenly spaced times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) start: i64,
    /// At least 1.
    pub(super) step: i64,
    pub(super) count: usize,
}

impl Grid {
    pub(super) fn of(times: EvalTimes) -> Self {
        let count = if times.end < times.start { 0 } else { times.steps() as usize };
        Self { start: times.start, step: (times.step as i64).max(1), count }
    }

    /// The steps of a subquery: multiples of `step` in the half-open `(after, until]`.
    pub(super) fn aligned(after: i64, until: i64, step: i64) -> Self {
        let step = step.max(1);
        let start = after.div_euclid(step).saturating_add(1).saturating_mul(step);
        let count = if until < start { 0 } else { (until.saturating_sub(start) / step) as usize + 1 };
        Self { start, step, count }
    }

    /// Only the first step.
    pub(super) fn first(self) -> Self {
        Self { count: self.count.min(1), ..self }
    }

    #[inline]
    pub(super) fn time(self, step: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(step as i64))
    }

    pub(super) fn last_time(self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    #[inline]
    pub(super) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |step| self.time(step))
    }
}
