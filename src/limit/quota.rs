//! Quotas of a tenant: how much its queries may use in each whole hour or day of the clock, in UTC.
//!
//! A query is debited by its estimate when it asks, gets that back if it never runs, and is settled by its actual cost in
//! the end. Over a quota a tenth more runs in the slow lane, and then nothing until the hour or day is over. With a store
//! every proxy has a fixed part and leases more ahead; all that it used stays leased until then.

use std::time::{Duration, SystemTime};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    fractions,
    policy::{Mode, Rate, RateLimit, Rates, Sharing},
    prefetched::ASK_EVERY,
    rate::Over,
    tumbling_window::TumblingWindow,
};
use crate::base::share::{Amount, Demand, TokenKind};

/// Seconds of use that are leased ahead: one until the next round, and one for a store that is slow.
const AHEAD: u64 = 2;
/// When a query that lacks only its lease is to come again: the next round is there by then.
const NEXT_ROUND: Duration = Duration::from_secs(1);

/// The wall clock, by the monotonic one, which tests can stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    began: Instant,
    at: Duration,
}

impl WallClock {
    pub(super) fn new(began: Instant) -> Self {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { began, at }
    }

    /// One that shows this time since 1970 at `began`.
    pub(super) const fn of(began: Instant, at: Duration) -> Self {
        Self { began, at }
    }

    /// The time since 1970.
    fn unix(&self, now: Instant) -> Duration {
        self.at + now.saturating_duration_since(self.began)
    }

    /// The number of the window of this length, and when it ends.
    fn window(&self, length: Duration, now: Instant) -> (u64, Instant) {
        let (unix, seconds) = (self.unix(now), length.as_secs().max(1));
        let window = unix.as_secs() / seconds;
        (window, now + Duration::from_secs((window + 1) * seconds).saturating_sub(unix))
    }
}

/// Where a query would run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Within the quota.
    Within,
    /// Over it, in the slow lane.
    Slow,
    /// Nowhere.
    None(Over),
}

/// The verdict on a query that is over a quota.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverQuota {
    pub(super) kind: TokenKind,
    pub(super) mode: Mode,
    pub(super) room: Room,
    /// Used in this window by all proxies as far as known, with this query.
    pub(super) used: u64,
    /// The quota, and the use from which on queries are refused.
    pub(super) max: u64,
    pub(super) refused_over: u64,
}

/// A part of a quota that is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaDemand {
    /// Of which quota.
    pub kind: TokenKind,
    /// The number of its window, and the length.
    pub window: (u64, Duration),
    /// How long until the window ends.
    pub remaining: Duration,
    /// The part of the quota that all proxies lease of.
    pub pool: Amount,
    /// The demand; in place of bytes the unit of the quota.
    pub demand: Demand,
    /// Used in this window by this proxy.
    pub used: Amount,
}

/// The used part of a quota, to be kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Of which quota.
    pub kind: TokenKind,
    /// The number of its window, and the length.
    pub window: (u64, Duration),
    /// Used by this proxy.
    pub own: u64,
    /// Used by all proxies, as far as known.
    pub all: u64,
}

impl QuotaUse {
    /// When the hour or day is over, milliseconds since 1970.
    pub const fn ends_ms(&self) -> u64 {
        let (number, length) = self.window;
        (number + 1) * length.as_secs() * 1_000
    }
}

/// The store's answer to a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLease {
    /// May be used beyond the fixed part,
    pub leased: u64,
    /// until then.
    pub until: Instant,
    /// Used by the other proxies; `None` if the store did not say.
    pub others: Option<u64>,
}

/// One quota.
#[derive(Debug)]
struct Quota {
    rate: Rate,
    mode: Mode,
    fixed: u64,
    pool: u64,
    /// This proxy's part of the tenth that runs in the slow lane.
    grace: u64,
    window: u64,
    used: u64,
    /// Used by other proxies, as far as known.
    others: u64,
    leased: u64,
    until: Option<Instant>,
    lately: TumblingWindow<u64>,
    /// The most that a query lacked of late.
    lacked: TumblingWindow<u64>,
    /// The largest request in this window, admitted or not: the least that is leased ahead.
    largest: u64,
    /// Needed at the last round, also beyond the pool, and whether the store had less.
    wanted: u64,
    is_short: bool,
    /// Less than the largest request is left of the lease, and when a round was asked for.
    is_low: bool,
    asked: Option<Instant>,
}

