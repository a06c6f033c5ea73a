//! The samples of one series, in runs of columns.

use std::fmt;

use crate::{base::TimeRange, node::chunk, series::Samples};

/// A run is sealed at this length.
const RUN: usize = 240;

/// The rules for new samples.
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
    /// Its series is new, and the limit on series is reached.
    SeriesLimit,
    /// Its series cannot be stored, with any sample.
    Series,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "duplicate sample for timestamp",
            Self::OutOfOrder => "out of order sample",
            Self::TooOld => "too old sample",
            Self::TooFarAhead => "sample too far in the future",
            Self::SeriesLimit => "the limit of series is reached, no new series",
            Self::Series => "the series cannot be stored",
        })
    }
}

/// Samples in time order; times are distinct.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    newest: Option<(i64, f64)>,
}

/// At most twice [`RUN`] samples, never none.
#[derive(Debug)]
struct Run {
    first: i64,
    last: i64,
    count: usize,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Open {
        times: Vec<i64>,
        values: Vec<f64>,
    },
    /// A chunk.
    Sealed(Box<[u8]>),
}

impl Run {
    /// `None` without samples.
    fn new(times: Vec<i64>, values: Vec<f64>) -> Option<Self> {
        let (first, last) = (*times.first()?, *times.last()?);
        Some(Self { first, last, count: times.len(), data: Data::Open { times, values } })
    }

    fn seal(&mut self) {
        let Data::Open { times, values } = &self.data else { return };
        let mut bytes = Vec::new();
        // Samples that do not fit a chunk stay open; a run is far shorter than one may be.
        if chunk::encode(times, values, &mut bytes).is_ok() {
            self.data = Data::Sealed(bytes.into());
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.data, Data::Open { .. })
    }

    /// Its samples in columns of their own.
    fn columns(&self) -> (Vec<i64>, Vec<f64>) {
        match &self.data {
            Data::Open { times, values } => (times.clone(), values.clone()),
            Data::Sealed(bytes) => {
                let (mut times, mut values) = (Vec::new(), Vec::new());
                // This process wrote the chunk a moment ago into its own memory, so it is sound.
                let _ = chunk::decode_into(bytes, &mut times, &mut values);
                (times, values)
            }
        }
    }

    fn within(&self, window: TimeRange) -> bool {
        self.first >= window.start && self.last <= window.end
    }

    /// How many of its samples are inside the window.
    fn count_inside(&self, window: TimeRange) -> usize {
        if self.within(window) {
            return self.count;
        }
        match &self.data {
            Data::Open { times, .. } => inside(times, window).len(),
            Data::Sealed(_) => inside(&self.columns().0, window).len(),
        }
    }

    fn collect(&self, window: TimeRange, into: &mut Samples) {
        match &self.data {
            Data::Sealed(bytes) if self.within(window) => {
                let _ = chunk::decode_into(bytes, &mut into.times, &mut into.values);
            }
            Data::Sealed(_) => {
                let (times, values) = self.columns();
                copy(&times, &values, window, into);
            }
            Data::Open { times, values } => copy(times, values, window, into),
        }
    }
}

/// Which of the times are inside the window.
fn inside(times: &[i64], window: TimeRange) -> std::ops::Range<usize> {
    let from = times.partition_point(|t| *t < window.start);
    from..times.partition_point(|t| *t <= window.end).max(from)
}

fn copy(times: &[i64], values: &[f64], window: TimeRange, into: &mut Samples) {
    let inside = inside(times, window);
    into.times.extend_from_slice(times.get(inside.clone()).unwrap_or_default());
    into.values.extend_from_slice(values.get(inside).unwrap_or_default());
}

impl Runs {
    /// The newest sample.
    pub fn last(&self) -> Option<(i64, f64)> {
        self.newest
    }

