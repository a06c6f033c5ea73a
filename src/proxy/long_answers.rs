//! Queries that are not worth splitting: their merged answers were too long.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::query::ParsedQuery;
use crate::{cost::QuerySplit, promql::Fingerprint};

/// Queries remembered whose answers were too long to be merged.
const LONG_ANSWERS: u64 = 1_024;
/// How long one is remembered.
const LONG_ANSWER_TTL: Duration = Duration::from_secs(600);

/// Queries whose answers were too long to be merged: backend, fingerprint and steps.
#[derive(Debug)]
pub(super) struct LongAnswers(Cache<(Arc<str>, Fingerprint, u64), ()>);

impl LongAnswers {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(LONG_ANSWERS).time_to_live(LONG_ANSWER_TTL).build())
    }

    /// How a query may be split, unless its answer was too long lately.
    pub(super) fn split<'q>(&self, query: &'q ParsedQuery, backend: &Arc<str>) -> Option<&'q QuerySplit> {
        let split = query.split.as_deref()?;
        let key = (Arc::clone(backend), query.fingerprint, query.shape.steps);
        (!self.0.contains_key(&key)).then_some(split)
    }

    pub(super) fn remember(&self, query: &ParsedQuery, backend: &Arc<str>) {
        self.0.insert((Arc::clone(backend), query.fingerprint, query.shape.steps), ());
    }
}
