//! The largest share of the budgets that a single query takes.

use super::{policy::Policy, shares::light};
use crate::base::TenantId;

/// Bytes of a light query where the backend has no budget.
const LIGHT_WITHOUT_BUDGET: u64 = 64 << 20;

/// Bytes of estimated memory at which a single query is treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// A query whose size is unknown is taken for no more, and one that may be more is counted first.
    pub query: u64,
    /// A larger one is split by time, where its backend allows that.
    pub split: Option<u64>,
    /// A query up to this size is light: it may be tried twice, and is not written down before it runs.
    pub light: u64,
}

impl Policy {
    /// The ceilings for a query of this tenant and class on this backend, which splits queries beyond `split_percent` of
    /// its budget.
    pub fn ceilings(
        &self,
        tenant: &TenantId,
        class: Option<&str>,
        backend: &str,
        split_percent: Option<u8>,
    ) -> Ceilings {
        let budget = self.backends.iter().find(|budget| &*budget.name == backend);
        let whole = budget.and_then(|budget| budget.memory.enforced());
        let tenant = self.tenant(tenant);
        let own = tenant.per_query(class).memory.enforced();
        // At most half of the budget, so that the reserves of other classes remain theirs.
        let narrowest = [whole.map(|bytes| bytes / 2), tenant.in_flight.memory.enforced(), own];
        let query = narrowest.into_iter().flatten().min().unwrap_or(u64::MAX);
        let split = whole.zip(split_percent);
        let split = split.map(|(bytes, percent)| (bytes / 100).saturating_mul(percent.into()).min(query));
        Ceilings { query, split, light: whole.map_or(LIGHT_WITHOUT_BUDGET, light) }
    }
}
