//! The last quarter of an hour of every backend, for the plots of the page.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::limit;

/// Milliseconds that are kept.
pub(super) const SPAN_MS: i64 = 15 * 60_000;
/// Milliseconds between two samples.
pub(super) const INTERVAL_MS: i64 = 5_000;

/// One backend at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Milliseconds since the epoch.
    pub(super) at_ms: i64,
    /// Bytes held by queries.
    pub(super) memory: u64,
    /// Bytes that they may hold; `None` is unlimited.
    pub(super) memory_open: Option<u64>,
    /// Queries that wait.
    pub(super) waiting: u64,
}

/// Samples by backend, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<HashMap<Arc<str>, VecDeque<Sample>>>);

impl History {
    /// Adds the state of now, and forgets old samples, and backends and tenants that are gone.
    pub(super) fn record(&self, at_ms: i64, held: &limit::Snapshot) {
        let mut samples = self.0.lock();
        for backend in &held.backends {
            let (memory, memory_open, waiting) = (backend.memory, backend.memory_capacity, backend.waiting);
            let of_backend = samples.entry(Arc::clone(&backend.name)).or_default();
            of_backend.push_back(Sample { at_ms, memory, memory_open, waiting });
        }
        for of_backend in samples.values_mut() {
            // By number as well: a clock that was set back makes nothing old.
            while of_backend.len() as i64 > SPAN_MS / INTERVAL_MS
                || of_backend.front().is_some_and(|sample| at_ms - sample.at_ms > SPAN_MS)
            {
                of_backend.pop_front();
            }
        }
        samples.retain(|_, of_backend| !of_backend.is_empty());
    }

    /// The samples of a backend, the oldest first.
    pub(super) fn of(&self, backend: &str) -> Vec<Sample> {
        self.0.lock().get(backend).map_or_else(Vec::new, |samples| samples.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str, memory: u64) -> limit::Snapshot {
        let admission = limit::Admission::new(limit::Policy {
            backends: vec![limit::BackendBudget {
                name: name.into(),
                memory: limit::Limit::UNLIMITED,
                queries: limit::Limit::UNLIMITED,
                slow: limit::SlowLane::default(),
                unproven_percent: 100,
                linger: std::time::Duration::ZERO,
            }],
            ..limit::Policy::default()
        });
        let mut held = admission.snapshot();
        held.backends[0].memory = memory;
        held
    }

    #[tokio::test]
    async fn a_quarter_of_an_hour_is_kept_of_the_backends_that_there_are() {
        let history = History::default();
        for n in 0..1_000 {
            history.record(n * INTERVAL_MS, &held("main", n as u64));
        }
        let samples = history.of("main");
        assert_eq!(samples.len() as i64, SPAN_MS / INTERVAL_MS);
        assert_eq!(samples.last().map(|sample| sample.memory), Some(999));
        for n in 0..1_000 {
            // The clock stands still.
            history.record(0, &held("main", n));
        }
        assert_eq!(history.of("main").len() as i64, SPAN_MS / INTERVAL_MS);
        history.record(1_001 * INTERVAL_MS, &held("other", 1));
        assert!(history.of("main").is_empty());
        assert_eq!(history.of("other").len(), 1);
    }
}