impl Quota {
    fn new(limit: RateLimit, sharing: Sharing) -> Option<Self> {
        let rate = limit.rate.filter(|_| limit.mode != Mode::Off)?;
        let (fixed, pool) = fractions::divide(rate.count.get(), sharing, fractions::TENTH, 1);
        let sharers = if sharing.leased { sharing.replicas_max.get() } else { 1 };
        let grace = fractions::quota_grace(rate.count.get()) / sharers;
        Some(Self {
            rate,
            mode: limit.mode,
            fixed,
            pool,
            grace,
            window: 0,
            used: 0,
            others: 0,
            leased: 0,
            until: None,
            lately: TumblingWindow::default(),
            lacked: TumblingWindow::default(),
            largest: 0,
            wanted: 0,
            is_short: pool == 0,
            is_low: false,
            asked: None,
        })
    }

    /// Begins another window when its time has come; gives the time when it ends.
    fn enter(&mut self, clock: WallClock, now: Instant) -> Instant {
        let (window, ends) = clock.window(self.rate.per, now);
        if window != self.window {
            (self.window, self.used, self.others, self.leased, self.until) = (window, 0, 0, 0, None);
            (self.largest, self.is_short) = (0, self.pool == 0);
        }
        ends
    }

    fn leased(&self, now: Instant) -> u64 {
        if self.until.is_some_and(|until| now < until) { self.leased } else { 0 }
    }

    fn room(&mut self, amount: u64, clock: WallClock, now: Instant) -> Room {
        let ends = self.enter(clock, now);
        if amount > self.fixed.saturating_add(self.pool) {
            return Room::None(Over::Never);
        }
        let (used, here) = (self.used.saturating_add(amount), self.fixed.saturating_add(self.leased(now)));
        self.largest = self.largest.max(amount);
        self.is_low = self.needs_lease(used) && used.saturating_add(self.largest) > here;
        if used <= here {
            return Room::Within;
        }
        let lacked = self.lacked.at(now);
        *lacked = (used - here).max(*lacked);
        if used <= here.saturating_add(self.grace) {
            return Room::Slow;
        }
        let left = ends.saturating_duration_since(now);
        Room::None(Over::NotYet(if self.is_spent(used) { left } else { left.min(NEXT_ROUND) }))
    }

    /// Whether no lease can bring this use, as far as known: of the fixed parts of others the store lends nothing.
    fn is_spent(&self, used: u64) -> bool {
        let all = used.saturating_add(self.others);
        all > self.rate.count.get() || (self.is_short && all > self.fixed.saturating_add(self.pool))
    }

    /// Whether this use calls for a lease: half of the fixed part is used, or the largest request does not fit beside it.
    fn needs_lease(&self, used: u64) -> bool {
        used > self.fixed / 2 || used.saturating_add(self.largest) > self.fixed
    }

    /// Whether a lease is needed before the next round. A pool that had less than was asked for is not asked sooner.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.is_low
            && !self.is_short
            && self.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    fn debit(&mut self, amount: u64, now: Instant) {
        self.used = self.used.saturating_add(amount);
        let lately = self.lately.at(now);
        *lately = lately.saturating_add(amount);
    }

    /// Corrects the debit of a query that was asked then.
    fn settle(&mut self, debited: u64, actual: u64, asked: Instant, (clock, now): (WallClock, Instant)) {
        self.enter(clock, now);
        // The debit of another window is gone.
        let debited_here =
            if clock.window(self.rate.per, asked).0 == self.window { debited } else { debited.min(actual) };
        self.used = self.used.saturating_add(actual).saturating_sub(debited_here);
    }

    /// Draws the lease in to what was used. Gives the demand, unless nothing is needed or leased.
    fn draw_in(&mut self, clock: WallClock, now: Instant) -> Option<(Instant, Demand)> {
        let ends = self.enter(clock, now);
        let most = |both: [u64; 2]| both.into_iter().max().unwrap_or(0);
        let (lately, lacked) = (most(self.lately.both(now)), most(self.lacked.both(now)));
        let held = self.used.saturating_sub(self.fixed).min(self.pool);
        if self.pool == 0 || !(self.needs_lease(self.used) || lacked > 0 || self.until.is_some()) {
            return None;
        }
        let ahead = lately.saturating_mul(AHEAD).max(self.largest);
        let ahead = self.used.saturating_add(ahead).saturating_sub(self.fixed);
        let claim = if lacked > 0 { (1, held.saturating_add(lacked).min(self.pool)) } else { (0, 0) };
        let wants = ahead.max(held).max(claim.1).min(self.pool);
        if wants == 0 && self.until.is_none() {
            return None;
        }
        (self.leased, self.wanted) = (self.leased(now).min(held), ahead);
        let [held, wants] = [held, wants].map(|bytes| Amount { bytes, queries: 0 });
        Some((ends, Demand { held, wants, claim, weight: 1 }))
    }
}

/// The quotas of one tenant.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    queries: Option<Quota>,
    samples: Option<Quota>,
    /// The limits they were made from.
    made_from: (Rates, Sharing),
}