    /// The oldest time.
    pub fn first_time(&self) -> Option<i64> {
        Some(self.runs.first()?.first)
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

    /// The value at this time.
    pub fn at(&self, time: i64) -> Option<f64> {
        let run = self.runs.get(self.run_of(time))?;
        let (times, values) = run.columns();
        times.binary_search(&time).ok().and_then(|i| values.get(i)).copied()
    }

    /// The first run that ends at `time` or later.
    fn run_of(&self, time: i64) -> usize {
        self.runs.partition_point(|run| run.last < time)
    }

    /// Adds a sample; one that is there for the same time stays. Whether it was added.
    pub fn insert(&mut self, time: i64, value: f64) -> bool {
        if self.last().is_none_or(|(last, _)| time > last) {
            self.push(time, value);
            return true;
        }
        let at = self.run_of(time);
        let Some(run) = self.runs.get_mut(at) else {
            // The samples between it and the newest are sealed.
            self.runs.extend(Run::new(vec![time], vec![value]));
            return true;
        };
        let open = run.is_open();
        let (mut times, mut values) = run.columns();
        let Err(place) = times.binary_search(&time) else { return false };
        times.insert(place, time);
        values.insert(place, value);
        let behind = (times.len() >= 2 * RUN).then(|| (times.split_off(RUN), values.split_off(RUN)));
        if let Some(grown) = Run::new(times, values) {
            *run = grown;
        }
        if !open || behind.is_some() {
            run.seal();
        }
        if let Some(mut behind) = behind.and_then(|(times, values)| Run::new(times, values)) {
            if !open {
                behind.seal();
            }
            self.runs.insert(at + 1, behind);
        }
        true
    }

    fn push(&mut self, time: i64, value: f64) {
        self.newest = Some((time, value));
        if let Some(run) = self.runs.last_mut() {
            if let Data::Open { times, values } = &mut run.data
                && times.len() < RUN
            {
                times.push(time);
                values.push(value);
                (run.last, run.count) = (time, run.count + 1);
                return;
            }
            run.seal();
        }
        self.runs.extend(Run::new(vec![time], vec![value]));
    }

    /// Appends the samples of the window to `into`.
    pub fn collect(&self, window: TimeRange, into: &mut Samples) {
        for run in self.overlapping(window) {
            run.collect(window, into);
        }
    }

    /// Number of samples in the window.
    pub fn count(&self, window: TimeRange) -> u64 {
        self.overlapping(window).map(|run| run.count_inside(window) as u64).sum()
    }

    /// Samples of the runs that the window touches.
    pub fn expected(&self, window: TimeRange) -> usize {
        self.overlapping(window).map(|run| run.count).sum()
    }

    /// Bytes of the runs that the window touches.
    pub fn stored_bytes(&self, window: TimeRange) -> u64 {
        let bytes = |run: &Run| match &run.data {
            Data::Open { times, .. } => times.len() * 16,
            Data::Sealed(chunk) => chunk.len(),
        };
        self.overlapping(window).map(|run| bytes(run) as u64).sum()
    }

    /// Whether there is a sample in the window.
    pub fn touches(&self, window: TimeRange) -> bool {
        self.overlapping(window).any(|run| run.count_inside(window) > 0)
    }

    fn overlapping(&self, window: TimeRange) -> impl Iterator<Item = &Run> {
        let from = self.run_of(window.start);
        let rest = self.runs.get(from..).unwrap_or_default();
        rest.iter().take_while(move |run| run.first <= window.end)
    }

    /// The first run that holds `time` or something later begins here, or at `time` itself.
    pub fn next_time(&self, time: i64) -> Option<i64> {
        Some(self.runs.get(self.run_of(time))?.first.max(time))
    }

    /// How many chunks [`chunks`](Self::chunks) hands out.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Hands out all samples as chunks.
    ///
    /// # Errors
    /// That of `each`.
    pub fn chunks<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut bytes = Vec::new();
        for run in &self.runs {
            match &run.data {
                Data::Sealed(chunk) => each(chunk)?,
                Data::Open { times, values } => {
                    bytes.clear();
                    // A run is far shorter than a chunk may be, so this cannot fail.
                    chunk::encode(times, values, &mut bytes).ok();
                    each(&bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets samples older than `time`, but not which one was the newest; returns their number.
    pub fn drop_before(&mut self, time: i64) -> u64 {
        let whole = self.run_of(time);
        let mut dropped: usize = self.runs.drain(..whole).map(|run| run.count).sum();
        if let Some(run) = self.runs.first_mut().filter(|run| run.first < time) {
            let (mut times, mut values) = run.columns();
            let (open, from) = (run.is_open(), times.partition_point(|t| *t < time));
            if let Some(mut rest) = Run::new(times.split_off(from), values.split_off(from)) {
                if !open {
                    rest.seal();
                }
                *run = rest;
                dropped += from;
            }
        }
        dropped as u64
    }
}
