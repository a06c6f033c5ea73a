//! One pool of alike objects, with the semantics of m3dbnode's `objectPool`.

use std::{fmt, sync::Arc};

use super::{
    Cap, Lease, PoolExhausted, RefillBudget, Refiller, Reusable, Supply,
    cap::Gone,
    lease::Home,
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
pub(super) struct Shelf<T> {
    free: ArrayQueue<T>,
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

impl<T: Send + 'static> Shelf<T> {
    pub(super) fn new(
        pool: &'static str,
        bucket: &str,
        options: Options,
        make: impl Fn() -> T + Send + Sync + 'static,
        supply: &Supply,
    ) -> Arc<Self> {
        let size = options.size.max(1);
        let free = ArrayQueue::new(size);
        while free.len() < size && free.push(make()).is_ok() {}
        let shelf = Arc::new(Self {
            free,
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
        shelf
    }

    /// Takes a free object, or makes one and counts that.
    pub(super) fn get(self: &Arc<Self>) -> T {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let object = self.free.pop().unwrap_or_else(|| {
            self.instruments.get_on_empty.inc();
            (self.make)()
        });
        if self.low > 0 && self.free.len() <= self.low {
            self.try_fill();
        }
        object
    }

    /// Keeps an object, or drops it and counts that.
    pub(super) fn put(&self, object: T) {
        if self.free.push(object).is_err() {
            self.instruments.put_on_full.inc();
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
        while self.free.len() < self.high && self.budget.as_ref().is_none_or(|budget| budget.take()) {
            if self.free.push((self.make)()).is_err() {
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
        while self.free.len() > self.low && self.free.pop().is_some() {
            dropped += 1;
        }
        dropped
    }
}

impl<T: Send + 'static> Read for Shelf<T> {
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

/// A pool of one kind of object.
pub struct ObjectPool<T: Reusable> {
    home: Arc<ObjectHome<T>>,
}

struct ObjectHome<T> {
    shelf: Arc<Shelf<T>>,
    cap: Arc<Cap>,
}

impl<T: Reusable> ObjectPool<T> {
    /// A full pool of what `make` makes; `pool` names it in metrics.
    pub fn new(
        pool: &'static str,
        options: Options,
        make: impl Fn() -> T + Send + Sync + 'static,
        supply: &Supply,
    ) -> Self {
        let shelf = Shelf::new(pool, "", options, make, supply);
        Self { home: Arc::new(ObjectHome { shelf, cap: Arc::clone(&supply.cap) }) }
    }

    /// Lends an object. At the cap it waits as the cap's mode says: not for async code.
    pub fn get(&self) -> Result<Lease<T>, PoolExhausted> {
        let object = self.home.shelf.get();
        let bytes = object.bytes() as u64;
        if let Err(exhausted) = self.home.cap.charge(bytes, &|| false) {
            self.home.shelf.put(object);
            return Err(exhausted);
        }
        self.home.shelf.lent(bytes);
        let home: Arc<dyn Home<T>> = Arc::<ObjectHome<T>>::clone(&self.home);
        Ok(Lease::new(object, home, 0, bytes))
    }

    /// Frees memory if nobody took an object since the last call; returns how many objects it dropped.
    pub fn shrink(&self) -> usize {
        self.home.shelf.shrink()
    }

    /// Objects free now.
    pub fn free(&self) -> usize {
        self.home.shelf.readings().free as usize
    }

    /// Whether everything lent is back, to be asked at shutdown.
    pub fn check_returned(&self) -> Result<(), Leaked> {
        self.home.shelf.readings().leaked()
    }
}

impl<T: Reusable> fmt::Debug for ObjectPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPool").field("readings", &self.home.shelf.readings()).finish_non_exhaustive()
    }
}

impl<T: Reusable> Home<T> for ObjectHome<T> {
    fn take_back(&self, mut object: T, _shelf: usize, bytes: u64) {
        object.clear();
        self.shelf.put(object);
        self.shelf.returned(bytes);
        self.cap.release(bytes);
    }

    fn charge_more(&self, _shelf: usize, bytes: u64, gone: Gone<'_>) -> Result<(), PoolExhausted> {
        self.cap.charge(bytes, gone)?;
        self.shelf.grew(bytes);
        Ok(())
    }

    fn charge_over(&self, _shelf: usize, bytes: u64) {
        self.cap.charge_over(bytes);
        self.shelf.grew(bytes);
    }
}
