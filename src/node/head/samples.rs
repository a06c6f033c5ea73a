//! The samples of one series, in runs of columns.

use std::fmt;

use crate::{base::TimeRange, node::engine::Samples};

/// A run is sealed at this length.
const RUN: usize = 240;

/// What new samples are held against.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Earliest time accepted at all.
    pub oldest: i64,
    /// Earliest time accepted behind a series' own newest sample; `i64::MAX` accepts none.
    pub late_from: i64,
    /// Latest time accepted.
    pub newest: i64,
}

/// Why a sample is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Same time, other value.
    Duplicate,
    /// Behind the series' newest sample where nothing late is accepted.
    OutOfOrder,
    /// Older than the out-of-order window or the retention reaches.
    TooOld,
    /// Too far ahead of the clock.
    TooFarAhead,
    /// Its series is new, and there are as many as there may be.
    SeriesLimit,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "duplicate sample for timestamp",
            Self::OutOfOrder => "out of order sample",
            Self::TooOld => "too old sample",
            Self::TooFarAhead => "sample too far in the future",
            Self::SeriesLimit => "the limit of series is reached, no new series",
        })
    }
}

/// Samples in time order; times are distinct.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
}

#[derive(Debug, Default)]
struct Run {
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Run {
    fn bounds(&self) -> Option<(i64, i64)> {
        Some((*self.times.first()?, *self.times.last()?))
    }

    fn insert(&mut self, at: usize, time: i64, value: f64) {
        self.times.insert(at, time);
        self.values.insert(at, value);
    }

    /// Which of its samples are inside the window.
    fn inside(&self, window: TimeRange) -> std::ops::Range<usize> {
        let from = self.times.partition_point(|t| *t < window.start);
        from..self.times.partition_point(|t| *t <= window.end).max(from)
    }
}

impl Runs {
    /// The newest sample.
    pub fn last(&self) -> Option<(i64, f64)> {
        let run = self.runs.last()?;
        Some((*run.times.last()?, *run.values.last()?))
    }

    /// The oldest time.
    pub fn first_time(&self) -> Option<i64> {
        self.runs.first()?.times.first().copied()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether a sample is news (`true`), already there (`false`) or refused. `pending` is the newest sample of the
    /// same write that is not in here yet.
    pub fn check(
        &self,
        time: i64,
        value: f64,
        pending: Option<(i64, f64)>,
        rules: Rules,
    ) -> Result<bool, Refusal> {
        if time > rules.newest {
            return Err(Refusal::TooFarAhead);
        }
        if time < rules.oldest {
            return Err(Refusal::TooOld);
        }
        let last = match (self.last(), pending) {
            (Some(held), Some(new)) => Some(if new.0 > held.0 { new } else { held }),
            (held, new) => held.or(new),
        };
        match last {
            Some(last) if time == last.0 => Self::same(last.1, value),
            Some(last) if time < last.0 => {
                if rules.late_from == i64::MAX {
                    return Err(Refusal::OutOfOrder);
                }
                if time < rules.late_from {
                    return Err(Refusal::TooOld);
                }
                self.at(time).map_or(Ok(true), |held| Self::same(held, value))
            }
            _ => Ok(true),
        }
    }

    fn same(held: f64, value: f64) -> Result<bool, Refusal> {
        // Bits, because a stale marker equals itself and 0 is not -0.
        if held.to_bits() == value.to_bits() { Ok(false) } else { Err(Refusal::Duplicate) }
    }

    fn at(&self, time: i64) -> Option<f64> {
        let run = self.runs.get(self.run_of(time))?;
        run.times.binary_search(&time).ok().and_then(|i| run.values.get(i)).copied()
    }

    /// The first run that ends at `time` or later.
    fn run_of(&self, time: i64) -> usize {
        self.runs.partition_point(|run| run.bounds().is_none_or(|(_, last)| last < time))
    }

    /// Adds a sample; one that is there for the same time stays. Whether it was added.
    pub fn insert(&mut self, time: i64, value: f64) -> bool {
        if self.last().is_none_or(|(last, _)| time > last) {
            self.push(time, value);
            return true;
        }
        let at = self.run_of(time);
        let Some(run) = self.runs.get_mut(at) else { return false };
        let Err(place) = run.times.binary_search(&time) else { return false };
        run.insert(place, time, value);
        if run.times.len() >= 2 * RUN {
            let (times, values) = (run.times.split_off(RUN), run.values.split_off(RUN));
            self.runs.insert(at + 1, Run { times, values });
        }
        true
    }

    fn push(&mut self, time: i64, value: f64) {
        if self.runs.last().is_none_or(|run| run.times.len() >= RUN) {
            if let Some(sealed) = self.runs.last_mut() {
                sealed.times.shrink_to_fit();
                sealed.values.shrink_to_fit();
            }
            self.runs.push(Run::default());
        }
        if let Some(run) = self.runs.last_mut() {
            run.times.push(time);
            run.values.push(value);
        }
    }

    /// Appends the samples of the window to `into`.
    pub fn collect(&self, window: TimeRange, into: &mut Samples) {
        for run in self.overlapping(window) {
            let inside = run.inside(window);
            into.times.extend_from_slice(run.times.get(inside.clone()).unwrap_or_default());
            into.values.extend_from_slice(run.values.get(inside).unwrap_or_default());
        }
    }

    /// Number of samples in the window.
    pub fn count(&self, window: TimeRange) -> u64 {
        self.overlapping(window).map(|run| run.inside(window).len() as u64).sum()
    }

    /// Whether there is a sample in the window.
    pub fn touches(&self, window: TimeRange) -> bool {
        self.overlapping(window).any(|run| !run.inside(window).is_empty())
    }

    fn overlapping(&self, window: TimeRange) -> impl Iterator<Item = &Run> {
        let from = self.run_of(window.start);
        let rest = self.runs.get(from..).unwrap_or_default();
        rest.iter().take_while(move |run| run.bounds().is_some_and(|(first, _)| first <= window.end))
    }

    /// Forgets what is older than `time`; how many samples.
    pub fn drop_before(&mut self, time: i64) -> u64 {
        let whole = self.run_of(time);
        let mut dropped: usize = self.runs.drain(..whole).map(|run| run.times.len()).sum();
        if let Some(run) = self.runs.first_mut() {
            let from = run.times.partition_point(|t| *t < time);
            run.times.drain(..from);
            run.values.drain(..from);
            dropped += from;
        }
        dropped as u64
    }
}
