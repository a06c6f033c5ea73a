//! Limits over time for queries that came in the past: the buckets of the live path on the times of a record, and a
//! simulation of the budgets in flight. A journal is one proxy's, which has all of every rate here.
//!
//! The simulation knows slots, memory and the queues of tenants. It knows neither lanes nor the congestion window nor
//! turns: those depend on the state of a database that nobody recorded.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    policy::{Limit, Policy, Sharing},
    preflight::{enforce_quotas, enforce_rate},
    quota::{Quotas, WallClock},
    rate::Buckets,
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    usage::Usage,
};
use crate::base::{ErrorKind, Estimate, TenantId};

/// Waiting queries of a backend that are looked at when a place becomes free.
const WAITERS_LOOKED_AT: usize = 64;

/// A query that was recorded, as far as limits over time are about it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The tenants that pay for it.
    pub payers: SmallVec<[TenantId; 1]>,
    /// Where it runs.
    pub backend: Arc<str>,
    /// Bytes that it holds.
    pub memory: u64,
    /// How long it ran, milliseconds; `None` where nobody knows.
    pub runs_for: Option<u64>,
}

/// The outcome of a recorded query that asks for a place in flight.
#[derive(Debug)]
pub enum RecordedOutcome {
    /// It has room at once.
    Runs,
    /// It waits, perhaps in vain: this would be its refusal then.
    Waits(Refusal),
    /// The queue is full.
    Refused(Refusal),
}

#[derive(Debug)]
struct RecordedAccount {
    buckets: Buckets,
    quotas: Quotas,
    used: Usage,
    waiting: usize,
}

#[derive(Debug, Default)]
struct RecordedBackend {
    used: Usage,
    /// The waiting queries, the oldest first, with the time at which each gives up.
    waiting: VecDeque<(u64, Recorded)>,
}

/// The limits over time, and the accounts that they are held against; tenants beyond `tenants_max` share one.
#[derive(Debug)]
pub struct RecordedLimits {
    policy: Arc<Policy>,
    /// The first query came then.
    start: Instant,
    /// Milliseconds after the first query.
    now: u64,
    first_ms: Option<i64>,
    tenants: HashMap<TenantId, RecordedAccount>,
    backends: HashMap<Arc<str>, RecordedBackend>,
    /// The queries that run, by their end and a number.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    running: HashMap<u64, Recorded>,
    numbers: u64,
}

