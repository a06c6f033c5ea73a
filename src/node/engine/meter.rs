//! Limits while a query runs, and its cancellation.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
};

use super::error::EvalError;

/// What one query may touch. A series is read whole before it is counted, so a limit is passed by one series at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series read, counted once for every selector that reads them.
    pub series: u64,
    /// Samples read from the storage.
    pub samples: u64,
    /// Values held at the same time: of collected series, accumulators and results.
    pub points: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 1_000_000, samples: 50_000_000, points: 50_000_000 }
    }
}

/// What one query has touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Series read.
    pub series: u64,
    /// Samples read from the storage.
    pub samples: u64,
    /// The most values held at the same time.
    pub peak_points: u64,
}

/// Counts what a query touches.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    limits: Limits,
    cancel: &'a AtomicBool,
    usage: Cell<Usage>,
    held: Cell<u64>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limits: Limits, cancel: &'a AtomicBool) -> Self {
        Self { limits, cancel, usage: Cell::default(), held: Cell::new(0) }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage.get()
    }

    /// Fails once the query was canceled. Cheap enough for every step.
    pub(super) fn check(&self) -> Result<(), EvalError> {
        if self.cancel.load(Ordering::Relaxed) { Err(EvalError::Canceled) } else { Ok(()) }
    }

    /// Counts one series with so many samples.
    pub(super) fn read(&self, samples: usize) -> Result<(), EvalError> {
        self.check()?;
        let mut usage = self.usage.get();
        usage.series += 1;
        usage.samples += samples as u64;
        self.usage.set(usage);
        if usage.series > self.limits.series {
            return Err(EvalError::Limit { name: "series", max: self.limits.series });
        }
        if usage.samples > self.limits.samples {
            return Err(EvalError::Limit { name: "samples", max: self.limits.samples });
        }
        Ok(())
    }

    /// Nothing held yet; grows, and gives everything back when dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        Held { meter: self, points: 0 }
    }
}

/// A share of the points that a query may hold.
#[derive(Debug)]
pub(super) struct Held<'a> {
    meter: &'a Meter<'a>,
    points: u64,
}

impl Held<'_> {
    /// Takes more; ask before allocating.
    pub(super) fn grow(&mut self, points: u64) -> Result<(), EvalError> {
        let held = self.meter.held.get().saturating_add(points);
        if held > self.meter.limits.points {
            return Err(EvalError::Limit { name: "points", max: self.meter.limits.points });
        }
        self.meter.held.set(held);
        self.points = self.points.saturating_add(points);
        let mut usage = self.meter.usage.get();
        usage.peak_points = usage.peak_points.max(held);
        self.meter.usage.set(usage);
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.meter.held.set(self.meter.held.get().saturating_sub(self.points));
    }
}
