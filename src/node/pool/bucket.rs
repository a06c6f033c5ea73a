//! Buffers of several sizes: one pool per size.

use std::{fmt, sync::Arc};

use prometheus::IntCounter;

use super::{
    Buffer, Cap, Leaked, Lease, Options, PoolContext, PoolExhausted, cap::Claim, lease::Home,
    loan::Outstanding, metrics::Read, object::PoolState,
};

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

    /// By rising capacity.
    pub fn as_slice(&self) -> &[Bucket] {
        &self.0
    }

    /// The sizes of m3dbnode, and one for a piece of a large answer. m3dbnode keeps 102.5 MiB in them, since it copies
    /// its reads; this node maps its blocks, so that only answers take bytes.
    pub fn bytes() -> Self {
        let small = [16, 32, 64, 128, 256].map(|capacity| (capacity, 64));
        Self::of(&[&small[..], &[(1_440, 64), (4_096, 256), (65_536, 64)]].concat())
    }

    /// Decoded samples: from a chunk to a day at 15 s.
    pub fn samples() -> Self {
        Self::of(&[(128, 256), (512, 128), (1_536, 64), (6_144, 16)])
    }

    /// One number a step: from an instant query to the most steps that Prometheus allows.
    pub fn numbers() -> Self {
        Self::of(&[
            (4, 2_048),
            (32, 1_024),
            (80, 512),
            (128, 512),
            (256, 256),
            (384, 256),
            (768, 256),
            (1_536, 256),
            (4_096, 32),
            (11_008, 16),
        ])
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
    shelves: Vec<(usize, Arc<PoolState<T>>)>,
    /// Counts buffers too large for every shelf.
    oversize: Arc<Outstanding>,
    cap: Arc<Cap>,
    alloc_max: IntCounter,
    exhausted: IntCounter,
}

impl<T: Buffer> BucketPool<T> {
    /// Full pools, one per bucket; `pool` names them in metrics.
    pub fn new(pool: &'static str, buckets: &Buckets, supply: &PoolContext) -> Self {
        let shelves = buckets
            .0
            .iter()
            .map(|&Bucket { capacity, options }| {
                let make = move || T::with_capacity(capacity);
                (capacity, PoolState::new(pool, &capacity.to_string(), options, make, supply))
            })
            .collect();
        let oversize = Arc::new(Outstanding::nothing());
        let readable: Arc<dyn Read> = Arc::<Outstanding>::clone(&oversize);
        supply.metrics.watch(pool, "larger", &readable);
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
        self.get_unless(capacity, Claim::until(&|| false))
    }

    /// The same for a query that may be `gone` before it gets anything. A buffer that lies free needs no room under the
    /// cap: it is counted already.
    pub fn get_unless(&self, capacity: usize, claim: Claim<'_>) -> Result<Lease<T>, PoolExhausted> {
        let home = &self.home;
        let (object, shelf, charged) = match home.shelf(capacity) {
            Some((number, holds, shelf)) => match shelf.get(home.cap.may_lend(bytes_of::<T>(holds), claim)) {
                Some(object) => {
                    let bytes = object.bytes() as u64;
                    (object, number, bytes)
                }
                None => {
                    let bytes = bytes_of::<T>(holds);
                    home.charge(bytes, claim)?;
                    (shelf.make(), number, bytes)
                }
            },
            None => {
                let bytes = bytes_of::<T>(capacity);
                home.charge(bytes, claim)?;
                home.alloc_max.inc();
                (T::with_capacity(capacity), home.shelves.len(), bytes)
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

fn bytes_of<T: Buffer>(elements: usize) -> u64 {
    elements.saturating_mul(T::ELEMENT_BYTES) as u64
}

impl<T: Buffer> BucketHome<T> {
    /// The shelf for a capacity: its number, the capacity of its buffers, and itself.
    fn shelf(&self, capacity: usize) -> Option<(usize, usize, &Arc<PoolState<T>>)> {
        let number = self.shelves.partition_point(|(holds, _)| *holds < capacity);
        self.shelves.get(number).map(|(holds, shelf)| (number, *holds, shelf))
    }

    fn charge(&self, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        self.cap.charge(bytes, claim).inspect_err(|_| self.exhausted.inc())
    }

    fn lent(&self, shelf: usize, bytes: u64) {
        if let Some((_, shelf)) = self.shelves.get(shelf) {
            shelf.lent(bytes);
        } else {
            self.oversize.lent(1, bytes);
        }
    }

    fn grew(&self, shelf: usize, bytes: u64) {
        match self.shelves.get(shelf) {
            Some((_, lender)) => lender.grew(bytes),
            None => self.oversize.lent(0, bytes),
        }
    }
}

impl<T: Buffer> Home<T> for BucketHome<T> {
    fn take_back(&self, mut object: T, shelf: usize, bytes: u64) {
        object.clear();
        // The largest bucket that it fills; a buffer larger than all of them is freed, as in m3dbnode.
        let holds = object.capacity();
        let below = self.shelves.partition_point(|(capacity, _)| *capacity <= holds);
        let largest = self.shelves.last().map_or(0, |(capacity, _)| *capacity);
        let target = below.checked_sub(1).and_then(|i| self.shelves.get(i));
        // A buffer that grew without a charge, since the query failed, is not kept.
        let counted = object.bytes() as u64 <= bytes;
        if let Some((_, shelf)) = target.filter(|_| holds <= largest && counted) {
            shelf.put(object, bytes);
        } else {
            drop(object);
            self.cap.release(bytes);
        }
        if let Some((_, lender)) = self.shelves.get(shelf) {
            lender.returned(bytes);
        } else {
            self.oversize.returned(1, bytes);
        }
    }

    fn charge_more(&self, shelf: usize, bytes: u64, claim: Claim<'_>) -> Result<(), PoolExhausted> {
        self.charge(bytes, claim)?;
        self.grew(shelf, bytes);
        Ok(())
    }
}

impl<T: Buffer> fmt::Debug for BucketPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buckets = self.home.shelves.iter().map(|(capacity, shelf)| (capacity, shelf.readings()));
        f.debug_map().entries(buckets).finish()
    }
}
