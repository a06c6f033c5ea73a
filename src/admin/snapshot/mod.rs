//! The state of the proxy at one moment, as plain values: [`Snapshot`]. `take.rs` takes it, `findings.rs` judges it.

mod findings;
mod holders;
pub(super) mod take;

use serde::Serialize;

use crate::proxy::{ConfigState, FleetStatus, Origin, Refused};

pub use findings::{Finding, Severity};
pub use holders::Holder;

pub(super) use findings::span;

/// Everything that the page *Now* shows, at one moment. Times are milliseconds since the epoch, durations milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// When it was taken.
    pub now_ms: i64,
    /// Since when the process serves.
    pub started_ms: i64,
    /// Which build runs.
    pub version: &'static str,
    /// A shutdown is under way.
    pub stopping: bool,
    /// Open client connections, of the most there may be.
    pub connections: Share,
    /// The configuration in force.
    pub config: ConfigState,
    /// Listeners with a revocation list that has ended, and when it did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended_revocation_lists: Vec<(&'static str, i64)>,
    /// The fleet; `None` without a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
    /// The databases.
    pub backends: Vec<Backend>,
    /// Whose queries hold the budgets, or wait for them, the largest first.
    pub holders: Vec<Holder>,
    /// Queries at the backends, the most expensive first.
    pub running: Queries,
    /// Queries that wait for budget, the most expensive first.
    pub waiting: Queries,
    /// Queries of which the cost is being found out, the oldest first.
    pub probing: Queries,
    /// The time that `tenants_by_cost` and `tenants_by_refusals` cover.
    pub recent_ms: u64,
    /// Tenants by the samples that their admitted queries were expected to read.
    pub tenants_by_cost: Vec<Tenant>,
    /// Tenants by their refused queries.
    pub tenants_by_refusals: Vec<Tenant>,
    /// Quotas of this hour or day, the most used first.
    pub quotas: Vec<Quota>,
    /// The latest refusals and failures, the newest first; the same one over and over is one entry.
    pub refusals: Vec<Refused>,
}

/// Usage of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The amount used.
    pub used: u64,
    /// The limit; `None` is unlimited.
    pub of: Option<u64>,
}

/// One database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Which API it speaks.
    pub kind: &'static str,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// The window in percent of its size before the cut: 100 where it is not cut, and 0 lets nothing run.
    pub budget_percent: u8,
    /// The pressure of each signal, 0 to 1.
    pub pressure: Vec<(&'static str, f64)>,
    /// Signals that should come and stay away.
    pub silent: Vec<&'static str>,
    /// Bytes of memory held by queries, of the open budget.
    pub memory: Share,
    /// Queries in flight, of the open budget.
    pub queries: Share,
    /// Bytes of the whole budget; `None` is unlimited.
    pub budget: Option<u64>,
    /// Why less than the budget is open, in words; `None` where all of it is.
    pub open_of: Option<String>,
    /// Bytes of memory with no heavy query running, of the limit, where that is high.
    pub at_rest: Option<Share>,
    /// Bytes of the window for heavy queries; `None` is unlimited.
    pub window: Option<u64>,
    /// Bytes of the heavy lane that are always this proxy's, those that it leases now, and those that all proxies lease
    /// from; `None` without a fleet.
    pub parts: Option<[u64; 3]>,
    /// The cause of the last cut of the window: a signal, `estimates` or `silence`.
    pub cut_by: Option<&'static str>,
    /// The lanes: queries in flight of the slots, and bytes held of those that are open.
    pub lanes: Vec<(&'static str, Share, Share)>,
    /// Bytes that are free for one class only.
    pub reserves: Vec<(String, u64)>,
    /// How many queries wait for each reason.
    pub reasons: Vec<(&'static str, u64)>,
    /// Queries that wait.
    pub waiting: u64,
    /// How long the first of them has waited.
    pub longest_wait_ms: u64,
    /// Notes for an operator, each as the end of a sentence about it.
    pub notes: Vec<String>,
}

/// One replica of a database.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replica {
    /// Where it is.
    pub url: String,
    /// The result of the health checks.
    pub healthy: bool,
    /// Left alone for a while after failures.
    pub ejected: bool,
    /// Requests under way.
    pub in_flight: usize,
    /// Why its latest check or request failed, as the end of a sentence about it; `None` since a check passed.
    pub last_error: Option<String>,
}

/// A tenant's quota in the hour or day of now.
#[derive(Clone, Debug, Serialize)]
pub struct Quota {
    /// Whose.
    pub tenant: String,
    /// Its unit: `queries` or `samples`.
    pub kind: &'static str,
    /// Used by all proxies, as far as known, of the quota.
    #[serde(flatten)]
    pub share: Share,
    /// Left before queries go to the slow lane.
    pub left: u64,
    /// How long the hour or day is, and when it is over.
    pub length_ms: u64,
    pub ends_ms: u64,
}

/// Some queries of many.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Queries {
    /// How many there are.
    pub total: usize,
    /// The most expensive of them.
    pub shown: Vec<Query>,
}