impl RecordedLimits {
    /// No query has come.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            start: Instant::now(),
            now: 0,
            first_ms: None,
            tenants: HashMap::new(),
            backends: HashMap::new(),
            ends: BinaryHeap::new(),
            running: HashMap::new(),
            numbers: 0,
        }
    }

    /// The time is this, milliseconds since the epoch; it never goes back.
    pub fn advance(&mut self, at_ms: i64) {
        let first = *self.first_ms.get_or_insert(at_ms);
        let until = u64::try_from(at_ms.saturating_sub(first)).unwrap_or(0).max(self.now);
        while let Some(Reverse((end, number))) = self.ends.peek().copied().filter(|of| of.0.0 <= until) {
            self.ends.pop();
            self.now = self.now.max(end);
            if let Some(query) = self.running.remove(&number) {
                self.used_by(&query, |used| used.remove(query.memory));
                self.wake(&query.backend);
            }
        }
        self.now = until;
    }

    /// Counts a query towards the rates of its tenants. Gives those in shadow mode that it passes.
    ///
    /// # Errors
    /// It comes too early.
    pub fn check_rate(&mut self, payers: &[TenantId]) -> Result<Vec<ShadowHit>, Refusal> {
        let (now, mut shadow) = (self.instant(), Vec::new());
        for tenant in payers {
            let taken = self.account(tenant).buckets.take_query(now);
            enforce_rate(taken, LimitName::RateQueries, Estimate::exact(1), tenant, &mut shadow)?;
        }
        Ok(shadow)
    }

    /// Takes back the count of a query that a rule refuses.
    pub fn give_rate_back(&mut self, payers: &[TenantId]) {
        let now = self.instant();
        for tenant in payers {
            self.account(tenant).buckets.give_query_back(now);
        }
    }

    /// Counts its samples towards the rates of its tenants. Gives those in shadow mode that it passes.
    ///
    /// # Errors
    /// It comes too early, or reads more than a whole bucket.
    pub fn take_samples(
        &mut self,
        payers: &[TenantId],
        samples: Estimate,
    ) -> Result<Vec<ShadowHit>, Refusal> {
        let (now, mut shadow) = (self.instant(), Vec::new());
        for tenant in payers {
            let taken = self.account(tenant).buckets.take_samples(samples.value, now);
            enforce_rate(taken, LimitName::RateSamples, samples, tenant, &mut shadow)?;
        }
        Ok(shadow)
    }

    /// Holds a query against the quotas of its tenants. Gives those in shadow mode that it passes, and whether it is to run in the
    /// slow lane.
    ///
    /// # Errors
    /// A quota is used up, or smaller than the query.
    pub fn check_quotas(
        &mut self,
        payers: &[TenantId],
        samples: Estimate,
    ) -> Result<(Vec<ShadowHit>, bool), Refusal> {
        let ((clock, now), mut shadow, mut is_slow) = (self.wall_clock(), Vec::new(), false);
        for tenant in payers {
            let over = self.account(tenant).quotas.over(samples.value, clock, now);
            is_slow |= enforce_quotas(&over, samples, tenant, &mut shadow)?.is_some();
        }
        Ok((shadow, is_slow))
    }

    /// Debits a query to the quotas of its tenants, by the samples that it read where they are known.
    pub fn debit(&mut self, payers: &[TenantId], samples: Estimate, read: Option<u64>) {
        let (_, now) = self.wall_clock();
        for tenant in payers {
            self.account(tenant).quotas.debit(read.unwrap_or(samples.value), now);
        }
    }

    /// Gives a query its place in flight, as far as it is known how long it runs.
    pub fn place(&mut self, query: Recorded) -> RecordedOutcome {
        if self.has_room(&query) {
            self.run(query);
            return RecordedOutcome::Runs;
        }
        let refusal = |limit, kind, observed: u64, max: u64, tenant: &TenantId| {
            let over =
                Refusal::exceeded(limit, Estimate::exact(observed), max, Scope::Tenant(tenant.clone()));
            Refusal { kind, ..over }
        };
        let mut timeout = None;
        for tenant in &query.payers {
            let queue = self.policy.tenant(tenant).queue;
            let waiting = self.account(tenant).waiting;
            if waiting >= queue.length {
                let (waiting, length) = (waiting as u64, queue.length as u64);
                let full = refusal(LimitName::QueueFull, ErrorKind::QueueFull, waiting, length, tenant);
                return RecordedOutcome::Refused(full);
            }
            let wait = queue.wait.as_millis() as u64;
            let (limit, kind) = (LimitName::QueueTimeout, ErrorKind::QueueTimeout);
            timeout = timeout.or_else(|| Some((wait, refusal(limit, kind, wait, wait, tenant))));
        }
        let Some((wait, timeout)) = timeout else { return RecordedOutcome::Runs };
        self.count_waiting(&query, 1);
        let until = self.now.saturating_add(wait);
        self.backends.entry(Arc::clone(&query.backend)).or_default().waiting.push_back((until, query));
        RecordedOutcome::Waits(timeout)
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn wall_clock(&self) -> (WallClock, Instant) {
        let began = u64::try_from(self.first_ms.unwrap_or(0)).unwrap_or(0);
        (WallClock::of(self.start, Duration::from_millis(began)), self.instant())
    }

    fn account(&mut self, tenant: &TenantId) -> &mut RecordedAccount {
        let is_full = self.tenants.len() >= self.policy.tenants_max && !self.tenants.contains_key(tenant);
        let tenant = if is_full { TenantId::other() } else { tenant.clone() };
        let policy = Arc::clone(self.policy.tenant(&tenant));
        self.tenants.entry(tenant).or_insert_with(|| {
            let buckets = Buckets::new(&policy.rate, Sharing::default());
            let quotas = Quotas::new(&policy.quota, Sharing::default());
            RecordedAccount { buckets, quotas, used: Usage::default(), waiting: 0 }
        })
    }

    fn used_by(&mut self, query: &Recorded, mut change: impl FnMut(&mut Usage)) {
        for tenant in &query.payers {
            change(&mut self.account(tenant).used);
        }
        change(&mut self.backends.entry(Arc::clone(&query.backend)).or_default().used);
    }

    fn count_waiting(&mut self, query: &Recorded, more: isize) {
        for tenant in &query.payers {
            let account = self.account(tenant);
            account.waiting = account.waiting.saturating_add_signed(more);
        }
    }

    fn has_room(&mut self, query: &Recorded) -> bool {
        let policy = Arc::clone(&self.policy);
        let fits = |used: Usage, memory: Limit, queries: Limit| {
            used.plus(query.memory).within(memory.enforced(), queries.enforced())
        };
        let mut has_room = true;
        for tenant in &query.payers {
            let limits = policy.tenant(tenant).in_flight;
            has_room &= fits(self.account(tenant).used, limits.memory, limits.queries);
        }
        let used = self.backends.get(&query.backend).map_or_else(Usage::default, |lane| lane.used);
        let budget = policy.backends.iter().find(|budget| budget.name == query.backend);
        has_room && budget.is_none_or(|budget| fits(used, budget.memory, budget.queries))
    }

    /// It begins to run. One of which nobody knows how long holds nothing.
    fn run(&mut self, query: Recorded) {
        let Some(runs_for) = query.runs_for.and_then(NonZeroU64::new) else { return };
        self.used_by(&query, |used| used.add(query.memory));
        self.numbers += 1;
        let end = self.now.saturating_add(runs_for.get());
        self.ends.push(Reverse((end, self.numbers)));
        self.running.insert(self.numbers, query);
    }

    /// Lets waiting queries run that have room now; those that waited too long are gone.
    fn wake(&mut self, backend: &Arc<str>) {
        let now = self.now;
        let mut at = 0;
        while at < WAITERS_LOOKED_AT {
            let waiting = self.backends.get(backend).and_then(|lane| lane.waiting.get(at));
            let Some((until, query)) = waiting.cloned() else { return };
            let is_late = until <= now;
            if !is_late && !self.has_room(&query) {
                at += 1;
                continue;
            }
            if let Some(lane) = self.backends.get_mut(backend) {
                lane.waiting.remove(at);
            }
            self.count_waiting(&query, -1);
            if !is_late {
                self.run(query);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{
        BackendBudget, InFlight, Mode, QueuePolicy, Rate, RateLimit, Rates, SlowLane, TenantPolicy,
    };

    fn limits() -> RecordedLimits {
        let rate = |count| {
            let rate = NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(10) });
            RateLimit { rate, mode: Mode::Enforce }
        };
        let per_hour = |count| RateLimit {
            rate: NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(3_600) }),
            mode: Mode::Enforce,
        };
        let tenant = TenantPolicy {
            in_flight: InFlight { queries: Limit::enforce(2), memory: Limit::UNLIMITED },
            queue: QueuePolicy { length: 1, wait: Duration::from_secs(5) },
            rate: Rates { queries: rate(3), samples: rate(1_000) },
            quota: Rates { queries: RateLimit::default(), samples: per_hour(5_000) },
            ..TenantPolicy::default()
        };
        let backend = BackendBudget {
            name: "main".into(),
            memory: Limit::enforce(100),
            queries: Limit::enforce(9),
            slow: SlowLane::default(),
            unproven_percent: 100,
            linger: Duration::ZERO,
        };
        let policy = Policy { default: Arc::new(tenant), backends: vec![backend], ..Policy::default() };
        RecordedLimits::new(Arc::new(policy))
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn rates_run_on_the_recorded_times_which_never_go_back() {
        let mut limits = limits();
        let (a, b) = ([tenant("a")], [tenant("b")]);
        let mut verdicts = Vec::new();
        for at_ms in [0, 0, 0, 0, 3_000, 3_400, 2_000, 6_800] {
            limits.advance(1_700_000_000_000 + at_ms);
            verdicts.push(limits.check_rate(&a).is_ok());
        }
        assert_eq!(verdicts, [true, true, true, false, false, true, false, true]);
        assert!(limits.check_rate(&b).is_ok(), "each tenant has its own");
        let samples = |limits: &mut RecordedLimits, n| limits.take_samples(&a, Estimate::exact(n));
        assert!(samples(&mut limits, 900).is_ok());
        let early = samples(&mut limits, 200).unwrap_err();
        assert_eq!((early.id(), early.kind), ("weir-rate-samples", ErrorKind::RateLimited));
        let never = samples(&mut limits, 1_001).unwrap_err();
        assert_eq!((never.id(), never.kind), ("weir-rate-samples", ErrorKind::LimitExceeded));
        limits.advance(1_700_000_000_000 + 8_000);
        assert!(samples(&mut limits, 200).is_ok());
    }

    #[test]
    fn quotas_run_on_the_hours_of_the_records() {
        // 20 minutes before the hour is over.
        const BEGAN_MS: i64 = 500_000 * 3_600_000 - 20 * 60_000;
        let mut limits = limits();
        let a = [tenant("a")];
        let mut ask = |at_ms, samples, read| {
            limits.advance(BEGAN_MS + at_ms);
            let verdict = limits.check_quotas(&a, Estimate::exact(samples));
            if verdict.is_ok() {
                limits.debit(&a, Estimate::exact(samples), read);
            }
            verdict.map(|(_, is_slow)| is_slow).map_err(|refusal| (refusal.kind, refusal.retry_after))
        };
        assert_eq!(ask(0, 5_001, None), Err((ErrorKind::LimitExceeded, None)));
        assert_eq!(ask(0, 5_000, Some(4_000)), Ok(false));
        assert_eq!(ask(0, 1_000, None), Ok(false));
        assert_eq!(ask(0, 400, None), Ok(true));
        let left = Some(Duration::from_secs(900));
        assert_eq!(ask(5 * 60_000, 200, None), Err((ErrorKind::RateLimited, left)));
        assert_eq!(ask(20 * 60_000, 5_000, None), Ok(false));
    }

    #[test]
    fn places_in_flight_come_back_at_the_recorded_ends() {
        let mut limits = limits();
        let mut ask = |at_ms, name: &str, memory, runs_for| {
            limits.advance(at_ms);
            let payers = [tenant(name)].into();
            match limits.place(Recorded { payers, backend: "main".into(), memory, runs_for }) {
                RecordedOutcome::Runs => "runs",
                RecordedOutcome::Waits(refusal) | RecordedOutcome::Refused(refusal) => refusal.id(),
            }
        };
        for (at_ms, name, memory, runs_for, want) in [
            (0, "a", 30, Some(1_000), "runs"),
            (0, "a", 30, Some(3_000), "runs"),
            // Nobody knows how long: it waits for a place as others do.
            (0, "a", 1, None, "weir-queue-timeout"),
            (0, "a", 1, Some(1), "weir-queue-full"),
            (0, "b", 41, Some(1_000), "weir-queue-timeout"),
            (0, "c", 40, Some(1_000), "runs"),
            // From 1,000 on: a's waiter came and went, b's has the memory.
            (1_500, "a", 20, Some(10_000), "runs"),
            (1_500, "c", 10, Some(1), "weir-queue-timeout"),
            (9_000, "c", 80, Some(1), "runs"),
        ] {
            assert_eq!(ask(at_ms, name, memory, runs_for), want, "{name} at {at_ms}");
        }
    }
}
