//! Limits while a query runs, and its cancellation.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::{buffers::Pools, error::EvalError, options::Options};
use crate::node::pool::{Loan, Others};

/// A point is a float.
pub(super) const POINT_BYTES: u64 = 8;
/// A query draws on the node's memory in steps of up to this many bytes.
const STEP_BYTES: u64 = 64 << 10;

/// Limits of one query. A series is read whole before it is counted, so a limit is passed by one series at most.
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

/// A volume of reads from the storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadVolume {
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes of them as they are stored.
    pub bytes: u64,
}

impl ReadVolume {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            series: self.series.saturating_add(other.series),
            samples: self.samples.saturating_add(other.samples),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            series: self.series.saturating_sub(other.series),
            samples: self.samples.saturating_sub(other.samples),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// An observer of reads across queries, which may stop this one.
pub trait ReadObserver: Send + Sync + fmt::Debug {
    /// A series was read.
    ///
    /// # Errors
    /// Why the query is to stop.
    fn read(&self, touched: ReadVolume) -> Result<(), String>;
}

/// The usage of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Series read.
    pub series: u64,
    /// Samples read from the storage.
    pub samples: u64,
    /// Values that the steps saw: one for each series and step of an instant vector, and for a range vector all samples
    /// of each step's window, as Prometheus counts `totalQueryableSamples`.
    pub queryable: u64,
    /// The most values held at the same time.
    pub peak_points: u64,
}

/// Counts the series and samples that a query reads, on all of its threads.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    limits: Limits,
    cancel: &'a AtomicBool,
    pools: Option<Pools>,
    first: Option<Arc<dyn Others>>,
    observer: Option<Arc<dyn ReadObserver>>,
    series: AtomicU64,
    samples: AtomicU64,
    queryable: AtomicU64,
    held: AtomicU64,
    peak: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(options: &Options, cancel: &'a AtomicBool) -> Self {
        let [series, samples, queryable, held, peak] = [const { AtomicU64::new(0) }; 5];
        let (pools, first, observer) =
            (options.pools.clone(), options.first.clone(), options.observer.clone());
        let limits = options.limits;
        Self { limits, cancel, pools, first, observer, series, samples, queryable, held, peak }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            series: self.series.load(Relaxed),
            samples: self.samples.load(Relaxed),
            queryable: self.queryable.load(Relaxed),
            peak_points: self.peak.load(Relaxed),
        }
    }

    pub(super) fn pools(&self) -> Option<&Pools> {
        self.pools.as_ref()
    }

    /// The other queries, if those leave memory to this one.
    pub(super) fn first(&self) -> Option<&dyn Others> {
        self.first.as_deref()
    }

    /// Fails once the query was canceled. Cheap enough for every step.
    #[inline]
    pub(super) fn check(&self) -> Result<(), EvalError> {
        if self.cancel.load(Relaxed) { Err(EvalError::Canceled) } else { Ok(()) }
    }

    /// Counts one series and its samples; `bytes` is called only for an observer.
    pub(super) fn read(&self, samples: usize, bytes: impl FnOnce() -> u64) -> Result<(), EvalError> {
        self.check()?;
        let samples = samples as u64;
        if self.series.fetch_add(1, Relaxed) >= self.limits.series {
            return Err(EvalError::Limit { name: "series", max: self.limits.series });
        }
        if self.samples.fetch_add(samples, Relaxed).saturating_add(samples) > self.limits.samples {
            return Err(EvalError::Limit { name: "samples", max: self.limits.samples });
        }
        if let Some(observer) = &self.observer {
            let touched = ReadVolume { series: 1, samples, bytes: bytes() };
            observer.read(touched).map_err(EvalError::Stopped)?;
        }
        Ok(())
    }

    /// Counts values that steps saw.
    pub(super) fn saw(&self, values: u64) {
        self.queryable.fetch_add(values, Relaxed);
    }

    /// Nothing held yet; grows, and gives everything back when dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        Held { meter: self, points: 0, bytes: 0, loan: None }
    }
}

/// A share of the points that a query may hold, and of the node's memory.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) meter: &'a Meter<'a>,
    points: u64,
    /// Bytes in use; the loan may be larger.
    bytes: u64,
    loan: Option<Loan>,
}

impl Held<'_> {
    /// Takes more; ask before allocating.
    pub(super) fn grow(&mut self, points: u64) -> Result<(), EvalError> {
        self.count(points)?;
        self.borrow(points.saturating_mul(POINT_BYTES))
    }

    /// Takes more of the points, whose memory is leased.
    pub(super) fn count(&mut self, points: u64) -> Result<(), EvalError> {
        let max = self.meter.limits.points;
        let grown = |held: u64| held.checked_add(points).filter(|held| *held <= max);
        let Ok(before) = self.meter.held.fetch_update(Relaxed, Relaxed, grown) else {
            return Err(EvalError::Limit { name: "points", max });
        };
        self.points = self.points.saturating_add(points);
        self.meter.peak.fetch_max(before.saturating_add(points), Relaxed);
        Ok(())
    }

    /// Takes more memory.
    pub(super) fn borrow(&mut self, bytes: u64) -> Result<(), EvalError> {
        let Some(pools) = self.meter.pools() else { return Ok(()) };
        self.bytes = self.bytes.saturating_add(bytes);
        let loan = self.loan.get_or_insert_with(|| pools.working.loan());
        let more = self.bytes.saturating_sub(loan.charged());
        if more == 0 {
            return Ok(());
        }
        // A list that grows in small steps asks for more than it needs, so that it asks seldom.
        let more = more.max(loan.charged().min(STEP_BYTES));
        self.meter.granted(|claim| loan.grow(more, claim))
    }

    /// Releases these bytes for the next request of the query.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Takes memory up to this total, for scratch space that is used again.
    pub(super) fn at_least(&mut self, bytes: u64) -> Result<(), EvalError> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 { self.borrow(more) } else { Ok(()) }
    }

    /// Makes room for more elements at the end of a list.
    pub(super) fn reserve<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<(), EvalError> {
        let needed = list.len().saturating_add(more);
        let before = list.capacity();
        if needed <= before {
            return Ok(());
        }
        let capacity = needed.max(before.saturating_mul(2)).max(4);
        let bytes = |elements: usize| elements.saturating_mul(size_of::<T>()) as u64;
        // While the elements move there are both.
        self.borrow(bytes(capacity))?;
        list.reserve_exact(capacity - list.len());
        self.give_back(bytes(before));
        Ok(())
    }

    /// Appends to a list, whose memory is taken first.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, element: T) -> Result<(), EvalError> {
        self.reserve(list, 1)?;
        list.push(element);
        Ok(())
    }

    /// Counts fewer points.
    pub(super) fn discount(&mut self, points: u64) {
        self.points = self.points.saturating_sub(points);
        self.meter.held.fetch_sub(points, Relaxed);
    }

    /// Leaves the memory to the new owner of the held values.
    pub(super) fn into_loan(mut self) -> Option<Loan> {
        self.loan.take()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.meter.held.fetch_sub(self.points, Relaxed);
    }
}
