//! The number of probes, and their cost.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Numbers since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that went to the backend; some take more than one request.
    pub sent: u64,
    /// Questions answered from the cache, failures remembered there included.
    pub cache_hits: u64,
    /// Questions sent that brought no number.
    pub failures: u64,
    /// Questions about everything, which are never sent.
    pub refused: u64,
    /// Time that questions took, waits for a place included.
    pub time: Duration,
}

/// The running numbers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) micros: AtomicU64,
}

impl Counters {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            failures: self.failures.load(Relaxed),
            refused: self.refused.load(Relaxed),
            time: Duration::from_micros(self.micros.load(Relaxed)),
        }
    }
}
