//! The state that all requests share: data alone, so that every file of the stack may name it. The functions over it are
//! beside the layers that call them.

use std::sync::{Arc, atomic::AtomicBool};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::{
    config::ConfigSnapshot,
    fleet::SharedCounts,
    log::QueryLogs,
    long_answers::LongAnswers,
    query::{body::Bodies, offload::LongTexts},
    rules::QueryRules,
};
use crate::{cost::History, limit::Admission, promql, telemetry::metrics::Metrics};

/// The state that all requests share. A request brings it along, so that the layers own nothing: each copy of a layer
/// would cost reference counts that all threads write to.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identifier: Identifier,
    pub(super) reader: QueryReader,
    pub(super) rules: Arc<QueryRules>,
    pub(super) pricing: Pricing,
    pub(super) settler: Settler,
}

/// Identifies the callers of requests, which makes queries of them.
#[derive(Debug)]
pub(super) struct Identifier {
    pub(super) config: ArcSwap<ConfigSnapshot>,
    pub(super) logs: Arc<QueryLogs>,
    pub(super) stopping: AtomicBool,
}

/// Reads queries.
#[derive(Debug)]
pub(super) struct QueryReader {
    pub(super) bodies: Bodies,
    pub(super) long_texts: LongTexts,
    /// Parsed queries.
    pub(super) cache: promql::Cache,
}

/// Prices queries.
#[derive(Debug)]
pub(super) struct Pricing {
    pub(super) admission: Arc<Admission>,
    pub(super) history: Arc<History>,
    /// Counts of other proxies, in a fleet.
    pub(super) counts: Option<Arc<SharedCounts>>,
    pub(super) long_answers: LongAnswers,
    pub(super) metrics: Arc<Metrics>,
    /// Bounds the searches for queries that pass in place of refused ones.
    pub(super) fix_searches: Semaphore,
}

/// Where the real costs of queries go.
#[derive(Debug)]
pub(super) struct Settler {
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
    /// Observed costs are offered to other proxies.
    pub(super) in_fleet: bool,
    /// Milliseconds since the epoch.
    pub(super) clock: fn() -> i64,
}
