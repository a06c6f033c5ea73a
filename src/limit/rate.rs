//! Rate limits of a tenant: a bucket for queries and one for samples, by the generic cell rate algorithm (GCRA).
//!
//! A rate that no other proxy shares is governor's limiter ([`LocalRate`]). Beside a store a bucket is a fixed part and
//! tokens fetched ahead from the pool of all proxies ([`SharedRate`]): a query takes from both at once, which governor's
//! limiter cannot, so the fixed part is a [`Level`].

use std::time::Duration;

use tokio::time::Instant;

use super::{
    fractions,
    local_rate::LocalRate,
    policy::{Mode, Rate, RateLimit, Rates, Sharing},
    prefetched::Prefetched,
};
use crate::base::share::{TokenDemand, TokenKind};

/// Why a bucket gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Not yet: after this time.
    NotYet(Duration),
    /// More than a full bucket.
    Never,
}

/// The level of a bucket that fills continuously, by the generic cell rate algorithm (GCRA, ITU-T I.371). The missing part is
/// kept in tokens times nanoseconds of `per`: one nanosecond fills `count` of these, so that nothing is rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    count: u64,
    per: Duration,
    missing: u128,
    /// The time of that level.
    at: Option<Instant>,
}

impl Level {
    pub(super) const fn new(count: u64, per: Duration) -> Self {
        Self { count, per, missing: 0, at: None }
    }

    fn missing(&self, now: Instant) -> u128 {
        let elapsed = self.at.map_or(0, |at| now.saturating_duration_since(at).as_nanos());
        self.missing.saturating_sub(elapsed * u128::from(self.count))
    }

    /// This number of tokens, in the unit of the missing part.
    fn scaled(&self, tokens: u64) -> u128 {
        u128::from(tokens) * self.per.as_nanos().max(1)
    }

    /// Tokens of the missing part, a begun one included.
    pub(super) fn missing_tokens(&self, now: Instant) -> u64 {
        u64::try_from(self.missing(now).div_ceil(self.scaled(1))).unwrap_or(u64::MAX)
    }

    fn available(&self, now: Instant) -> u64 {
        self.count.saturating_sub(self.missing_tokens(now))
    }

    /// Takes what is available.
    pub(super) fn take(&mut self, amount: u64, now: Instant) {
        (self.missing, self.at) = (self.missing(now) + self.scaled(amount), Some(now));
    }

    /// Puts back what was taken.
    pub(super) fn give_back(&mut self, amount: u64, now: Instant) {
        (self.missing, self.at) = (self.missing(now).saturating_sub(self.scaled(amount)), Some(now));
    }

