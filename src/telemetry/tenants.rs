//! Tenant names as label values, in a number that is bounded: names come from the wire.

use std::collections::HashSet;

use parking_lot::RwLock;

use crate::base::TenantId;

/// The label value of every tenant beyond the bound.
pub(super) const OTHER: &str = "other";

/// The first tenants seen keep their names; nobody is forgotten, so that no series changes its meaning.
#[derive(Debug)]
pub(super) struct TenantLabels {
    named: RwLock<HashSet<TenantId>>,
    max: usize,
}

impl TenantLabels {
    pub(super) fn new(max: usize) -> Self {
        Self { named: RwLock::default(), max }
    }

    /// The tenant's own name, or `other`.
    pub(super) fn label<'a>(&self, tenant: &'a TenantId) -> &'a str {
        {
            let named = self.named.read();
            if named.contains(tenant) {
                return tenant.as_str();
            }
            if named.len() >= self.max {
                return OTHER;
            }
        }
        let mut named = self.named.write();
        // Looked at again: others may have come in between the locks.
        if named.contains(tenant) || named.len() < self.max {
            named.insert(tenant.clone());
            return tenant.as_str();
        }
        OTHER
    }
}
