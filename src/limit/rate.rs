//! Rate limits of a tenant: a leaky bucket for queries and one for samples.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::policy::{Mode, Rate, RateLimit, Rates};

/// The runtime's clock, which tests can stop.
#[derive(Clone, Copy, Debug)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Instant>>;

/// Most cells of a bucket. Larger counts are kept in cells of several, since the limiter counts in 32 bits and spaces
/// cells in whole nanoseconds.
const CELLS_MAX: u64 = 1 << 20;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Not yet: after this time.
    NotYet(Duration),
    /// More than a full bucket.
    Never,
}

/// A bucket of one rate.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    mode: Mode,
    limiter: Limiter,
    /// How much one cell stands for: large rates are counted in coarse cells.
    cell: u64,
}

impl Bucket {
    fn new(limit: RateLimit) -> Option<Self> {
        let rate = limit.rate.filter(|_| limit.mode != Mode::Off)?;
        let cell = rate.count.get().div_ceil(CELLS_MAX);
        let cells = NonZeroU32::new(u32::try_from(rate.count.get() / cell).unwrap_or(u32::MAX))?;
        // Rounded up: never more than the rate.
        let spacing = rate.per.as_nanos().div_ceil(u128::from(cells.get()));
        let spacing = Duration::from_nanos(u64::try_from(spacing).ok()?);
        let quota = Quota::with_period(spacing)?.allow_burst(cells);
        let limiter = RateLimiter::direct_with_clock(quota, RuntimeClock);
        Some(Self { rate, mode: limit.mode, limiter, cell })
    }

    /// Takes `amount` out.
    fn take(&self, amount: u64) -> Result<(), Over> {
        if amount > self.rate.count.get() {
            return Err(Over::Never);
        }
        let cells = u32::try_from(amount.div_ceil(self.cell)).unwrap_or(u32::MAX);
        // Rounding never makes a query impossible.
        let full = (self.rate.count.get() / self.cell) as u32;
        let Some(cells) = NonZeroU32::new(cells.min(full)) else { return Ok(()) };
        match self.limiter.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_yet)) => Err(Over::NotYet(not_yet.wait_time_from(RuntimeClock.now()))),
            Err(_) => Err(Over::Never),
        }
    }
}

/// The verdict of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) over: Over,
    pub(super) mode: Mode,
    /// The most at once.
    pub(super) max: u64,
}

/// The buckets of one tenant.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    queries: Option<Bucket>,
    samples: Option<Bucket>,
    /// Samples that earlier queries read beyond their estimates.
    owed: u64,
    /// The limits they were made from.
    made_from: Rates,
}

impl Buckets {
    pub(super) fn new(rates: &Rates) -> Self {
        let (queries, samples) = (Bucket::new(rates.queries), Bucket::new(rates.samples));
        Self { queries, samples, owed: 0, made_from: *rates }
    }

    /// Takes over changed limits; unchanged ones keep their level.
    pub(super) fn reload(&mut self, rates: &Rates) {
        if self.made_from.queries != rates.queries {
            self.queries = Bucket::new(rates.queries);
        }
        if self.made_from.samples != rates.samples {
            self.samples = Bucket::new(rates.samples);
        }
        self.made_from = *rates;
    }

    /// Takes one query.
    pub(super) fn take_query(&self) -> Result<(), Verdict> {
        take(self.queries.as_ref(), 1)
    }

    /// Takes the samples of one query, and the debt as far as it fits the bucket.
    pub(super) fn take_samples(&mut self, samples: u64) -> Result<(), Verdict> {
        let Some(bucket) = &self.samples else { return Ok(()) };
        let more = self.owed.min(bucket.rate.count.get().saturating_sub(samples));
        take(Some(bucket), samples.saturating_add(more))?;
        self.owed -= more;
        Ok(())
    }

    /// Remembers samples that a query read beyond its estimate: the tenant's next queries pay them, at most one full
    /// bucket of them, so that one surprise does not lock a tenant out for long.
    pub(super) fn owe(&mut self, samples: u64) {
        if let Some(bucket) = &self.samples {
            self.owed = self.owed.saturating_add(samples).min(bucket.rate.count.get());
        }
    }

    /// How long after the last use both are full again, whatever was taken.
    pub(super) fn refill(&self) -> Duration {
        let per = |bucket: &Option<Bucket>| bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.rate.per);
        // The debt is forgotten with the account, so it keeps the account until it is paid.
        let paying = if self.owed > 0 { per(&self.samples) } else { Duration::ZERO };
        per(&self.queries).max(per(&self.samples)) + paying
    }
}

fn take(bucket: Option<&Bucket>, amount: u64) -> Result<(), Verdict> {
    let Some(bucket) = bucket else { return Ok(()) };
    bucket.take(amount).map_err(|over| Verdict { over, mode: bucket.mode, max: bucket.rate.count.get() })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_never_passed_and_nearly_reached_at_any_scale() {
        for count in [1, 7, 50, 1_000_000, 50_000_000, 3_000_000_001, 1 << 50] {
            let per = Duration::from_secs(60);
            let rate = NonZeroU64::new(count).map(|count| Rate { count, per });
            let bucket = Bucket::new(RateLimit { rate, mode: Mode::Enforce }).unwrap();
            assert_eq!(bucket.take(count + 1), Err(Over::Never), "{count}");
            assert_eq!(bucket.take(count), Ok(()), "{count}");
            let step = count.div_ceil(20);
            let mut taken = 0;
            for _ in 0..600 {
                tokio::time::advance(Duration::from_secs(1)).await;
                while bucket.take(step).is_ok() {
                    taken += step;
                }
            }
            assert!(taken <= count * 10, "{count}: {taken}");
            assert!(taken + 2 * step + count / 20 >= count * 10, "{count}: {taken}");
        }
    }
}
