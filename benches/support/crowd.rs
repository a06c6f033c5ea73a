//! A seeded crowd of tenants before many backends, on the stopped clock, for the fleet-sized benchmark and its small
//! version among the tests.
//!
//! Each tenant has one backend. All ask at the same rate, mostly for little; one tenant of each backend also asks for
//! enough to overload its backend.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant as Stopwatch},
};

use fastrand::Rng;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use weir::{
    base::{Confidence, Estimate, QueryCost, TenantId},
    limit::{
        Actual, Admission, AdmissionRequest, Admitted, BackendBudget, Charged, End, Limit, Permit, Policy,
        Refusal, SlowLane, TenantPolicy,
    },
};

const MIB: u64 = 1 << 20;
/// Simulated time between two looks.
const TICK: Duration = Duration::from_millis(10);
/// Ticks that the longest query runs.
const LONGEST: usize = 401;

/// How large the crowd is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Tenants, of whom each `backends`-th is greedy: the first `backends`.
    pub(crate) tenants: usize,
    /// Backends of 4 GiB and 20 queries each.
    pub(crate) backends: usize,
    /// Queries per simulated second.
    pub(crate) per_second: usize,
    /// Simulated time.
    pub(crate) lasts: Duration,
    /// Of the dice.
    pub(crate) seed: u64,
}

/// The results of one tenant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    /// Queries asked.
    pub(crate) asked: u64,
    /// Queries that ran.
    pub(crate) ran: u64,
    /// Estimated bytes × seconds that ran.
    pub(crate) work: f64,
}

/// The results.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// By tenant.
    pub(crate) shares: Vec<Share>,
    /// Refusals by the name of the limit.
    pub(crate) refused: HashMap<&'static str, u64>,
    /// Nanoseconds from asking to the verdict "run", "wait" or "no".
    pub(crate) verdict_ns: Vec<u32>,
    /// Nanoseconds to give a permit back and to hand on its share.
    pub(crate) release_ns: Vec<u32>,
    /// Waits of the queries of tenants that are not greedy, milliseconds.
    pub(crate) waits_ms: Vec<u32>,
    /// Most queries that waited at the same time.
    pub(crate) waiting_most: usize,
}

/// A query that runs, and at which tick it ends.
pub(crate) type Ending = VecDeque<Vec<Permit>>;

struct Waited {
    tenant: usize,
    lasts: usize,
    outcome: Result<Admitted, Refusal>,
}

/// The policy of a fleet: everything at its default but the number of backends.
pub(crate) fn policy(backends: usize) -> Policy {
    let backend = |i| BackendBudget {
        name: format!("backend-{i}").into(),
        memory: Limit::enforce(4096 * MIB),
        queries: Limit::enforce(20),
        slow: SlowLane::default(),
        unproven_percent: 12,
        linger: Duration::from_secs(3),
    };
    Policy {
        default: Arc::new(TenantPolicy::default()),
        backends: (0..backends).map(backend).collect(),
        ..Policy::default()
    }
}

/// A tenant's name.
pub(crate) fn tenant(i: usize) -> TenantId {
    TenantId::new(&format!("tenant-{i}")).unwrap_or_else(TenantId::other)
}

/// The next query: whose, its weight, and for how many ticks it runs.
fn query(rng: &mut Rng, plan: &Plan) -> (usize, u64, usize) {
    if rng.u32(0..20) == 0 {
        return (rng.usize(0..plan.backends), rng.u64(256..1024) * MIB, rng.usize(100..LONGEST - 1));
    }
    (rng.usize(0..plan.tenants), rng.u64(1..16) * MIB, rng.usize(1..4))
}