    /// How long until this much is available.
    fn wait(&self, amount: u64, now: Instant) -> Duration {
        let above = (self.missing(now) + self.scaled(amount)).saturating_sub(self.scaled(self.count));
        let nanos = above.div_ceil(u128::from(self.count.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket of one rate.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    mode: Mode,
    tokens: Tokens,
    /// How much may be given back now.
    returns: Level,
}

/// The tokens of a bucket.
#[derive(Debug)]
enum Tokens {
    /// Of a rate that no other proxy shares.
    Local(LocalRate),
    /// Of a rate that all proxies share.
    Shared(SharedRate),
}

/// The tokens of one proxy of several.
#[derive(Debug)]
struct SharedRate {
    /// This proxy's own.
    fixed: Level,
    /// The part of the count that all proxies draw from.
    pool: u64,
    prefetched: Prefetched,
}

impl SharedRate {
    fn available(&self, now: Instant) -> u64 {
        self.fixed.available(now).saturating_add(self.prefetched.usable(now))
    }

    /// Takes `amount` out, of the fixed part first.
    fn take(&mut self, amount: u64, rate: Rate, now: Instant) -> Result<(), Over> {
        let here = self.fixed.available(now);
        let beyond = amount.saturating_sub(here);
        if beyond > self.prefetched.usable(now) {
            self.prefetched.lacked(beyond, now);
            // The fixed part alone, or the whole rate for what is larger.
            let whole = Level { count: rate.count.get(), ..self.fixed };
            let level = if amount > self.fixed.count { whole } else { self.fixed };
            return Err(Over::NotYet(level.wait(amount, now)));
        }
        self.fixed.take(amount - beyond, now);
        self.prefetched.spend(beyond, amount, now);
        Ok(())
    }

    /// Less than half of the fixed part is left, so that tokens of the pool will be needed.
    fn is_low(&self, now: Instant) -> bool {
        self.fixed.available(now) <= self.fixed.count / 2
    }
}

impl Bucket {
    fn new(limit: RateLimit, sharing: Sharing) -> Option<Self> {
        let rate = limit.rate.filter(|_| limit.mode != Mode::Off)?;
        let tokens = match fractions::divide(rate.count.get(), sharing, fractions::HALF, 1) {
            (_, 0) => Tokens::Local(LocalRate::new(rate)?),
            (fixed, pool) => Tokens::Shared(SharedRate {
                fixed: Level::new(fixed, rate.per),
                pool,
                prefetched: Prefetched::default(),
            }),
        };
        Some(Self { rate, mode: limit.mode, tokens, returns: Level::new(rate.count.get(), rate.per) })
    }

    /// The most at once: the fixed parts of the others are never lent.
    const fn most(&self) -> u64 {
        match &self.tokens {
            Tokens::Local(_) => self.rate.count.get(),
            Tokens::Shared(SharedRate { fixed, pool, .. }) => fixed.count.saturating_add(*pool),
        }
    }

    fn take(&mut self, amount: u64, now: Instant) -> Result<(), Over> {
        if amount > self.most() {
            return Err(Over::Never);
        }
        match &mut self.tokens {
            Tokens::Local(local) => local.take(amount, now),
            Tokens::Shared(shared) => shared.take(amount, self.rate, now),
        }
    }

    /// Puts back what was taken.
    fn give_back(&mut self, amount: u64, now: Instant) {
        match &mut self.tokens {
            Tokens::Local(local) => local.give_back(amount, now),
            Tokens::Shared(shared) => shared.fixed.give_back(amount, now),
        }
    }

    /// The part of a debt that is paid before a query of this size: all that there is of a part, and of the whole what
    /// a full bucket has beside the query.
    fn payable(&self, debt: u64, amount: u64, now: Instant) -> u64 {
        match &self.tokens {
            Tokens::Local(_) => debt.min(self.most().saturating_sub(amount)),
            Tokens::Shared(shared) => debt.min(shared.available(now)),
        }
    }

    fn shared(&mut self) -> Option<&mut SharedRate> {
        match &mut self.tokens {
            Tokens::Local(_) => None,
            Tokens::Shared(shared) => Some(shared),
        }
    }

    /// The shared part of the rate, and the demand for its tokens.
    fn demand(&mut self, now: Instant) -> Option<(Rate, TokenDemand)> {
        let per = self.rate.per;
        let shared = self.shared()?;
        let pool = Rate { count: shared.pool.try_into().ok()?, per };
        let TokenDemand { stock, wants, claim } = shared.prefetched.demand(shared.is_low(now), now)?;
        let demand = TokenDemand { stock, wants: wants.min(shared.pool), claim: claim.min(shared.pool) };
        Some((pool, demand))
    }
}

/// A bucket that refuses.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverRate {
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
    made_from: (Rates, Sharing),
}

impl Buckets {
    pub(super) fn new(rates: &Rates, sharing: Sharing) -> Self {
        let (queries, samples) = (Bucket::new(rates.queries, sharing), Bucket::new(rates.samples, sharing));
        Self { queries, samples, owed: 0, made_from: (*rates, sharing) }
    }

    /// Takes over changed limits; unchanged ones keep their level.
    pub(super) fn reload(&mut self, rates: &Rates, sharing: Sharing) {
        let (before, sharing_before) = self.made_from;
        if before.queries != rates.queries || sharing_before != sharing {
            self.queries = Bucket::new(rates.queries, sharing);
        }
        if before.samples != rates.samples || sharing_before != sharing {
            self.samples = Bucket::new(rates.samples, sharing);
        }
        self.made_from = (*rates, sharing);
    }

    /// Takes one query.
    pub(super) fn take_query(&mut self, now: Instant) -> Result<(), OverRate> {
        self.queries.as_mut().map_or(Ok(()), |bucket| take(bucket, 1, now))
    }

    /// Puts one query back, as often as the rate allows.
    pub(super) fn give_query_back(&mut self, now: Instant) {
        if let Some(bucket) = self.queries.as_mut().filter(|bucket| bucket.returns.available(now) > 0) {
            bucket.returns.take(1, now);
            bucket.give_back(1, now);
        }
    }

    /// Puts back the queries and samples that were taken at this moment.
    pub(super) fn undo(&mut self, queries: u64, samples: u64, now: Instant) {
        for (bucket, amount) in [(&mut self.queries, queries), (&mut self.samples, samples)] {
            if let Some(bucket) = bucket {
                bucket.give_back(amount, now);
            }
        }
    }

    /// Takes the samples of one query, after the debt as far as there is something to pay it from.
    pub(super) fn take_samples(&mut self, samples: u64, now: Instant) -> Result<(), OverRate> {
        let Some(bucket) = &mut self.samples else { return Ok(()) };
        if samples > bucket.most() {
            return take(bucket, samples, now);
        }
        let paid = bucket.payable(self.owed, samples, now);
        if let Tokens::Shared(_) = bucket.tokens {
            take(bucket, paid, now)?;
            self.owed -= paid;
            return take(bucket, samples.saturating_add(self.owed), now);
        }
        take(bucket, samples.saturating_add(paid), now)?;
        self.owed -= paid;
        Ok(())
    }

    /// Remembers samples that a query read beyond its estimate: the tenant's next queries pay them, at most one full
    /// bucket of them, so that one surprise does not lock a tenant out for long.
    pub(super) fn owe(&mut self, samples: u64) {
        if let Some(bucket) = &self.samples {
            self.owed = self.owed.saturating_add(samples).min(bucket.most());
        }
    }

    /// How long after the last use both are full again, after any use.
    pub(super) fn refill(&self) -> Duration {
        let per = |bucket: &Option<Bucket>| bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.rate.per);
        // The debt is forgotten with the account, so it keeps the account until it is paid.
        let paying = if self.owed > 0 { per(&self.samples) } else { Duration::ZERO };
        per(&self.queries).max(per(&self.samples)) + paying
    }

    fn bucket(&mut self, kind: TokenKind) -> Option<&mut Bucket> {
        match kind {
            TokenKind::Queries => self.queries.as_mut(),
            TokenKind::Samples => self.samples.as_mut(),
        }
    }

    /// The shared part of each rate whose tokens are needed, and the demand for them.
    pub(super) fn demands(&mut self, now: Instant) -> impl Iterator<Item = (TokenKind, Rate, TokenDemand)> {
        TokenKind::ALL.into_iter().filter_map(move |kind| {
            let (pool, demand) = self.bucket(kind)?.demand(now)?;
            Some((kind, pool, demand))
        })
    }

    /// Takes tokens that were drawn, good until then.
    pub(super) fn add(&mut self, kind: TokenKind, tokens: u64, now: Instant, until: Instant) {
        if let Some(shared) = self.bucket(kind).and_then(Bucket::shared) {
            shared.prefetched.add(tokens.min(shared.pool), now, until);
        }
    }

    /// Whether tokens are needed before the next round.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        TokenKind::ALL.into_iter().any(|kind| {
            self.bucket(kind)
                .and_then(Bucket::shared)
                .is_some_and(|shared| shared.prefetched.is_due(shared.is_low(now), now))
        })
    }
}

