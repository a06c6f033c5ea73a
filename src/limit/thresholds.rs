//! The largest share of the budgets that a single query takes.

use super::{fractions::heavy_memory, in_flight_share::InFlightShare, lane::Budget, policy::Policy};
use crate::base::{TenantId, share::Amount};

/// Bytes of a light query where the backend has no budget.
const LIGHT_WITHOUT_BUDGET: u64 = 64 << 20;

/// Bytes of estimated memory at which a single query is treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryThresholds {
    /// A query whose size is unknown is taken for no more, and one that may be more is counted first.
    pub query: u64,
    /// A larger one is split by time, where its backend allows that; two such fit their tenant's in-flight budget.
    pub split: Option<u64>,
    /// A query up to this size is light: it may be tried twice, and is not written down before it runs.
    pub light: u64,
}

impl Policy {
    /// The thresholds for a query of this tenant and class on this backend, which splits queries beyond `split_percent` of
    /// its budget.
    pub fn memory_thresholds(
        &self,
        tenant: &TenantId,
        class: Option<&str>,
        backend: &str,
        split_percent: Option<u8>,
    ) -> MemoryThresholds {
        let budget = self.backends.iter().find(|budget| &*budget.name == backend);
        // Without leases no query gets more than this proxy's own part.
        let part = if self.sharing.leased { 1 } else { self.sharing.replicas_max.get() };
        let enforced = budget.filter(|budget| budget.memory.enforced().is_some());
        let whole = enforced.and_then(|budget| budget.memory.enforced()).map(|bytes| bytes / part);
        let lanes = enforced.map(|budget| Budget::of(budget, self.sharing, Amount::NONE));
        let lane = lanes.and_then(|lanes| lanes.heaviest());
        let tenant = self.tenant(tenant);
        let own = tenant.per_query(class).memory.enforced();
        // At most half of the heavy lane: two such run at a time.
        let in_flight = InFlightShare::new(tenant.in_flight, self.sharing).heaviest();
        let in_flight = in_flight.filter(|_| tenant.in_flight.memory.enforced().is_some());
        let narrowest = [whole.map(|bytes| heavy_memory(bytes) / 2), in_flight, own];
        let query = narrowest.into_iter().flatten().min().unwrap_or(u64::MAX);
        // Two parts fit what this proxy can ever have, and its tenant beside light ones.
        let halves = [lane.map(|bytes| bytes / 2), in_flight.map(|bytes| heavy_memory(bytes) / 2)];
        let most = halves.into_iter().flatten().fold(query, u64::min);
        let light = lanes.and_then(|lanes| lanes.light()).unwrap_or(LIGHT_WITHOUT_BUDGET);
        let split = whole.zip(split_percent);
        let split = split.map(|(bytes, percent)| (bytes / 100).saturating_mul(percent.into()).min(most));
        MemoryThresholds { query, split, light }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, sync::Arc, time::Duration};

    use super::*;
    use crate::limit::{BackendBudget, Limit, Sharing, SlowLane, TenantPolicy};

    #[test]
    fn two_split_queries_fit_the_lane_and_what_their_tenant_may_have_in_flight() {
        // MiB: the budget, the tenant's part; percent of the budget beyond which queries are split; proxies with leases.
        // Up to 40 % of a budget, the recommendation, leases make no difference.
        for (budget, in_flight, percent, replicas) in [
            (2048, 1638, 40, 1),
            (2048, 900, 40, 1),
            (2048, 4096, 100, 1),
            (7, 7, 40, 1),
            (2048, 4096, 40, 2),
            (2048, 4096, 40, 8),
            (2048, 2048, 40, 8),
        ] {
            let sharing = Sharing { replicas_max: NonZeroU64::new(replicas).unwrap(), leased: replicas > 1 };
            let memory = Limit::enforce(budget << 20);
            let mut tenant = TenantPolicy::default();
            tenant.in_flight.memory = Limit::enforce(in_flight << 20);
            let main = BackendBudget {
                name: "main".into(),
                memory,
                queries: Limit::enforce(6),
                slow: SlowLane::default(),
                unproven_percent: 10,
                linger: Duration::ZERO,
            };
            let lane = Budget::of(&main, sharing, Amount::NONE).heaviest().unwrap();
            let policy =
                Policy { default: Arc::new(tenant), backends: vec![main], sharing, ..Policy::default() };
            let thresholds = policy.memory_thresholds(&TenantId::other(), None, "main", Some(percent));
            // One of unknown size goes out whole, so that it counts for no less with more proxies.
            assert_eq!(thresholds.query, (heavy_memory(budget << 20) / 2).min(in_flight << 20), "{replicas}");
            let split = thresholds.split.unwrap();
            // A query of a fleet is sent in no more parts than before one proxy.
            let alone = Policy { sharing: Sharing::default(), ..policy.clone() };
            assert_eq!(
                split,
                alone.memory_thresholds(&TenantId::other(), None, "main", Some(percent)).split.unwrap()
            );
            assert!(
                2 * split <= lane.min(heavy_memory(in_flight << 20)),
                "{budget} {in_flight} {replicas} {split}"
            );
        }
    }
}