impl Quotas {
    pub(super) fn new(limits: &Rates, sharing: Sharing) -> Self {
        let [queries, samples] = [limits.queries, limits.samples].map(|limit| Quota::new(limit, sharing));
        Self { queries, samples, made_from: (*limits, sharing) }
    }

    /// Takes over changed limits; what was used stays used, in windows of the same length.
    pub(super) fn reload(&mut self, limits: &Rates, sharing: Sharing) {
        if self.made_from == (*limits, sharing) {
            return;
        }
        let before = std::mem::replace(self, Self::new(limits, sharing));
        for (now, before) in [(&mut self.queries, before.queries), (&mut self.samples, before.samples)] {
            if let (Some(now), Some(before)) = (now, before)
                && now.rate.per == before.rate.per
            {
                (now.window, now.used, now.others) = (before.window, before.used, before.others);
            }
        }
    }

    fn each(&mut self) -> impl Iterator<Item = (TokenKind, &mut Quota)> {
        let queries = self.queries.as_mut().map(|quota| (TokenKind::Queries, quota));
        queries.into_iter().chain(self.samples.as_mut().map(|quota| (TokenKind::Samples, quota)))
    }

    /// The quotas that a query of this number of samples is over.
    pub(super) fn over(&mut self, samples: u64, clock: WallClock, now: Instant) -> SmallVec<[OverQuota; 2]> {
        let over = self.each().map(|(kind, quota)| {
            let room = quota.room(kind.of(samples), clock, now);
            let used = quota.used.saturating_add(quota.others).saturating_add(kind.of(samples));
            let max = quota.rate.count.get();
            let refused_over = max.saturating_add(fractions::quota_grace(max));
            OverQuota { kind, mode: quota.mode, room, used, max, refused_over }
        });
        over.filter(|over| over.room != Room::Within).collect()
    }

    /// A query of this number of samples is admitted, or waits.
    pub(super) fn debit(&mut self, samples: u64, now: Instant) {
        self.each().for_each(|(kind, quota)| quota.debit(kind.of(samples), now));
    }

    /// The query that asked then, and was debited for this number of samples, read another number; `None` if it never ran.
    pub(super) fn settle(
        &mut self,
        debited: u64,
        actual: Option<u64>,
        asked: Instant,
        (clock, now): (WallClock, Instant),
    ) {
        for (kind, quota) in self.each() {
            let actual = actual.map_or(0, |samples| kind.of(samples));
            quota.settle(kind.of(debited), actual, asked, (clock, now));
        }
    }

    /// Whether anything of a window that is not over was used.
    pub(super) fn are_used(&self, clock: WallClock, now: Instant) -> bool {
        let is_used = |quota: &Quota| quota.used > 0 && clock.window(quota.rate.per, now).0 == quota.window;
        [&self.queries, &self.samples].into_iter().flatten().any(is_used)
    }

    /// Whether more than the fixed part of one was used, or is leased.
    pub(super) fn exceed_fixed_part(&self) -> bool {
        [&self.queries, &self.samples]
            .into_iter()
            .flatten()
            .any(|quota| (quota.used > quota.fixed && quota.pool > 0) || quota.until.is_some())
    }

    /// Whether a lease is needed before the next round.
    pub(super) fn are_due(&mut self, now: Instant) -> bool {
        self.each().fold(false, |due, (_, quota)| quota.is_due(now) || due)
    }

    /// Draws the leases in to what was used. Gives the demands of quotas of which more than the fixed part is needed.
    pub(super) fn draw_in(&mut self, clock: WallClock, now: Instant) -> Vec<QuotaDemand> {
        let demands = self.each().filter_map(|(kind, quota)| {
            let (ends, demand) = quota.draw_in(clock, now)?;
            let [pool, used] = [quota.pool, quota.used].map(|bytes| Amount { bytes, queries: 0 });
            let window = (quota.window, quota.rate.per);
            Some(QuotaDemand {
                kind,
                window,
                remaining: ends.saturating_duration_since(now),
                pool,
                demand,
                used,
            })
        });
        demands.collect()
    }

    /// Holds this much beyond the fixed part, until the lease or the window ends.
    pub(super) fn lease(&mut self, kind: TokenKind, window: (u64, Duration), lease: QuotaLease) {
        let its = |quota: &&mut Quota| (quota.window, quota.rate.per) == window;
        if let Some(quota) = self.each().find(|(of, _)| *of == kind).map(|(_, quota)| quota).filter(its) {
            // Used is used: no less than what was held when it was asked for.
            quota.leased = lease.leased.max(quota.leased);
            quota.until = (lease.leased > 0).then_some(lease.until);
            if let Some(others) = lease.others {
                (quota.others, quota.is_short) = (others, lease.leased < quota.wanted);
            }
        }
    }

