//! What admission holds at one moment, for metrics and the status page.

use std::sync::Arc;

use crate::base::TenantId;

/// What admission holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Every backend of the policy in force, in its order, then those that left it while queries were in flight.
    pub backends: Vec<BackendSnapshot>,
    /// Tenants with queries in flight or waiting, the largest holders first.
    pub tenants: Vec<TenantSnapshot>,
    /// Tenants that are told apart now.
    pub tenants_known: usize,
}

/// What queries hold of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSnapshot {
    /// The name.
    pub name: Arc<str>,
    /// Queries waiting.
    pub waiting: u64,
    /// Queries in flight.
    pub queries: u64,
    /// Queries that may be in flight, as pressure leaves it; `None` is unlimited.
    pub queries_capacity: Option<u64>,
    /// Bytes held.
    pub memory: u64,
    /// Bytes that may be held, as pressure leaves it; `None` is unlimited.
    pub memory_capacity: Option<u64>,
    /// The share of the budget that pressure leaves, 0 to 1.
    pub capacity_percent: u8,
}

/// What one tenant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSnapshot {
    /// The name; the account of those not told apart is called `other`.
    pub tenant: TenantId,
    /// Queries waiting.
    pub waiting: u64,
    /// Queries in flight.
    pub queries: u64,
    /// Bytes held.
    pub memory: u64,
}
