//! One pool of alike objects, with the semantics of m3dbnode's `objectPool`.

use std::{fmt, sync::Arc};

use super::{
    Cap, PoolContext, RefillBudget, Refiller, Reusable,
    cap::Reclaim,
    metrics::{Instruments, Read, Readings},
};
use crate::base::sync::{ArrayQueue, AtomicBool, AtomicU64, Ordering};

/// How many objects a pool keeps, and when it refills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Free objects kept at most, and made at the start; at least 1.
    pub size: usize,
    /// A Get that leaves this share of `size` or less sets off a refill; 0 never does.
    pub low: f64,
    /// Share of `size` at which a refill stops.
    pub high: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { size: 4096, low: 0.3, high: 0.6 }
    }
}

impl Options {
    /// The default watermarks with another size.
    pub fn of_size(size: usize) -> Self {
        Self { size, ..Self::default() }
    }
}

/// Objects that were not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaked {
    /// Objects still lent.
    pub objects: u64,
    /// Bytes still lent.
    pub bytes: u64,
}

impl fmt::Display for Leaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pooled objects with {} bytes were never given back", self.objects, self.bytes)
    }
}

impl std::error::Error for Leaked {}

/// The state of one pool, shared with its refill.
pub(super) struct PoolState<T> {
    free: ArrayQueue<T>,
    cap: Arc<Cap>,
    make: Box<dyn Fn() -> T + Send + Sync>,
    low: usize,
    high: usize,
    filling: AtomicBool,
    refiller: Refiller,
    budget: Option<Arc<RefillBudget>>,
    gets: AtomicU64,
    gets_at_shrink: AtomicU64,
    outstanding: AtomicU64,
    outstanding_bytes: AtomicU64,
    pub(super) instruments: Instruments,
}

fn watermark(share: f64, size: usize) -> usize {
    (share.clamp(0.0, 1.0) * size as f64).ceil() as usize
}

impl<T: Reusable> PoolState<T> {
    /// A full pool, as far as its cap has room.
    pub(super) fn new(
        pool: &'static str,
        bucket: &str,
        options: Options,
        make: impl Fn() -> T + Send + Sync + 'static,
        supply: &PoolContext,
    ) -> Arc<Self> {
        let size = options.size.max(1);
        let shelf = Arc::new(Self {
            free: ArrayQueue::new(size),
            cap: Arc::clone(&supply.cap),
            make: Box::new(make),
            low: watermark(options.low, size),
            high: watermark(options.high, size),
            filling: AtomicBool::new(false),
            refiller: supply.refiller.clone(),
            budget: supply.refill_budget.clone(),
            gets: AtomicU64::new(0),
            gets_at_shrink: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            outstanding_bytes: AtomicU64::new(0),
            instruments: supply.metrics.instruments(pool, bucket),
        });
        let readable: Arc<dyn Read> = Arc::<Self>::clone(&shelf);
        supply.metrics.watch(pool, bucket, &readable);
        let free: Arc<dyn Reclaim> = Arc::<Self>::clone(&shelf);
        supply.cap.reclaim_from(Arc::downgrade(&free));
        shelf.fill_up_to(size);
        shelf
    }

    /// Takes a free object, which is lent from here on; otherwise counts that there was none.
    pub(super) fn get(self: &Arc<Self>, may_lend: bool) -> Option<T> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let object = if may_lend { self.free.pop() } else { None };
        match &object {
            Some(object) => self.cap.lend_kept(object.bytes() as u64),
            None if may_lend => self.instruments.get_on_empty.inc(),
            None => {}
        }
        if self.low > 0 && self.free.len() <= self.low {
            self.try_fill();
        }
        object
    }

    /// Makes an object that is charged for already.
    pub(super) fn make(&self) -> T {
        (self.make)()
    }

    /// Takes an object back that was lent at a charge of `charged`, and keeps it; drops it and counts that where there
    /// are enough.
    pub(super) fn put(&self, object: T, charged: u64) {
        let bytes = object.bytes() as u64;
        self.cap.take_back(charged);
        match self.free.push(object) {
            Ok(()) => self.cap.settle(charged, bytes),
            Err(object) => {
                drop(object);
                self.instruments.put_on_full.inc();
                self.cap.settle(charged, 0);
            }
        }
    }

    pub(super) fn lent(&self, bytes: u64) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.outstanding_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn grew(&self, bytes: u64) {
        self.outstanding_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn returned(&self, bytes: u64) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.outstanding_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn try_fill(self: &Arc<Self>) {
        // A plain read first: under load every Get comes here, and a failed swap would still own the cache line.
        if self.filling.load(Ordering::Relaxed)
            || self.filling.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            return;
        }
        let shelf = Arc::clone(self);
        if !self.refiller.run(Box::new(move || shelf.fill())) {
            self.filling.store(false, Ordering::Release);
        }
    }

    fn fill(&self) {
        // Also when making an object panics, or the pool would never refill again.
        let _done = ResetOnDrop(&self.filling);
        self.instruments.refills.inc();
        self.fill_up_to(self.high);
    }

    /// Makes objects, as long as the budget and the cap have room.
    fn fill_up_to(&self, count: usize) {
        let filling = self.filling.load(Ordering::Relaxed);
        while self.free.len() < count && (!filling || self.budget.as_ref().is_none_or(|budget| budget.take()))
        {
            let object = (self.make)();
            let bytes = object.bytes() as u64;
            if !self.cap.try_keep(bytes) {
                break;
            }
            if self.free.push(object).is_err() {
                self.cap.freed(bytes);
                break;
            }
        }
    }

    /// Frees memory if nobody took an object since the last call: down to the low watermark.
    pub(super) fn shrink(&self) -> usize {
        let gets = self.gets.load(Ordering::Relaxed);
        if self.gets_at_shrink.swap(gets, Ordering::Relaxed) != gets {
            return 0;
        }
        let mut dropped = 0;
        while self.free.len() > self.low && self.drop_one().is_some() {
            dropped += 1;
        }
        dropped
    }

    /// Frees one object that lies free; its bytes.
    fn drop_one(&self) -> Option<u64> {
        let object = self.free.pop()?;
        let bytes = object.bytes() as u64;
        drop(object);
        self.cap.freed(bytes);
        Some(bytes)
    }
}

impl<T: Reusable> Reclaim for PoolState<T> {
    fn reclaim(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < bytes
            && let Some(more) = self.drop_one()
        {
            freed += more;
        }
        freed
    }
}

impl<T: Reusable> Read for PoolState<T> {
    fn readings(&self) -> Readings {
        Readings {
            free: self.free.len() as u64,
            total: self.free.capacity() as u64,
            outstanding: self.outstanding.load(Ordering::Relaxed),
            outstanding_bytes: self.outstanding_bytes.load(Ordering::Relaxed),
        }
    }
}

struct ResetOnDrop<'a>(&'a AtomicBool);

impl Drop for ResetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
