//! This proxy's share of a tenant's limits on queries in flight.
//!
//! With a store a tenth of the memory and half of the queries are divided among all proxies, and the rest is leased. Without
//! one every proxy counts a tenant's queries by itself.

use tokio::time::Instant;

use super::{
    charge::Charge,
    fractions,
    policy::{InFlight, Sharing},
    tumbling_window::TumblingWindow,
    usage::Usage,
    wait::WaitReason,
};
use crate::base::share::{Amount, Demand};

/// The waiting queries of a tenant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    pub(super) all: Usage,
    pub(super) heavy: Usage,
    /// Since when the first has waited for its turn, and its bytes.
    pub(super) first: Option<(Instant, u64)>,
}

/// The share of the limits that this proxy may use.
#[derive(Debug)]
pub(super) struct InFlightShare {
    limit: InFlight,
    /// Needs no lease.
    fixed: Amount,
    /// The pool that all proxies lease from; zero where the number is not limited, or not leased.
    pool: Amount,
    leased: Amount,
    until: Option<Instant>,
    /// The most that was held beyond the fixed part lately.
    peak: TumblingWindow<Amount>,
}

impl InFlightShare {
    pub(super) fn new(limit: InFlight, sharing: Sharing) -> Self {
        let [memory, queries] = [limit.memory, limit.queries].map(|limit| limit.enforced().unwrap_or(0));
        // One query always runs at each proxy, under any lease.
        let (bytes, pool_bytes) = fractions::divide(memory, sharing, fractions::TENTH, 0);
        let (queries, pool_queries) = fractions::divide(queries, sharing, fractions::HALF, 1);
        Self {
            limit,
            fixed: Amount { bytes, queries },
            pool: Amount { bytes: pool_bytes, queries: pool_queries },
            leased: Amount::NONE,
            until: None,
            peak: TumblingWindow::default(),
        }
    }

    /// Takes over changed limits; what is leased stays.
    pub(super) fn reload(&mut self, limit: InFlight, sharing: Sharing) {
        let Self { leased, until, peak, .. } = *self;
        *self = Self { leased, until, peak, ..Self::new(limit, sharing) };
    }

    /// The heaviest query that this proxy can ever run: the fixed parts of the others are never lent.
    pub(super) fn heaviest(&self) -> Option<u64> {
        self.limit.memory.max.map(|max| match self.limit.memory.enforced() {
            Some(_) => self.fixed.bytes + self.pool.bytes,
            None => max.get(),
        })
    }

    fn leased(&self, now: Instant) -> Amount {
        if self.until.is_some_and(|until| now < until) { self.leased } else { Amount::NONE }
    }

    /// The part of the fixed part that heavy queries may use: they leave the tenant's light ones some of both.
    fn fixed_for_heavy(&self) -> Amount {
        Amount {
            bytes: fractions::heavy_memory(self.fixed.bytes),
            queries: fractions::heavy_slots(self.fixed.queries),
        }
    }

    /// Whether one more query fits beside those that run. A query that needs all of the memory runs when no other heavy
    /// one does, and a light one when nothing does.
    pub(super) fn fits(
        &self,
        (used, heavy): (Usage, Usage),
        charge: &Charge,
        now: Instant,
    ) -> Result<(), WaitReason> {
        let leased = self.leased(now);
        let [most, most_heavy] = [self.fixed, self.fixed_for_heavy()].map(|fixed| fixed.plus(leased));
        let is_limited = self.limit.queries.enforced().is_some();
        let is_full = |used: Usage, most: Amount| is_limited && used.queries >= most.queries;
        if is_full(used, most) || (!charge.light && is_full(heavy, most_heavy)) {
            let of_limit = leased.queries >= self.pool.queries;
            return Err(if of_limit { WaitReason::TenantQueries } else { WaitReason::TenantLease });
        }
        let is_limited = self.limit.memory.enforced().is_some();
        let fits =
            |used: Usage, most: Amount| !is_limited || used.plus(charge.bytes).within(Some(most.bytes), None);
        let is_alone = charge.light || heavy.queries == 0;
        let is_first = charge.light && used.is_nothing();
        if is_first || (fits(used, most) && (is_alone || fits(heavy, most_heavy))) {
            return Ok(());
        }
        let of_limit = leased.bytes >= self.pool.bytes;
        Err(if of_limit { WaitReason::TenantMemory } else { WaitReason::TenantLease })
    }