/// A query in the proxy.
#[derive(Clone, Debug, Serialize)]
pub struct Query {
    /// Its number, by which it can be stopped.
    pub id: u64,
    /// Its state: `probing`, `queued`, `running` or `streaming`.
    pub state: &'static str,
    /// The tenant that pays.
    pub tenant: String,
    /// The actor inside the tenant.
    pub actor: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its first evaluation time, milliseconds since the epoch.
    pub start_ms: Option<i64>,
    /// Its last evaluation time, milliseconds since the epoch.
    pub end_ms: Option<i64>,
    /// Milliseconds between two evaluations; 0 for an instant query.
    pub step_ms: Option<u64>,
    /// Its lane.
    pub class: String,
    /// Where it runs.
    pub backend: String,
    /// The endpoint.
    pub endpoint: &'static str,
    /// The same for queries that differ in their numbers only.
    pub fingerprint: String,
    /// Its text as the client wrote it, cut.
    pub text: String,
    /// Each selector of the query that runs has the tenant's labels as well; `text` is the client's own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enforced: bool,
    /// Series expected.
    pub series: Number,
    /// Series × storage blocks expected.
    pub blocks: Number,
    /// Samples expected.
    pub samples: Number,
    /// Series × steps expected.
    pub points: Number,
    /// Bytes that the backend is expected to hold.
    pub memory: Number,
    /// The part that it is at, from 1 on, of those that it is asked for in.
    pub part: u64,
    /// The parts that it is asked for in; 1 for a query that goes out as it came.
    pub parts: u64,
    /// Time since the request came.
    pub age_ms: u64,
    /// Why it waits; `None` when it does not.
    pub reason: Option<&'static str>,
    /// The reason for waiting, in words.
    pub waits_for: Option<&'static str>,
    /// Time that it waited for budget, until now if it still waits.
    pub waited_ms: u64,
    /// Bytes of the answer that have come, as the backend sent them.
    pub bytes: u64,
}

/// A number and how it is known; `None` is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Number {
    /// The number.
    pub value: Option<u64>,
    /// How it is known: `exact`, `upper_bound`, `learned`, `at_least`, `assumed`; `unknown` before the query is priced.
    pub known: &'static str,
}

/// The recent queries of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tenant {
    /// The name.
    pub tenant: String,
    /// Queries admitted.
    pub admitted: u64,
    /// Samples that these were expected to read, where anything was known.
    pub samples: u64,
    /// Queries refused, by the id of the limit, the most first.
    pub refused: Vec<(&'static str, u64)>,
}

impl Snapshot {
    /// The snapshot for machines, with its findings.
    ///
    /// # Errors
    /// None that is known of: there are only numbers and texts.
    pub fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Document<'a> {
            findings: Vec<Finding>,
            #[serde(flatten)]
            snapshot: &'a Snapshot,
        }
        serde_json::to_string(&Document { findings: self.findings(), snapshot: self })
    }
}
