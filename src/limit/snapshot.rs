//! The state of admission at one moment, for metrics and the page *Now*.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{
    backend::Backend, fractions::percent_of, lane::Lane, queue::Waiter, state::State, usage::Usage,
    wait::WaitReason, window::Cut,
};
use crate::base::{TenantId, share::Amount};

/// Waiting queries of one backend whose reasons are worked out.
const REASONS_MAX: usize = 1_000;

/// The state of admission at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Every backend of the policy in force, in its order, then those that left it while queries were in flight.
    pub backends: Vec<BackendSnapshot>,
    /// Tenants with queries in flight or waiting, the largest holders first.
    pub tenants: Vec<TenantSnapshot>,
    /// Tenants with an account of their own now.
    pub tenants_known: usize,
}

/// The usage of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendSnapshot {
    /// The name.
    pub name: Arc<str>,
    /// Queries waiting.
    pub waiting: u64,
    /// Queries in flight.
    pub queries: u64,
    /// Queries that may be in flight; `None` is unlimited.
    pub queries_capacity: Option<u64>,
    /// Bytes held.
    pub memory: u64,
    /// Bytes that may be held, as the window leaves it; `None` is unlimited.
    pub memory_capacity: Option<u64>,
    /// Bytes of the whole budget, of all proxies together; `None` is unlimited.
    pub budget: Option<u64>,
    /// No heavy query has completed yet as expected, so that the window is still at its first size.
    pub unproven: bool,
    /// The share of the window that distress leaves, 0 to 1; 0 for a dead backend.
    pub share: f64,
    /// The cause of the window's cut: a signal, `estimates` or `silence`; `None` while it is not cut.
    pub cut_by: Option<&'static str>,
    /// Bytes of the congestion window; `None` is unlimited.
    pub window: Option<u64>,
    /// The parts of the heavy lane where it is leased: that which is always here, that which is leased now, and the pool
    /// that all proxies lease from.
    pub parts: Option<[Amount; 3]>,
    /// The light lane, the heavy one, and the slow one, whose queries run in the other two.
    pub lanes: [LaneSnapshot; 3],
    /// The share of stalled clients, in queries and bytes.
    pub stalled: (u64, u64),
    /// Queries whose clients left and that the backend may still work on.
    pub lingering: u64,
    /// Bytes of the heavy lane that are free for one class only, by its name.
    pub reserves: Vec<(Arc<str>, u64)>,
    /// Why queries wait: how many for each reason, and each one's by its tag; of the first thousand.
    pub reasons: Vec<(WaitReason, u64)>,
    /// Why each query waits, by its tag.
    pub waiters: Vec<(u64, WaitReason)>,
}

/// The usage of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// Which lane: `light`, `heavy` or `slow`.
    pub lane: &'static str,
    /// Queries that run.
    pub queries: u64,
    /// Queries that may run; `None` is unlimited.
    pub slots: Option<u64>,
    /// Bytes held.
    pub memory: u64,
    /// Bytes that may be held now; `None` is unlimited.
    pub open: Option<u64>,
    /// Queries waiting.
    pub waiting: u64,
}

/// The usage of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSnapshot {
    /// The name; `other` is the common account.
    pub tenant: TenantId,
    /// Queries waiting.
    pub waiting: u64,
    /// Queries in flight.
    pub queries: u64,
    /// Bytes held.
    pub memory: u64,
}

impl Snapshot {
    pub(super) fn of(state: &State, now: Instant) -> Self {
        let removed = (0..state.backends.len()).filter(|slot| {
            let backend = &state.backends[*slot];
            let busy = !backend.used().is_nothing() || backend.waiting() > 0;
            busy && !state.configured.contains(slot)
        });
        let slots = state.configured.iter().copied().chain(removed);
        let backends = slots.map(|slot| BackendSnapshot::of(state, &state.backends[slot], now)).collect();
        let busy = state.tenants.iter().filter(|account| account.waiting > 0 || !account.used.is_nothing());
        let mut tenants: Vec<_> = busy
            .map(|account| TenantSnapshot {
                tenant: account.id.clone(),
                waiting: account.waiting as u64,
                queries: account.used.queries,
                memory: account.used.bytes(),
            })
            .collect();
        tenants.sort_by(|a, b| (b.memory, b.queries, &a.tenant).cmp(&(a.memory, a.queries, &b.tenant)));
        Self { backends, tenants, tenants_known: state.tenants.len() }
    }
}