    /// The lease that these queries need.
    fn beyond(&self, used: Usage, heavy: Usage) -> Amount {
        let amount = |of: Usage| Amount { bytes: of.bytes(), queries: of.queries };
        let of_heavy = match heavy.queries {
            0 | 1 => Amount::NONE,
            _ => amount(heavy).less(self.fixed_for_heavy()),
        };
        amount(used).less(self.fixed).max(of_heavy).min(self.pool)
    }

    /// Queries began to run.
    pub(super) fn began(&mut self, used: Usage, heavy: Usage, now: Instant) {
        if self.pool != Amount::NONE {
            let beyond = self.beyond(used, heavy);
            let peak = self.peak.at(now);
            *peak = peak.max(beyond);
        }
    }

    /// Whether the tenant holds a lease, also one of nothing.
    pub(super) const fn is_leased(&self) -> bool {
        self.until.is_some()
    }

    /// Holds this much beyond the fixed part, until the lease ends.
    pub(super) fn lease(&mut self, leased: Amount, until: Instant) {
        self.leased = leased;
        self.until = (leased != Amount::NONE).then_some(until);
    }

    /// Draws the lease in to what is held. Gives the pool and the demand, unless nothing is needed or leased.
    pub(super) fn draw_in(
        &mut self,
        (used, heavy): (Usage, Usage),
        backlog: &Backlog,
        now: Instant,
    ) -> Option<(Amount, Demand)> {
        let held = self.beyond(used, heavy);
        let lately = self.peak.both(now).into_iter().fold(Amount::NONE, Amount::max);
        let wants = self.beyond(used.and(backlog.all), heavy.and(backlog.heavy)).max(lately.min(self.pool));
        if wants == Amount::NONE && !self.is_leased() {
            return None;
        }
        self.leased = self.leased(now).min(held);
        let with = |bytes: u64| self.beyond(used.plus(bytes), heavy.plus(bytes)).bytes;
        let waited = |since: Instant| now.saturating_duration_since(since).as_millis() as u64;
        let claim = backlog.first.map_or((0, 0), |(since, bytes)| (waited(since), with(bytes)));
        Some((self.pool, Demand { held, wants, claim, weight: 1 }))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::{super::policy::Limit, *};

    fn share(queries: u64, memory: u64, replicas: u64) -> InFlightShare {
        let limit = InFlight { queries: Limit::enforce(queries), memory: Limit::enforce(memory) };
        InFlightShare::new(limit, Sharing { replicas_max: NonZeroU64::new(replicas).unwrap(), leased: true })
    }

    #[test]
    fn the_parts_of_all_proxies_and_the_pool_are_the_limit() {
        for (queries, memory) in [(20, 1 << 31), (7, 1_001), (4, 8), (1_000, u64::MAX)] {
            for replicas in [2, 3, 4] {
                let share = share(queries, memory, replicas);
                assert_eq!(share.fixed.queries * replicas + share.pool.queries, queries);
                assert_eq!(share.fixed.bytes * replicas + share.pool.bytes, memory);
                assert!(share.heaviest().unwrap() >= memory / 2 && share.fixed.queries > 0);
            }
        }
        let small = share(2, 8, 4);
        assert_eq!((small.fixed.queries, small.pool.queries), (1, 0), "one each, also of a smaller limit");
        let alone = InFlightShare::new(small.limit, Sharing::default());
        assert_eq!((alone.fixed, alone.pool), (Amount { bytes: 8, queries: 2 }, Amount::NONE));
    }

    #[test]
    fn a_number_without_a_limit_is_not_leased() {
        let limit = InFlight { queries: Limit::enforce(8), memory: Limit::UNLIMITED };
        let sharing = Sharing { replicas_max: NonZeroU64::new(2).unwrap(), leased: true };
        let mut share = InFlightShare::new(limit, sharing);
        let backlog = Backlog { all: Usage { memory: 1 << 90, queries: 3 }, ..Backlog::default() };
        let (pool, demand) =
            share.draw_in((Usage::default(), Usage::default()), &backlog, Instant::now()).unwrap();
        assert_eq!((pool, demand.wants), (Amount { bytes: 0, queries: 4 }, Amount { bytes: 0, queries: 1 }));
    }
}
