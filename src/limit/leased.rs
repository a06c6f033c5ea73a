//! The part of each budget that is leased, from outside: who leases it, and from whom, is not known here.

use std::sync::Arc;

use tokio::time::Instant;

use super::admission::Admission;
use crate::base::share::{Amount, Demand};

impl Admission {
    /// The backends whose budgets are leased, each with the part that all proxies lease of.
    pub fn pools(&self) -> Vec<(Arc<str>, Amount)> {
        let state = self.lock();
        let backends = state.configured.iter().map(|slot| &state.backends[*slot]);
        backends.filter_map(|backend| Some((Arc::clone(&backend.name), backend.budget.pool()?))).collect()
    }

    /// From now until then a backend's queries may hold this much of its heavy lane beyond the fixed part.
    pub fn set_leased(self: &Arc<Self>, backend: &str, leased: Amount, until: Instant) {
        self.change(|state, now, ready| {
            if let Some(slot) = state.backend(backend) {
                state.backends[slot].lease(leased, until);
                *ready = state.dispatch(now);
            }
        });
    }

    /// Draws a backend's lease in to what its queries hold. Gives its demand, and its load: heavy bytes and all queries in
    /// flight.
    pub fn draw_in(&self, backend: &str) -> Option<(Demand, Amount)> {
        let mut state = self.lock();
        let slot = state.backend(backend)?;
        let backend = &mut state.backends[slot];
        backend.end_lease(Instant::now());
        let (demand, load) = backend.demand();
        backend.budget.leased = backend.budget.leased.min(demand.held);
        Some((demand, load))
    }

    /// Waits until a query has to wait for a lease, or did since the last time.
    pub async fn lease_wanted(&self) {
        self.lease_wanted.notified().await;
    }
}