/// Lets the crowd ask; `look` sees the accounts and all permits after every tick. The clock must be stopped.
pub(crate) async fn run(plan: Plan, mut look: impl FnMut(&Admission, &Ending)) -> Outcome {
    let admission = Admission::new(policy(plan.backends));
    let names: Vec<TenantId> = (0..plan.tenants).map(tenant).collect();
    let actor = Arc::<str>::from("dashboard");
    let backends: Vec<_> =
        admission.policy().backends.iter().map(|budget| Arc::clone(&budget.name)).collect();
    let mut rng = Rng::with_seed(plan.seed);
    let mut outcome = Outcome { shares: vec![Share::default(); plan.tenants], ..Outcome::default() };
    let mut waiting: FuturesUnordered<BoxFuture<'static, Waited>> = FuturesUnordered::new();
    let mut ending: Ending = (0..LONGEST).map(|_| Vec::new()).collect();
    let ticks = plan.lasts.as_millis() / TICK.as_millis();
    for _ in 0..ticks {
        tokio::time::advance(TICK).await;
        for permit in ending.pop_front().unwrap_or_default() {
            let watch = Stopwatch::now();
            permit.settle(Actual { end: End::Answered, ..Actual::default() });
            outcome.release_ns.push(watch.elapsed().as_nanos() as u32);
        }
        ending.push_back(Vec::new());
        for _ in 0..plan.per_second / 100 {
            let (tenant, weight, lasts) = query(&mut rng, &plan);
            let memory = Estimate::new(weight, Confidence::UpperBound);
            let ask = AdmissionRequest {
                payers: [names[tenant].clone()].into(),
                actor: Arc::clone(&actor),
                class: None,
                backend: Arc::clone(&backends[tenant % plan.backends]),
                cost: QueryCost { memory, ..QueryCost::NOTHING },
                deadline: Instant::now() + Duration::from_secs(10),
                charged: Charged::Nothing,
                slow: false,
                tag: 0,
            };
            outcome.shares[tenant].asked += 1;
            let door = Arc::clone(&admission);
            let mut asking = async move { Waited { tenant, lasts, outcome: door.admit(ask).await } }.boxed();
            let watch = Stopwatch::now();
            let verdict = (&mut asking).now_or_never();
            outcome.verdict_ns.push(watch.elapsed().as_nanos() as u32);
            match verdict {
                Some(waited) => outcome.take(&plan, waited, &mut ending),
                None => waiting.push(asking),
            }
        }
        while let Some(Some(waited)) = waiting.next().now_or_never() {
            outcome.take(&plan, waited, &mut ending);
        }
        outcome.waiting_most = outcome.waiting_most.max(waiting.len());
        look(&admission, &ending);
    }
    outcome
}

impl Outcome {
    fn take(&mut self, plan: &Plan, waited: Waited, ending: &mut Ending) {
        match waited.outcome {
            Ok(admitted) => {
                let share = &mut self.shares[waited.tenant];
                share.ran += 1;
                share.work += admitted.permit.bytes() as f64 * waited.lasts as f64 * TICK.as_secs_f64();
                if waited.tenant >= plan.backends {
                    self.waits_ms.push(admitted.waited.as_millis() as u32);
                }
                ending[waited.lasts - 1].push(admitted.permit);
            }
            Err(refusal) => *self.refused.entry(refusal.limit.id()).or_default() += 1,
        }
    }

    /// Jain's index over the share of their queries that tenants who are not greedy got through: 1 is all alike.
    pub(crate) fn jain_modest(&self, plan: &Plan) -> f64 {
        let modest = self.shares[plan.backends..].iter().filter(|share| share.asked > 0);
        jain(modest.map(|share| share.ran as f64 / share.asked as f64))
    }

    /// Jain's index over the work of the greedy ones, each before a backend of its own size.
    pub(crate) fn jain_greedy(&self, plan: &Plan) -> f64 {
        jain(self.shares[..plan.backends].iter().map(|share| share.work))
    }

    /// The share of queries of tenants who are not greedy that ran.
    pub(crate) fn modest_ran(&self, plan: &Plan) -> f64 {
        let modest = &self.shares[plan.backends..];
        let (asked, ran) = modest.iter().fold((0, 0), |(a, r), share| (a + share.asked, r + share.ran));
        ran as f64 / asked.max(1) as f64
    }
}

/// Jain, Chiu, Hawe 1984: (Σx)² / (n Σx²).
fn jain(shares: impl Iterator<Item = f64>) -> f64 {
    let (n, sum, squares) = shares.fold((0.0, 0.0, 0.0), |(n, s, q), x| (n + 1.0, s + x, q + x * x));
    if squares == 0.0 { 1.0 } else { sum * sum / (n * squares) }
}

/// The value below which a share of `values` lies.
pub(crate) fn quantile(values: &mut [u32], share: f64) -> u32 {
    values.sort_unstable();
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}
