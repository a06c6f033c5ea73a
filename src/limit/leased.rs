//! The shared parts of budgets, limits and rates, from outside: who leases them, and from whom, is not known here.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    admission::Admission,
    backend::{BackendDemand, BackendLease},
    in_flight_share::Backlog,
    lane::Lane,
    policy::Rate,
    quota::{QuotaDemand, QuotaLease, QuotaUse},
    state::State,
};
use crate::base::{
    TenantId,
    share::{Amount, Demand, TokenDemand, TokenKind},
};

/// This proxy's need of a tenant's limits beyond its fixed part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDemand {
    /// The tenant.
    pub tenant: TenantId,
    /// Of the limits on queries in flight: the part that all proxies lease of, and the demand. `None` where nothing is
    /// needed or leased.
    pub in_flight: Option<(Amount, Demand)>,
    /// Queries of it wait.
    pub is_waiting: bool,
    /// Of its rates: the part that all proxies draw from, and the demand.
    pub rates: Vec<(TokenKind, Rate, TokenDemand)>,
    /// Of its quotas.
    pub quotas: Vec<QuotaDemand>,
}

impl Admission {
    /// The backends whose budgets are leased, and whether a lease is held there or needed.
    pub fn leased_backends(&self) -> Vec<(Arc<str>, bool)> {
        let state = self.lock();
        let backends = state.configured.iter().map(|slot| &state.backends[*slot]);
        let leased = backends.filter(|backend| backend.budget.pool().is_some());
        leased.map(|backend| (Arc::clone(&backend.name), backend.needs_lease())).collect()
    }

    /// A backend's queries may hold this much of its heavy lane beyond the fixed part.
    pub fn set_leased(self: &Arc<Self>, backend: &str, lease: &BackendLease) {
        self.change(|state, now, ready| {
            if let Some(slot) = state.backend(backend) {
                state.backends[slot].lease(lease, now);
                *ready = state.dispatch(now);
            }
        });
    }

    /// Draws a backend's lease in to what its queries hold, and gives its demand.
    pub fn draw_in(&self, backend: &str) -> Option<BackendDemand> {
        let mut state = self.lock();
        let slot = state.backend(backend)?;
        let backend = &mut state.backends[slot];
        backend.end_lease(Instant::now());
        backend.draw_in()
    }

    /// Waits until a query has to wait for a lease, or did since the last time.
    pub async fn lease_wanted(&self) {
        self.lease_wanted.notified().await;
    }

    /// Draws the leases of tenants in to what their queries hold. Gives the demands of those that need more than their
    /// fixed part, or have a lease to give back: this many at most, the busiest first.
    pub fn draw_in_tenants(&self, most: usize) -> Vec<TenantDemand> {
        self.lock().draw_in_tenants(most, Instant::now())
    }

    /// From now until then a tenant's queries may hold this much beyond the fixed part of its limits.
    pub fn set_tenant_leased(self: &Arc<Self>, tenant: &TenantId, leased: Amount, until: Instant) {
        self.change(|state, now, ready| {
            if let Some(slot) = state.tenants.find(tenant) {
                state.tenants.get_mut(slot).in_flight.lease(leased, until);
                state.unpark_tenant(slot, true);
                *ready = state.dispatch(now);
            }
        });
    }

    /// A tenant's queries may use this much of a quota beyond the fixed part, if its window is still that one.
    pub fn set_quota_leased(
        &self,
        tenant: &TenantId,
        kind: TokenKind,
        window: (u64, Duration),
        lease: QuotaLease,
    ) {
        let mut state = self.lock();
        if let Some(slot) = state.tenants.find(tenant) {
            state.tenants.get_mut(slot).quotas.lease(kind, window, lease);
        }
    }

    /// The use of every quota of which anything was used.
    pub fn quotas_used(&self) -> Vec<(TenantId, QuotaUse)> {
        let (mut state, now) = (self.lock(), Instant::now());
        let clock = state.tenants.clock;
        let accounts = state.tenants.iter_mut();
        let uses = accounts.flat_map(|account| {
            let id = account.id.clone();
            account.quotas.uses(clock, now).map(move |of| (id.clone(), of)).collect::<Vec<_>>()
        });
        uses.filter(|(_, of)| of.all > 0).collect()
    }

    /// Counts what was used of quotas before a restart; of windows that are over, nothing.
    pub fn restore_quotas(&self, used: &[(TenantId, QuotaUse)]) {
        let (mut state, now) = (self.lock(), Instant::now());
        let (clock, policy) = (state.tenants.clock, Arc::clone(&state.policy));
        for (tenant, before) in used {
            let slot = state.tenants.slot(tenant, &policy, now);
            state.tenants.get_mut(slot).quotas.restore(before, clock, now);
        }
    }

    /// A tenant's queries may take this many more tokens of a rate; all of them end then.
    pub fn add_tokens(&self, tenant: &TenantId, kind: TokenKind, tokens: u64, until: Instant) {
        let mut state = self.lock();
        if let Some(slot) = state.tenants.find(tenant) {
            state.tenants.get_mut(slot).buckets.add(kind, tokens, Instant::now(), until);
        }
    }
}

impl State {
    fn draw_in_tenants(&mut self, most: usize, now: Instant) -> Vec<TenantDemand> {
        let (mut demands, clock) = (Vec::new(), self.tenants.clock);
        let listed = self.tenants.take_listed();
        let backlogs = if listed.is_empty() { HashMap::new() } else { self.backlogs() };
        for slot in listed {
            let backlog = backlogs.get(&slot).copied().unwrap_or_default();
            let account = self.tenants.get_mut(slot);
            let in_flight = account.draw_in(&backlog, now);
            let rates: Vec<_> = account.buckets.demands(now).collect();
            let quotas = account.quotas.draw_in(clock, now);
            if in_flight.is_some() || !rates.is_empty() || !quotas.is_empty() {
                let holds = account.in_flight.is_leased();
                let busy = account.asked.both(now).into_iter().max();
                let tenant = account.id.clone();
                let is_waiting = backlog.first.is_some();
                let demand = TenantDemand { tenant, in_flight, is_waiting, rates, quotas };
                demands.push((Reverse((holds, busy)), demand));
            }
            self.tenants.list_again(slot, now);
        }
        // The others' leases end by themselves.
        demands.sort_by_key(|(order, _)| *order);
        demands.truncate(most);
        demands.into_iter().map(|(_, demand)| demand).collect()
    }

    /// The waiting queries of each tenant. Those that wait for the backend's lease are among them: a tenant that gave up its
    /// own meanwhile would have to ask for it again when that is there, and so on in turns.
    fn backlogs(&self) -> HashMap<usize, Backlog> {
        let mut all: HashMap<usize, Backlog> = HashMap::new();
        let queues = self.backends.iter().flat_map(|backend| Lane::ALL.map(|lane| &backend.lane(lane).queue));
        for queue in queues {
            for waiter in queue.iter() {
                for tenant in &waiter.charge.payers {
                    let backlog = all.entry(*tenant).or_default();
                    backlog.all.add(waiter.charge.bytes);
                    if !waiter.charge.light {
                        backlog.heavy.add(waiter.charge.bytes);
                    }
                }
            }
            // In the order of the backend's lease: with another, each of two proxies could hold the lease that the other needs.
            for (since, first) in queue.turns() {
                let this = (since, first.charge.bytes);
                for tenant in &first.charge.payers {
                    let backlog = all.entry(*tenant).or_default();
                    backlog.first = Some(backlog.first.map_or(this, |first| first.min(this)));
                }
            }
        }
        all
    }
}
