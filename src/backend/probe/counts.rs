//! How often probes were asked for, and what they cost.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Probes sent to the backend.
    pub sent: u64,
    /// Questions answered from the cache, failures remembered there included.
    pub cache_hits: u64,
    /// Probes that brought no number.
    pub failures: u64,
    /// Time that probes took, waits included.
    pub time: Duration,
}

/// The running numbers.
#[derive(Debug, Default)]
pub(in crate::backend) struct Counters {
    sent: AtomicU64,
    cache_hits: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
}

impl Counters {
    pub(in crate::backend) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            failures: self.failures.load(Relaxed),
            time: Duration::from_micros(self.micros.load(Relaxed)),
        }
    }
}
