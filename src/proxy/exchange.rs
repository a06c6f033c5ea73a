//! A query on its way through the stack: each stage is a type that adds to the one before.
//!
//! The ways in which it ends without an answer:
//!
//! | type | is | made by |
//! |---|---|---|
//! | [`Refusal`] | a limit that it exceeds | `limit` |
//! | [`Failure`] | the error that its client reads | the step that decides it, or a [`Refusal`] |
//! | [`Rejected`] | a failure and the log, on their way up | a layer |
//! | `Halted` | a rejection, or `NotMerged`: it runs again as a whole | `meter`, for `replan` |
//! | `Rejection` | a failure, as the page shows it | `log` |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::request::Parts;
use tokio::time::Instant;

use super::{
    config::ConfigSnapshot,
    identify::{Identity, OnBehalfOf},
    log::QueryLog,
    query::ParsedQuery,
    respond::{Fix, failure::Failure},
    route::Endpoint,
    shared::Shared,
    upstream::Upstream,
};
use crate::{
    backend::Outgoing,
    base::{QueryCost, TenantId},
    cost::Estimated,
    limit::{AdmissionRequest, Charged, MemoryThresholds, PerQuery, Policy, Refusal, TenantPolicy},
    promql::enforce::LabelEnforcement,
    rules::Rule,
};

/// The time that a request has when no limit says less.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// A query at one stage. One box for each request: moving it on to the next stage moves the stage's own part only.
#[derive(Debug)]
pub(super) struct Exchange<S> {
    pub(super) common: Box<Common>,
    pub(super) stage: S,
}

/// The part of an exchange that is the same from identify on.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) shared: Arc<Shared>,
    /// The settings that hold for this query to its end, across reloads.
    pub(super) config: Arc<ConfigSnapshot>,
    /// Method, target below the backend's URL, and the headers that go on, until they are taken for that.
    pub(super) head: Parts,
    pub(super) endpoint: Endpoint,
    pub(super) caller: Identity,
    pub(super) upstream: Arc<Upstream>,
    pub(super) policy: Arc<TenantPolicy>,
    pub(super) log: Box<QueryLog>,
    /// The rule that is about it, where it is only explained.
    pub(super) rule: Option<Arc<Rule>>,
    /// A rule sends it to the slow lane.
    pub(super) slow: bool,
    /// The labels that its tenant is confined to.
    pub(super) enforced: Option<Arc<LabelEnforcement>>,
    /// The client's own text, where a confined one runs in its place.
    pub(super) own_text: Option<Box<str>>,
    /// Warnings for its answer.
    pub(super) warnings: Vec<String>,
}

/// Its body is still to be read.
#[derive(Debug)]
pub(super) struct Identified<B> {
    pub(super) body: B,
    /// It is over its tenant's rate, and runs only if it costs nothing.
    pub(super) over_rate: Option<Refusal>,
}

/// The query is parsed.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) query: Box<ParsedQuery>,
    pub(super) body: Bytes,
}

/// The query is priced.
#[derive(Debug)]
pub(super) struct Priced {
    pub(super) query: Box<ParsedQuery>,
    pub(super) estimate: Estimated,
    /// A query that passes, where this one is refused.
    pub(super) fix: Option<Box<Fix>>,
    pub(super) outgoing: Box<Outgoing>,
    /// The time from its arrival to its last byte.
    pub(super) time: Duration,
    pub(super) deadline: Instant,
    /// A query up to this size is light, bytes.
    pub(super) light: u64,
    /// Which of its tenant's rates are charged for it.
    pub(super) charged: Charged,
}

/// A query that gets no answer from a backend. Its log comes home with it; a request that is no query has none.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) log: Option<Box<QueryLog>>,
    pub(super) failure: Failure,
}

impl Common {
    /// It ends here.
    pub(super) fn reject(self: Box<Self>, failure: impl Into<Failure>) -> Rejected {
        Rejected { log: Some(self.log), failure: failure.into() }
    }

    /// The name of its class; `adhoc` if it matches none.
    pub(super) fn class(&self) -> &str {
        self.config.class(self.caller.class)
    }

    /// The tenants whose rates it counts towards, unless it is a health check.
    pub(super) fn counted(&self) -> &[TenantId] {
        let is_nobodys = self.head.extensions.get::<OnBehalfOf>().is_some();
        if is_nobodys || self.endpoint == Endpoint::Light { &[] } else { self.caller.payers() }
    }

    pub(super) fn limits(&self) -> &PerQuery {
        self.policy.per_query(Some(self.class()))
    }

    /// The time that it has: the client's, if it is willing to wait less than it may.
    pub(super) fn time(&self, query: &ParsedQuery) -> Duration {
        [query.timeout, self.timeout()].into_iter().flatten().min().unwrap_or(TIME_MAX).min(TIME_MAX)
    }

    /// The limit on its time.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.limits().timeout_ms.enforced().map(Duration::from_millis)
    }

    /// The thresholds of one query within its backend's budget.
    pub(super) fn memory_thresholds(&self, policy: &Policy) -> MemoryThresholds {
        let Upstream { backend, split_percent, .. } = &*self.upstream;
        policy.memory_thresholds(&self.caller.tenant, Some(self.class()), backend.name(), *split_percent)
    }

    /// Its request for admission. Backend and class are named: a reload may have moved them.
    pub(super) fn admission_request(
        &self,
        cost: QueryCost,
        deadline: Instant,
        charged: Charged,
    ) -> AdmissionRequest {
        let Identity { actor, class, .. } = &self.caller;
        AdmissionRequest {
            payers: self.caller.payers().into(),
            actor: Arc::clone(actor),
            class: Some(Arc::clone(self.config.class(*class))),
            backend: Arc::clone(self.upstream.backend.shared_name()),
            cost,
            deadline,
            charged,
            slow: self.slow,
            tag: self.log.tag(),
        }
    }
}
