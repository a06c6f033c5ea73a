//! The threads that queries share, and the share of a selection that one of them reads.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::node::storage::Selection;

/// Threads that queries may use beside their own, all of them together.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Threads that one query uses at most, its own included.
    threads: usize,
    /// Selections with fewer series are read whole: to start a thread takes longer.
    series_min: usize,
    free: AtomicUsize,
}

impl Workers {
    /// Series from which on a second thread pays.
    pub const SERIES_MIN: usize = 64;

    /// The most threads that work for one query; all queries share one fewer, beside a thread of their own.
    pub fn new(threads: NonZero<usize>, series_min: usize) -> Self {
        let threads = threads.get();
        Self(Arc::new(Shared { threads, series_min, free: AtomicUsize::new(threads - 1) }))
    }

    /// Threads that one query uses at most, its own included.
    pub(super) fn threads(&self) -> usize {
        self.0.threads
    }

    /// Series from which on a second thread pays.
    pub(super) fn series_min(&self) -> usize {
        self.0.series_min
    }

    /// Takes the free threads, `most` of them at the most.
    pub(super) fn borrow(&self, most: usize) -> Borrowed<'_> {
        let mut taken = 0;
        // The closure always says Some, so this does not fail.
        let _ = self.0.free.fetch_update(Relaxed, Relaxed, |free| {
            taken = free.min(most);
            Some(free - taken)
        });
        Borrowed { free: &self.0.free, taken }
    }
}

impl Default for Workers {
    /// Every query stays on its own thread.
    fn default() -> Self {
        Self::new(NonZero::<usize>::MIN, Self::SERIES_MIN)
    }
}

/// Threads in use; given back when dropped.
pub(super) struct Borrowed<'w> {
    free: &'w AtomicUsize,
    pub(super) taken: usize,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.free.fetch_add(self.taken, Relaxed);
    }
}

/// The series of a selection that one stream reads.
#[derive(Clone)]
pub(super) struct Part<'a> {
    pub(super) selection: Arc<dyn Selection + 'a>,
    pub(super) from: usize,
    pub(super) to: usize,
}