fn take(bucket: &mut Bucket, amount: u64, now: Instant) -> Result<(), OverRate> {
    bucket.take(amount, now).map_err(|over| {
        let max = if over == Over::Never { bucket.most() } else { bucket.rate.count.get() };
        OverRate { over, mode: bucket.mode, max }
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn bucket(count: u64, sharing: Sharing) -> Bucket {
        let rate = NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(60) });
        Bucket::new(RateLimit { rate, mode: Mode::Enforce }, sharing).unwrap()
    }

    #[test]
    fn a_rate_is_never_passed_and_nearly_reached_at_any_scale() {
        for count in [1, 7, 50, 1_000_000, 50_000_000, 3_000_000_001, 1 << 50] {
            let (mut bucket, mut now) = (bucket(count, Sharing::default()), Instant::now());
            assert_eq!(bucket.take(count + 1, now), Err(Over::Never), "{count}");
            assert_eq!(bucket.take(count, now), Ok(()), "{count}");
            let step = count.div_ceil(20);
            let mut taken = 0;
            for _ in 0..600 {
                now += Duration::from_secs(1);
                while bucket.take(step, now).is_ok() {
                    taken += step;
                }
            }
            assert!(taken <= count * 10, "{count}: {taken}");
            assert!(taken + 2 * step + count / 20 >= count * 10, "{count}: {taken}");
        }
    }

    #[test]
    fn all_of_a_small_rate_can_be_taken_one_by_one_and_no_more() {
        for (count, seconds) in [(3, 1), (3, 10), (7, 1), (7, 60), (299, 60), (9_999, 1), (40, 3_600)] {
            let (now, per) = (Instant::now(), Duration::from_secs(seconds));
            let rate = NonZeroU64::new(count).map(|count| Rate { count, per });
            let limit = RateLimit { rate, mode: Mode::Enforce };
            let mut bucket = Bucket::new(limit, Sharing::default()).unwrap();
            let at_once = (0..=count).filter(|_| bucket.take(1, now).is_ok()).count() as u64;
            assert_eq!(at_once, count, "{count} in {seconds} s");
            let later = now + per * 10;
            assert_eq!((0..=count).filter(|_| bucket.take(1, later).is_ok()).count() as u64, count);
        }
    }

    #[test]
    fn tokens_that_were_given_back_are_taken_once_and_never_beside_a_full_bucket() {
        let (mut bucket, start) = (bucket(60, Sharing::default()), Instant::now());
        let all = |bucket: &mut Bucket, now| (0..200).filter(|_| bucket.take(1, now).is_ok()).count();
        assert_eq!(all(&mut bucket, start), 60);
        bucket.give_back(10, start);
        assert_eq!((all(&mut bucket, start), all(&mut bucket, start)), (10, 0));
        bucket.give_back(10, start);
        // A minute fills it.
        assert_eq!(all(&mut bucket, start + Duration::from_secs(60)), 60);
    }

    const FOUR: Sharing = Sharing { replicas_max: NonZeroU64::MIN.saturating_add(3), leased: true };

    #[test]
    fn a_shared_rate_is_a_fixed_part_and_tokens_that_were_drawn_until_their_end() {
        let (mut bucket, now) = (bucket(80, FOUR), Instant::now());
        let shared = bucket.shared().unwrap();
        assert_eq!((shared.fixed.count, shared.pool), (10, 40));
        assert_eq!(bucket.most(), 50);
        assert_eq!(bucket.demand(now), None, "nothing is drawn for nobody");
        assert_eq!(bucket.take(51, now), Err(Over::Never));
        assert_eq!(bucket.take(4, now), Ok(()));
        assert_eq!(bucket.demand(now), None, "more than half of the fixed part is left");
        // The whole rate brings 14 tokens in 10.5 s.
        assert_eq!(bucket.take(20, now), Err(Over::NotYet(Duration::ZERO)));
        let (pool, demand) = bucket.demand(now).unwrap();
        assert_eq!((pool.count.get(), demand), (40, TokenDemand { stock: 0, wants: 0, claim: 14 }));
        let until = now + Duration::from_secs(5);
        bucket.shared().unwrap().prefetched.add(14, now, until);
        assert_eq!(bucket.take(20, now), Ok(()), "6 of the fixed part, and all that was drawn");
        let (_, demand) = bucket.demand(now).unwrap();
        assert_eq!(demand, TokenDemand { stock: 0, wants: 40, claim: 0 }, "two seconds of the use");
        let shared = bucket.shared().unwrap();
        shared.prefetched.add(30, now, until);
        assert_eq!(shared.available(until - Duration::from_millis(1)), 30);
        assert_eq!(shared.available(until), 0, "the store may have given them away");
    }

    #[test]
    fn tokens_are_asked_for_at_once_and_ten_times_a_second_at_most() {
        let mut buckets = Buckets { queries: Some(bucket(80, FOUR)), ..Buckets::default() };
        let (mut now, mut due) = (Instant::now(), 0);
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            // Nothing comes.
            _ = buckets.take_query(now);
            due += usize::from(buckets.is_due(now));
        }
        assert_eq!(due, 10);
    }
}
