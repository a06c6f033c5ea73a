//! The request of a query to run.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::base::{QueryCost, TenantId};

/// The part of a query that was already counted towards its tenants' rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charged {
    /// Nothing was taken for it before.
    #[default]
    Nothing,
    /// It was counted already, but not its samples.
    Query,
    /// It was admitted before, to run in another way.
    All,
}

/// A query that asks to run. Backend and class are names and not positions: a reload in between changes neither.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// The tenants that pay, each for all of it; the first is whose turn it is.
    pub payers: SmallVec<[TenantId; 1]>,
    /// The actor inside the tenant: a dashboard, a user, a rule.
    pub actor: Arc<str>,
    /// The name of its class, if it has one.
    pub class: Option<Arc<str>>,
    /// The name of the backend where it would run.
    pub backend: Arc<str>,
    /// Its estimated cost.
    pub cost: QueryCost,
    /// When the answer is of no use any more; the wait ends before.
    pub deadline: Instant,
    /// The part that was already counted towards the rates.
    pub charged: Charged,
    /// It runs in the slow lane, at any cost.
    pub slow: bool,
    /// The caller's own number of the query, given back in a [`Snapshot`](super::Snapshot).
    pub tag: u64,
}

impl AdmissionRequest {
    /// The tenant whose turn it takes.
    pub(super) fn tenant(&self) -> TenantId {
        self.payers.first().cloned().unwrap_or_else(TenantId::other)
    }
}
