//! Instant vectors out of the storage.

use std::sync::Arc;

use super::{
    error::EvalError,
    eval::{Eval, Sink, emit},
    meter::Held,
    value::{HOLE, Series},
    workers::Part,
};
use crate::{
    base::TimeRange,
    node::storage::Selection,
    promql::ast::{Edges, Matcher, NodeId, Selector},
    series::{Labels, Samples, is_stale},
};

/// The part of a sample that becomes the value of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Its value.
    Value,
    /// Its time in seconds.
    Time,
    /// Its counter's start in seconds; nothing where starts are not known.
    Start,
    /// Its value, interpolated between its neighbours in time.
    Smoothed,
}

impl Take {
    /// The reading of a selector that no function takes as a range.
    pub(super) fn of(selector: &Selector) -> Self {
        if selector.edges == Edges::Smoothed { Self::Smoothed } else { Self::Value }
    }
}

/// The times at which an instant vector is looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup {
    pub(super) at: Option<i64>,
    pub(super) offset: i64,
}

impl Lookup {
    /// When a step looks.
    #[inline]
    pub(super) fn time(self, step: i64) -> i64 {
        self.at.unwrap_or(step).saturating_sub(self.offset)
    }
}

impl<'a> Eval<'a> {
    pub(super) fn select_instant(
        &self,
        id: NodeId,
        selector: &Selector,
        sink: Sink<'_>,
    ) -> Result<(), EvalError> {
        let planned = self.planned(id);
        let take = Take::of(selector);
        let lookup = Lookup { at: planned.at, offset: planned.offset };
        self.look_up(&selector.matchers, lookup, take, sink)
    }

    /// One value a step for every series that matches: the newest sample within the lookback.
    pub(super) fn look_up(
        &self,
        matchers: &[Matcher],
        lookup: Lookup,
        take: Take,
        sink: Sink<'_>,
    ) -> Result<(), EvalError> {
        let window = self.instant_window(lookup, take);
        let lookback = self.cx.lookback_ms;
        let mut series = Series::blank();
        self.read(matchers, window, &mut |labels, samples| {
            if take == Take::Smoothed {
                drop_stale(samples);
            }
            series.labels = labels.clone();
            series.drop_name = matches!(take, Take::Time | Take::Start);
            self.cx.meter.renew(&mut series.values, self.grid.count)?;
            let steps = self.grid.times().map(|time| lookup.time(time));
            if take == Take::Value {
                newest(samples, steps, lookback, &mut series.values);
            } else {
                let mut upto = 0;
                series.values.extend(steps.map(|at| {
                    while samples.times.get(upto).is_some_and(|t| *t <= at) {
                        upto += 1;
                    }
                    taken(samples, upto, at, at.saturating_sub(lookback), take).unwrap_or(HOLE)
                }));
            }
            let seen = series.values.iter().filter(|value| !is_stale(**value)).count();
            self.saw(seen as u64);
            emit(&mut series, sink)
        })
    }

    /// The times of all samples that any step may see.
    pub(super) fn instant_window(&self, lookup: Lookup, take: Take) -> TimeRange {
        let lookback = self.cx.lookback_ms;
        let ahead = if take == Take::Smoothed { lookback } else { 0 };
        TimeRange::new(
            lookup.time(self.grid.start).saturating_sub(lookback).saturating_add(1),
            lookup.time(self.grid.last_time()).saturating_add(ahead),
        )
    }

    /// The series that match, whose list counts.
    pub(super) fn select(
        &self,
        matchers: &[Matcher],
        window: TimeRange,
        held: &mut Held<'_>,
    ) -> Result<Arc<dyn Selection + 'a>, EvalError> {
        let selection: Arc<dyn Selection + 'a> = self.cx.storage.select(matchers, window)?.into();
        held.borrow((selection.series() * size_of::<usize>()) as u64)?;
        Ok(selection)
    }

    /// Reads series by series, counting.
    pub(super) fn read(
        &self,
        matchers: &[Matcher],
        window: TimeRange,
        each: &mut dyn FnMut(&Labels, &mut Samples) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        self.cx.meter.check()?;
        let mut held = self.cx.meter.hold();
        let part = match &self.part {
            Some(part) => part.clone(),
            None => {
                let selection = self.select(matchers, window, &mut held)?;
                Part { from: 0, to: selection.series(), selection }
            }
        };
        let mut samples = self.cx.meter.samples(part.selection.expected(part.from))?;
        for number in part.from..part.to {
            self.cx.meter.reserve(&mut samples, part.selection.expected(number))?;
            if let Some(labels) = part.selection.read(number, &mut samples)? {
                // As a rule there are no more than expected.
                samples.settle(&self.cx.meter)?;
                self.cx.meter.read(samples.len(), || part.selection.stored_bytes(number))?;
                each(labels, &mut samples)?;
            }
        }
        Ok(())
    }
}

/// The newest sample of each step that is younger than the lookback; a staleness marker is a hole already.
fn newest(samples: &Samples, steps: impl Iterator<Item = i64>, lookback: i64, values: &mut Vec<f64>) {
    let mut rest = samples.times.iter().copied().zip(samples.values.iter().copied());
    let mut next = rest.next();
    let mut held = (i64::MIN, HOLE);
    values.extend(steps.map(|at| {
        while let Some(sample) = next.filter(|sample| sample.0 <= at) {
            held = sample;
            next = rest.next();
        }
        if held.0 > at.saturating_sub(lookback) { held.1 } else { HOLE }
    }));
}

/// The value at time `at` by the samples before index `upto`, if the newest of them is younger than `oldest`.
fn taken(samples: &Samples, upto: usize, at: i64, oldest: i64, take: Take) -> Option<f64> {
    let last = upto.checked_sub(1)?;
    let (time, value) = (*samples.times.get(last)?, *samples.values.get(last)?);
    if time <= oldest || is_stale(value) {
        return None;
    }
    match take {
        Take::Value => Some(value),
        Take::Time => Some(time as f64 / 1e3),
        Take::Start => samples.starts.get(last).map(|start| *start as f64 / 1e3),
        Take::Smoothed => {
            let next = samples.times.get(upto).zip(samples.values.get(upto));
            // Exactly at a sample there is nothing to interpolate.
            let next = next.filter(|(t, _)| time < at && **t <= at.saturating_add(at.saturating_sub(oldest)));
            Some(next.map_or(value, |(t, v)| value + (v - value) * share(time, at, *t)))
        }
    }
}

/// How far `at` lies between two times, from 0 to 1.
fn share(from: i64, at: i64, to: i64) -> f64 {
    at.saturating_sub(from) as f64 / to.saturating_sub(from) as f64
}

/// Removes staleness markers.
pub(super) fn drop_stale(samples: &mut Samples) {
    if !samples.values.iter().copied().any(is_stale) {
        return;
    }
    let values = &samples.values;
    let stale = |index: usize| values.get(index).copied().is_some_and(is_stale);
    for column in [&mut samples.times, &mut samples.starts] {
        let mut index = 0;
        column.retain(|_| {
            index += 1;
            !stale(index - 1)
        });
    }
    samples.values.retain(|value| !is_stale(*value));
}
