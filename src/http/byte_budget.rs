//! A bound on the bytes that several holders have together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A permit of the semaphore stands for this many bytes, since it counts them in 32 bits.
const UNIT: usize = 1 << 10;

/// Bytes that several holders share, counted in KiB.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    units: usize,
}

/// Bytes taken from a budget, given back by the drop.
#[derive(Debug)]
pub struct ByteShare(OwnedSemaphorePermit);

impl ByteBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// Bytes taken now, and the most that can be.
    pub fn taken(&self) -> (usize, usize) {
        ((self.units.saturating_sub(self.free.available_permits())) * UNIT, self.units * UNIT)
    }

    /// Waits, in order, until `bytes` are free and takes them; more than the whole budget counts as all of it.
    pub async fn take(&self, bytes: usize) -> ByteShare {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes)).await {
                return ByteShare(permit);
            }
            // Nobody closes the semaphore.
            std::future::pending::<()>().await;
        }
    }

    /// Takes `bytes` if they are free now; more than the whole budget never is.
    pub fn try_take(&self, bytes: usize) -> Option<ByteShare> {
        if bytes > self.units * UNIT {
            return None;
        }
        Arc::clone(&self.free).try_acquire_many_owned(self.units_of(bytes)).ok().map(ByteShare)
    }

    fn units_of(&self, bytes: usize) -> u32 {
        // The units of the whole budget fit into 32 bits.
        bytes.div_ceil(UNIT).min(self.units) as u32
    }
}

impl ByteShare {
    /// The bytes held, in whole KiB.
    pub fn bytes(&self) -> usize {
        self.0.num_permits() * UNIT
    }

    /// Holds the bytes of `other` as well.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn shares_are_taken_in_order_and_given_back() {
        let budget = ByteBudget::new(10 * UNIT);
        let mut one = budget.try_take(3 * UNIT + 1).unwrap();
        assert_eq!(budget.taken(), (4 * UNIT, 10 * UNIT));
        one.merge(budget.take(0).await);
        one.merge(budget.take(UNIT).await);
        assert_eq!(budget.taken().0, 5 * UNIT);
        assert!(budget.try_take(6 * UNIT).is_none() && budget.try_take(11 * UNIT).is_none());
        let mut waiting = Box::pin(budget.take(99 * UNIT));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(one);
        assert_eq!((waiting.await, budget.taken().0).1, 10 * UNIT);
    }
}
