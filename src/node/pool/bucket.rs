//! Buffers of several sizes: one pool per size.

use std::{fmt, sync::Arc};

use prometheus::IntCounter;

use super::{
    Buffer, Cap, Leaked, Lease, Options, PoolExhausted, Supply,
    lease::Home,
    metrics::{Read, Readings},
    object::Shelf,
};
use crate::base::sync::{AtomicU64, Ordering};

/// One size of buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Elements that a buffer holds.
    pub capacity: usize,
    /// How many are kept, and when to refill.
    pub options: Options,
}

/// The sizes of a [`BucketPool`].
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets(Vec<Bucket>);

impl Buckets {
    /// Buckets of these capacities and counts with the default watermarks, in any order.
    pub fn of(sizes: &[(usize, usize)]) -> Self {
        Self::new(
            sizes
                .iter()
                .map(|&(capacity, size)| Bucket { capacity, options: Options::of_size(size) })
                .collect(),
        )
    }

    /// These buckets, in any order.
    pub fn new(mut buckets: Vec<Bucket>) -> Self {
        buckets.sort_by_key(|bucket| bucket.capacity);
        buckets.dedup_by_key(|bucket| bucket.capacity);
        Self(buckets)
    }

    /// What m3dbnode keeps by default: 102.5 MiB of bytes.
    pub fn m3_bytes() -> Self {
        Self::of(&[
            (16, 524_288),
            (32, 262_144),
            (64, 131_072),
            (128, 65_536),
            (256, 65_536),
            (1_440, 16_384),
            (4_096, 8_192),
        ])
    }

    /// Bytes in the m3dbnode sizes and a tenth of its memory: for a node that shares its machine.
    pub fn small_bytes() -> Self {
        Self::of(&[
            (16, 16_384),
            (32, 16_384),
            (64, 16_384),
            (128, 8_192),
            (256, 8_192),
            (1_440, 2_048),
            (4_096, 1_024),
        ])
    }

    /// Decoded samples: from a chunk to a day at 15 s.
    pub fn samples() -> Self {
        Self::of(&[(128, 256), (512, 128), (1_536, 64), (6_144, 16)])
    }
}

/// Buffers in buckets by capacity; larger ones are made and freed each time, and counted.
pub struct BucketPool<T: Buffer> {
    home: Arc<BucketHome<T>>,
}

impl<T: Buffer> Clone for BucketPool<T> {
    fn clone(&self) -> Self {
        Self { home: Arc::clone(&self.home) }
    }
}

struct BucketHome<T> {
    /// By rising capacity.
    shelves: Vec<(usize, Arc<Shelf<T>>)>,
    /// Counts what is too large for every shelf.
    oversize: Arc<Oversize>,
    cap: Arc<Cap>,
    alloc_max: IntCounter,
    exhausted: IntCounter,
}

#[derive(Debug)]
struct Oversize {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Read for Oversize {
    fn readings(&self) -> Readings {
        let outstanding = self.objects.load(Ordering::Relaxed);
        Readings { outstanding, outstanding_bytes: self.bytes.load(Ordering::Relaxed), ..Readings::default() }
    }
}

impl<T: Buffer> BucketPool<T> {
    /// Full pools, one per bucket; `pool` names them in metrics.
    pub fn new(pool: &'static str, buckets: &Buckets, supply: &Supply) -> Self {
        let shelves = buckets
            .0
            .iter()
            .map(|&Bucket { capacity, options }| {
                let make = move || T::with_capacity(capacity);
                (capacity, Shelf::new(pool, &capacity.to_string(), options, make, supply))
            })
            .collect();
        let oversize = Arc::new(Oversize { objects: AtomicU64::new(0), bytes: AtomicU64::new(0) });
        let readable: Arc<dyn Read> = Arc::<Oversize>::clone(&oversize);
        supply.metrics.watch(pool, "larger", &readable);
        supply.metrics.show_cap(supply.cap.mode());
        Self {
            home: Arc::new(BucketHome {
                shelves,
                oversize,
                cap: Arc::clone(&supply.cap),
                alloc_max: supply.metrics.alloc_max(pool),
                exhausted: supply.metrics.exhausted(pool),
            }),
        }
    }