    /// The used part of each in its present window.
    pub(super) fn uses(&mut self, clock: WallClock, now: Instant) -> impl Iterator<Item = QuotaUse> {
        self.each().map(move |(kind, quota)| {
            quota.enter(clock, now);
            let all = quota.used.saturating_add(quota.others);
            QuotaUse { kind, window: (quota.window, quota.rate.per), own: quota.used, all }
        })
    }

    /// Adds what was used before a restart, if its window is not over.
    pub(super) fn restore(&mut self, before: &QuotaUse, clock: WallClock, now: Instant) {
        for (_, quota) in self.each().filter(|(kind, _)| *kind == before.kind) {
            quota.enter(clock, now);
            if (quota.window, quota.rate.per) == before.window {
                // The store counts what was leased.
                let own = if quota.pool > 0 { before.own.min(quota.fixed) } else { before.own };
                quota.used = quota.used.saturating_add(own);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn quota(count: u64, replicas: u64) -> (Quota, WallClock, Instant) {
        let rate = NonZeroU64::new(count).map(|count| Rate { count, per: HOUR });
        let sharing = Sharing { replicas_max: NonZeroU64::new(replicas).unwrap(), leased: replicas > 1 };
        let now = Instant::now();
        let clock = WallClock { began: now, at: 7 * HOUR + Duration::from_secs(600) };
        (Quota::new(RateLimit { rate, mode: Mode::Enforce }, sharing).unwrap(), clock, now)
    }

    #[test]
    fn over_the_quota_a_tenth_is_slow_and_then_nothing_until_the_hour_is_over() {
        let (mut quota, clock, now) = quota(1_000, 1);
        assert_eq!(quota.room(1_001, clock, now), Room::None(Over::Never));
        assert_eq!(quota.room(1_000, clock, now), Room::Within);
        quota.debit(950, now);
        assert_eq!(quota.room(50, clock, now), Room::Within);
        assert_eq!(quota.room(51, clock, now), Room::Slow);
        quota.debit(60, now);
        assert_eq!(quota.room(90, clock, now), Room::Slow);
        let left = Duration::from_secs(3_000);
        assert_eq!(quota.room(91, clock, now), Room::None(Over::NotYet(left)));
        assert_eq!(quota.room(1_000, clock, now + left), Room::Within);
    }

    #[test]
    fn a_debit_is_corrected_where_it_was_made() {
        let (mut quota, clock, now) = quota(1_000, 1);
        quota.room(300, clock, now);
        quota.debit(300, now);
        quota.settle(300, 100, now, (clock, now));
        assert_eq!(quota.used, 100);
        quota.settle(50, 80, now, (clock, now));
        assert_eq!(quota.used, 130);
        let later = now + HOUR;
        quota.settle(300, 100, now, (clock, later));
        assert_eq!(quota.used, 0, "its debit went with its hour");
        quota.debit(40, later);
        quota.settle(300, 310, now, (clock, later));
        assert_eq!(quota.used, 50, "what it read beyond its debit counts now");
    }

    #[test]
    fn with_a_store_a_tenth_is_divided_and_more_is_leased_ahead() {
        let (mut quota, clock, now) = quota(8_000, 4);
        assert_eq!((quota.fixed, quota.pool, quota.grace), (200, 7_200, 200));
        assert_eq!(quota.room(100, clock, now), Room::Within);
        quota.debit(100, now);
        assert!(quota.draw_in(clock, now).is_none(), "half of the fixed part is left");
        quota.debit(20, now);
        let amount = |bytes| Amount { bytes, queries: 0 };
        let wants = |quota: &mut Quota, now| quota.draw_in(clock, now).unwrap().1;
        assert_eq!(wants(&mut quota, now).wants, amount(120 + 2 * 120 - 200));
        // A large one does not wait for its lease.
        assert_eq!(quota.room(150, clock, now), Room::Slow);
        quota.debit(150, now);
        let demand = wants(&mut quota, now);
        assert_eq!((demand.held, demand.wants), (amount(70), amount(610)));
        assert_eq!(demand.claim, (1, 140));
        let until = now + Duration::from_secs(5);
        (quota.leased, quota.until) = (610, Some(until));
        assert_eq!(quota.room(540, clock, now), Room::Within);
        assert_eq!(
            quota.room(540, clock, until),
            Room::None(Over::NotYet(NEXT_ROUND)),
            "it lacks a lease only"
        );
        assert_eq!(wants(&mut quota, until).held, amount(70), "all that was used stays leased");
        assert_eq!(quota.leased(until), 0);
    }
}
