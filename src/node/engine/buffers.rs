//! Where a query's memory comes from: pools that bound it in a node, the allocator in tests and benchmarks.

use std::ops::{Deref, DerefMut};

use super::{error::EvalError, meter::Meter};
use crate::{
    node::pool::{BucketPool, Buffer, Claim, Lease, Ledger, NumbersPool, PoolExhausted, Reusable},
    series::Samples,
};

/// Decoded samples, in buckets by how many they are.
pub type SamplePool = BucketPool<Samples>;

/// The pools that queries lease from. Without pools, a query gets plain memory that only its limits bound.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Decoded samples of one series.
    pub samples: SamplePool,
    /// Values of one series, one a step.
    pub numbers: NumbersPool,
    /// Everything else: accumulators, lists, labels that a query makes.
    pub working: Ledger,
}

impl Reusable for Samples {
    fn clear(&mut self) {
        Self::clear(self);
    }

    fn bytes(&self) -> usize {
        (self.times.capacity() + self.values.capacity() + self.starts.capacity()) * 8
    }
}

impl Buffer for Samples {
    const ELEMENT_BYTES: usize = 16;

    fn with_capacity(samples: usize) -> Self {
        let (times, values) = (Vec::with_capacity(samples), Vec::with_capacity(samples));
        Self { times, values, starts: Vec::new() }
    }

    fn capacity(&self) -> usize {
        self.times.capacity().min(self.values.capacity())
    }
}

/// Memory of a query's own, or on loan from a pool.
#[derive(Debug)]
pub(super) enum Pooled<T: Send + 'static> {
    Own(T),
    Leased(Lease<T>),
}

/// One number a step.
pub(super) type Numbers = Pooled<Vec<f64>>;

impl<T: Send + 'static> Deref for Pooled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Own(object) => object,
            Self::Leased(lease) => lease,
        }
    }
}

impl<T: Send + 'static> DerefMut for Pooled<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Self::Own(object) => object,
            Self::Leased(lease) => lease,
        }
    }
}

impl<T: Default + Send + 'static> Default for Pooled<T> {
    fn default() -> Self {
        Self::Own(T::default())
    }
}

impl<T: Buffer> Pooled<T> {
    /// Counts the growth of the buffer while it was filled.
    #[inline]
    pub(super) fn settle(&mut self, meter: &Meter<'_>) -> Result<(), EvalError> {
        match self {
            Self::Leased(lease) if lease.bytes() as u64 > lease.charged() => {
                meter.granted(|claim| lease.settle(claim))
            }
            _ => Ok(()),
        }
    }

    /// Whether its content is counted nowhere but here.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

impl Meter<'_> {
    /// Asks a pool for something; waiting ends when the query is canceled.
    pub(super) fn granted<T>(
        &self,
        ask: impl FnOnce(Claim<'_>) -> Result<T, PoolExhausted>,
    ) -> Result<T, EvalError> {
        let gone = || self.check().is_err();
        ask(Claim::until(&gone).first(self.first())).or_else(|exhausted| {
            self.check()?;
            Err(EvalError::Exhausted(exhausted))
        })
    }

    /// An empty column with room for `steps` numbers.
    pub(super) fn numbers(&self, steps: usize) -> Result<Numbers, EvalError> {
        match self.pools() {
            Some(pools) => Ok(Pooled::Leased(self.granted(|claim| pools.numbers.get_unless(steps, claim))?)),
            None => Ok(Pooled::Own(Vec::with_capacity(steps))),
        }
    }

    /// Empties a column with room for `steps` numbers; a new one replaces one that was taken or is too small.
    pub(super) fn renew(&self, column: &mut Numbers, steps: usize) -> Result<(), EvalError> {
        if column.capacity() < steps {
            *column = self.numbers(steps)?;
        } else {
            column.clear();
        }
        Ok(())
    }

    /// A column with the same number at each of `steps` steps.
    pub(super) fn column_of(&self, value: f64, steps: usize) -> Result<Numbers, EvalError> {
        let mut column = self.numbers(steps)?;
        column.resize(steps, value);
        Ok(column)
    }

    /// Reserves space for about `about` more samples, and charges for it before they are there.
    pub(super) fn reserve(&self, samples: &mut Pooled<Samples>, about: usize) -> Result<(), EvalError> {
        samples.clear();
        if samples.capacity() >= about {
            return Ok(());
        }
        if let Pooled::Leased(lease) = &mut *samples {
            self.granted(|claim| lease.reserve_charge(about, claim))?;
        }
        samples.times.reserve_exact(about);
        samples.values.reserve_exact(about);
        Ok(())
    }

    /// A buffer for about `about` samples of one series.
    pub(super) fn samples(&self, about: usize) -> Result<Pooled<Samples>, EvalError> {
        match self.pools() {
            Some(pools) => Ok(Pooled::Leased(self.granted(|claim| pools.samples.get_unless(about, claim))?)),
            None => Ok(Pooled::Own(Samples::with_capacity(about))),
        }
    }
}
