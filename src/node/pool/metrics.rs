//! The pool metrics of m3dbnode, plus outstanding objects and bytes.
//!
//! Gauges are read from the pools at scrape time: they cost a Get nothing and are never stale.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Cap, Leaked, Mode};

/// The state of one pool at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readings {
    pub(super) free: u64,
    pub(super) total: u64,
    pub(super) outstanding: u64,
    pub(super) outstanding_bytes: u64,
}

impl Readings {
    pub(super) fn leaked(self) -> Result<(), Leaked> {
        if self.outstanding == 0 {
            return Ok(());
        }
        Err(Leaked { objects: self.outstanding, bytes: self.outstanding_bytes })
    }
}

/// Something whose state can be read.
pub(super) trait Read: Send + Sync {
    fn readings(&self) -> Readings;
}

/// The counters of one pool.
#[derive(Clone, Debug)]
pub(super) struct Instruments {
    pub(super) get_on_empty: IntCounter,
    pub(super) put_on_full: IntCounter,
    pub(super) refills: IntCounter,
}

/// The metrics of all pools of a node.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    get_on_empty: IntCounterVec,
    put_on_full: IntCounterVec,
    refills: IntCounterVec,
    alloc_max: IntCounterVec,
    exhausted: IntCounterVec,
    gauges: Gauges,
}

const LABELS: [&str; 2] = ["pool", "bucket"];

impl PoolMetrics {
    /// Registers the metrics; fails if the registry has them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let gauges = Gauges::new()?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(Self {
            get_on_empty: counter(
                "weir_pool_get_on_empty_total",
                "Objects allocated because the pool was empty.",
                &LABELS,
            )?,
            put_on_full: counter(
                "weir_pool_put_on_full_total",
                "Objects freed because the pool was full.",
                &LABELS,
            )?,
            refills: counter("weir_pool_refills_total", "Background refills.", &LABELS)?,
            alloc_max: counter(
                "weir_pool_alloc_max_total",
                "Buffers allocated because they are larger than the largest bucket.",
                &["pool"],
            )?,
            exhausted: counter(
                "weir_pool_exhausted_total",
                "Requests for memory refused because the cap was reached.",
                &["pool"],
            )?,
            gauges,
        })
    }

    pub(super) fn instruments(&self, pool: &str, bucket: &str) -> Instruments {
        let labels = [pool, bucket];
        Instruments {
            get_on_empty: self.get_on_empty.with_label_values(&labels),
            put_on_full: self.put_on_full.with_label_values(&labels),
            refills: self.refills.with_label_values(&labels),
        }
    }

    pub(super) fn alloc_max(&self, pool: &str) -> IntCounter {
        self.alloc_max.with_label_values(&[pool])
    }

    pub(super) fn exhausted(&self, pool: &str) -> IntCounter {
        self.exhausted.with_label_values(&[pool])
    }

    /// Shows the bound on everything lent, 0 without one, and how near to it that came.
    pub fn show_cap(&self, cap: &Arc<Cap>) {
        *self.gauges.shown.lock() = Arc::downgrade(cap);
    }

    /// Shows the state of a pool as long as it lives.
    pub(super) fn watch(&self, pool: &'static str, bucket: &str, state: &Arc<dyn Read>) {
        let state = Arc::downgrade(state);
        self.gauges.watched.lock().push(Watched { pool, bucket: bucket.to_owned(), state });
    }
}

struct Watched {
    pool: &'static str,
    bucket: String,
    state: Weak<dyn Read>,
}

/// Gauges that are set when they are collected.
#[derive(Clone)]
struct Gauges {
    watched: Arc<Mutex<Vec<Watched>>>,
    shown: Arc<Mutex<Weak<Cap>>>,
    cap: IntGauge,
    peak: IntGauge,
    waiting: IntGauge,
    free: IntGaugeVec,
    total: IntGaugeVec,
    outstanding: IntGaugeVec,
    outstanding_bytes: IntGaugeVec,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &LABELS);
        Ok(Self {
            watched: Arc::default(),
            shown: Arc::default(),
            cap: IntGauge::new(
                "weir_pool_cap_bytes",
                "Most bytes that all pools lend together; 0 is unbounded.",
            )?,
            peak: IntGauge::new("weir_pool_peak_bytes", "Most bytes that were ever lent at once.")?,
            waiting: IntGauge::new("weir_pool_waiting", "Threads of queries that wait at the cap.")?,
            free: gauge("weir_pool_free", "Objects free in the pool.")?,
            total: gauge("weir_pool_total", "Free objects that the pool keeps at most.")?,
            outstanding: gauge("weir_pool_outstanding", "Objects lent and not yet given back.")?,
            outstanding_bytes: gauge("weir_pool_outstanding_bytes", "Bytes lent and not yet given back.")?,
        })
    }

    fn of_cap(&self) -> [&IntGauge; 3] {
        [&self.cap, &self.peak, &self.waiting]
    }

    fn all(&self) -> [&IntGaugeVec; 4] {
        [&self.free, &self.total, &self.outstanding, &self.outstanding_bytes]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        let of_cap = self.of_cap().into_iter().flat_map(Collector::desc);
        self.all().into_iter().flat_map(Collector::desc).chain(of_cap).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.watched.lock().retain(|watched| {
            let labels = [watched.pool, watched.bucket.as_str()];
            let Some(state) = watched.state.upgrade() else {
                for gauge in self.all() {
                    // It may never have been collected, then there is nothing to remove.
                    gauge.remove_label_values(&labels).ok();
                }
                return false;
            };
            let now = state.readings();
            let values = [now.free, now.total, now.outstanding, now.outstanding_bytes];
            for (gauge, value) in self.all().into_iter().zip(values) {
                gauge.with_label_values(&labels).set(value as i64);
            }
            true
        });
        if let Some(cap) = self.shown.lock().upgrade() {
            let bound = match cap.mode() {
                Mode::Bounded { bytes, .. } => bytes,
                Mode::Unbounded => 0,
            };
            for (gauge, value) in self.of_cap().into_iter().zip([bound, cap.peak(), cap.waiting()]) {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let of_cap = self.of_cap().into_iter().flat_map(Collector::collect);
        self.all().into_iter().flat_map(Collector::collect).chain(of_cap).collect()
    }
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}
