//! How a query is evaluated.

use std::sync::Arc;

use super::{
    buffers::Pools,
    meter::{Limits, ReadObserver},
    workers::Workers,
};
use crate::node::pool::Others;

/// How a query is evaluated.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a sample stays visible to an instant vector, in milliseconds.
    pub lookback_ms: u64,
    /// Step of a subquery that names none, in milliseconds.
    pub subquery_step_ms: u64,
    /// Limits of the query.
    pub limits: Limits,
    /// Threads that may help.
    pub workers: Workers,
    /// Where its memory comes from; from the allocator if it is nothing.
    pub pools: Option<Pools>,
    /// The other queries, if those leave memory to it ([`Cap::give_way`](crate::node::pool::Cap::give_way)).
    pub first: Option<Arc<dyn Others>>,
    /// The observer of its reads.
    pub observer: Option<Arc<dyn ReadObserver>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            limits: Limits::default(),
            workers: Workers::default(),
            pools: None,
            first: None,
            observer: None,
        }
    }
}