impl BackendSnapshot {
    fn of(state: &State, backend: &Backend, now: Instant) -> Self {
        let used = backend.used();
        let [light, heavy] = Lane::ALL.map(|lane| LaneSnapshot::of(backend, lane));
        let lanes = [light, heavy, LaneSnapshot::slow(backend)];
        let mut reasons = BTreeMap::<&str, (WaitReason, u64)>::new();
        let waiting = Lane::ALL.iter().flat_map(|lane| {
            let queue = &backend.lane(*lane).queue;
            let first = queue.first().map(|first| first.id);
            queue.iter().map(move |waiter| (waiter, Some(waiter.id) == first))
        });
        let why = |(waiter, is_first): (&Waiter, bool)| (waiter.tag, state.why(waiter, is_first, now));
        let waiters: Vec<_> = waiting.take(REASONS_MAX).map(why).collect();
        for (_, reason) in &waiters {
            reasons.entry(reason.label()).or_insert((*reason, 0)).1 += 1;
        }
        let heavy = backend.lane(Lane::Heavy);
        let open = backend.open(Lane::Heavy).memory;
        let reserves = state.reserves.iter().filter_map(|reserve| {
            let held = heavy.by_class.get(reserve.class).copied().unwrap_or(Usage::default()).bytes();
            let free = percent_of(open?, reserve.percent).saturating_sub(held);
            Some((Arc::clone(&state.classes.get(reserve.class)?.name), free))
        });
        let whole = backend.budget.whole(Lane::Light).memory;
        Self {
            name: Arc::clone(&backend.name),
            waiting: backend.waiting() as u64,
            queries: used.queries,
            queries_capacity: match [backend.open(Lane::Light).slots, backend.heavy_slots()] {
                [Some(light), Some(heavy)] => Some(light + heavy),
                _ => backend.budget.queries().threshold(),
            },
            memory: used.bytes(),
            memory_capacity: match (whole, open) {
                (Some(light), Some(heavy)) => Some(light.saturating_add(heavy)),
                _ => backend.budget.memory().threshold(),
            },
            budget: backend.budget.memory().threshold(),
            unproven: backend.window.is_unproven(),
            share: backend.share(),
            cut_by: backend.window.cut_by().map(Cut::as_str),
            window: open,
            parts: backend.budget.pool().map(|pool| [backend.budget.fixed(), backend.budget.leased, pool]),
            lanes,
            stalled: (backend.stalled.queries, backend.stalled.bytes()),
            lingering: backend.lingering.len() as u64,
            reserves: reserves.collect(),
            reasons: reasons.into_values().collect(),
            waiters,
        }
    }
}

impl LaneSnapshot {
    fn of(backend: &Backend, lane: Lane) -> Self {
        let (account, open) = (backend.lane(lane), backend.open(lane));
        Self {
            lane: lane.as_str(),
            queries: account.used.queries,
            slots: if lane == Lane::Heavy { backend.heavy_slots() } else { open.slots },
            memory: account.used.bytes(),
            open: open.memory,
            waiting: account.queue.len() as u64,
        }
    }

    fn slow(backend: &Backend) -> Self {
        let open = backend.budget.slow();
        let waiters = Lane::ALL.iter().flat_map(|lane| backend.lane(*lane).queue.iter());
        Self {
            lane: "slow",
            queries: backend.slow.queries,
            slots: open.slots,
            memory: backend.slow.bytes(),
            open: open.memory,
            waiting: waiters.filter(|waiter| waiter.charge.slow).count() as u64,
        }
    }
}
