//! A bucket that no other proxy shares, by governor's limiter.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use super::{
    policy::Rate,
    rate::{Level, Over},
};

/// Most cells of a bucket. Larger counts are kept in cells of several, since the limiter counts in 32 bits and spaces
/// cells in whole nanoseconds.
const CELLS_MAX: u64 = 1 << 20;

/// The time of the caller, which a replay sets to that of its records.
#[derive(Clone, Debug, Default)]
struct GivenClock(Arc<AtomicU64>);

impl Clock for GivenClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Relaxed).into()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, GivenClock, NoOpMiddleware<Nanos>>;

/// A bucket of one rate.
#[derive(Debug)]
pub(super) struct LocalRate {
    limiter: Limiter,
    clock: GivenClock,
    /// The zero of the clock.
    began: Option<Instant>,
    /// Tokens that one cell stands for.
    cell: u64,
    cells: NonZeroU32,
    /// Tokens that were given back. They drain as the bucket fills, so that both together are never more than it holds.
    refunds: Level,
}

impl LocalRate {
    pub(super) fn new(rate: Rate) -> Option<Self> {
        let cell = rate.count.get().div_ceil(CELLS_MAX);
        let cells = NonZeroU32::new(u32::try_from(rate.count.get() / cell).unwrap_or(u32::MAX))?;
        // Rounded up: never more than the rate.
        let spacing = rate.per.as_nanos().div_ceil(u128::from(cells.get()));
        let spacing = Duration::from_nanos(u64::try_from(spacing).ok()?);
        let quota = Quota::with_period(spacing)?.allow_burst(cells);
        let clock = GivenClock::default();
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        let refunds = Level::new(rate.count.get(), rate.per);
        Some(Self { limiter, clock, began: None, cell, cells, refunds })
    }

    /// Takes `amount` out, which is no more than a full bucket.
    pub(super) fn take(&mut self, amount: u64, now: Instant) -> Result<(), Over> {
        let since = now.saturating_duration_since(*self.began.get_or_insert(now));
        self.clock.0.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let refunded = amount.min(self.refunds.missing_tokens(now));
        // Rounding never makes a query impossible.
        let cells = u32::try_from((amount - refunded).div_ceil(self.cell)).unwrap_or(u32::MAX);
        if let Some(cells) = NonZeroU32::new(cells.min(self.cells.get())) {
            match self.limiter.check_n(cells) {
                Ok(Ok(())) => {}
                Ok(Err(not_yet)) => return Err(Over::NotYet(not_yet.wait_time_from(self.clock.now()))),
                Err(_) => return Err(Over::Never),
            }
        }
        self.refunds.give_back(refunded, now);
        Ok(())
    }

    /// Puts back what was taken.
    pub(super) fn give_back(&mut self, amount: u64, now: Instant) {
        self.refunds.take(amount, now);
    }
}