    /// Lends an empty buffer for at least `capacity` elements. At the cap it waits as the cap's mode says: not for
    /// async code.
    pub fn get(&self, capacity: usize) -> Result<Lease<T>, PoolExhausted> {
        let home = &self.home;
        let shelf = home.shelves.partition_point(|(holds, _)| *holds < capacity);
        let holds = home.shelves.get(shelf).map_or(capacity, |(holds, _)| *holds);
        let nominal = holds.saturating_mul(T::ELEMENT_BYTES) as u64;
        home.charge(nominal)?;
        let (object, charged) = match home.shelves.get(shelf) {
            Some((_, pool)) => home.fit(pool.get(), holds, nominal),
            None => {
                home.alloc_max.inc();
                (T::with_capacity(capacity), nominal)
            }
        };
        home.lent(shelf, charged);
        let home: Arc<dyn Home<T>> = Arc::<BucketHome<T>>::clone(home);
        Ok(Lease::new(object, home, shelf, charged))
    }

    /// Frees memory of the buckets that nobody used since the last call; returns how many objects it dropped.
    pub fn shrink(&self) -> usize {
        self.home.shelves.iter().map(|(_, shelf)| shelf.shrink()).sum()
    }

    /// Objects free now in the bucket of this capacity.
    pub fn free(&self, capacity: usize) -> Option<usize> {
        let (_, shelf) = self.home.shelves.iter().find(|(holds, _)| *holds == capacity)?;
        Some(shelf.readings().free as usize)
    }

    /// Whether everything lent is back, to be asked at shutdown.
    pub fn check_returned(&self) -> Result<(), Leaked> {
        let shelves = self.home.shelves.iter().map(|(_, shelf)| shelf.readings());
        let mut sum = self.home.oversize.readings();
        for shelf in shelves {
            sum.outstanding += shelf.outstanding;
            sum.outstanding_bytes += shelf.outstanding_bytes;
        }
        sum.leaked()
    }
}

impl<T: Buffer> BucketHome<T> {
    fn charge(&self, bytes: u64) -> Result<(), PoolExhausted> {
        self.cap.charge(bytes).inspect_err(|_| self.exhausted.inc())
    }

    /// A buffer that grew while it was lent holds more than its bucket says. It is charged in full, or replaced
    /// where the cap has no room for that.
    fn fit(&self, object: T, holds: usize, nominal: u64) -> (T, u64) {
        let bytes = object.bytes() as u64;
        if bytes <= nominal || self.cap.try_charge(bytes - nominal) {
            (object, bytes.max(nominal))
        } else {
            (T::with_capacity(holds), nominal)
        }
    }

    fn lent(&self, shelf: usize, bytes: u64) {
        if let Some((_, shelf)) = self.shelves.get(shelf) {
            shelf.lent(bytes);
        } else {
            self.oversize.objects.fetch_add(1, Ordering::Relaxed);
            self.oversize.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl<T: Buffer> Home<T> for BucketHome<T> {
    fn take_back(&self, mut object: T, shelf: usize, bytes: u64) {
        object.clear();
        // The largest bucket that it fills; what is larger than all of them is freed, as in m3dbnode.
        let holds = object.capacity();
        let below = self.shelves.partition_point(|(capacity, _)| *capacity <= holds);
        let largest = self.shelves.last().map_or(0, |(capacity, _)| *capacity);
        let target = below.checked_sub(1).and_then(|i| self.shelves.get(i));
        if let Some((_, shelf)) = target.filter(|_| holds <= largest) {
            shelf.put(object);
        } else {
            drop(object);
        }
        if let Some((_, lender)) = self.shelves.get(shelf) {
            lender.returned(bytes);
        } else {
            self.oversize.objects.fetch_sub(1, Ordering::Relaxed);
            self.oversize.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.cap.release(bytes);
    }

    fn charge_more(&self, shelf: usize, bytes: u64) -> Result<(), PoolExhausted> {
        self.charge(bytes)?;
        if let Some((_, lender)) = self.shelves.get(shelf) {
            lender.grew(bytes);
        } else {
            self.oversize.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<T: Buffer> fmt::Debug for BucketPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets = self.home.shelves.iter().map(|(capacity, shelf)| (capacity, shelf.readings()));
        f.debug_map().entries(buckets).finish()
    }
}
