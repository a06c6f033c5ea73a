//! The end of every request: answered, refused, malformed, or left by its client at any stage. It is
//! counted and timed, and leaves one line in the log.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Owner, Rejection,
    active::{ActiveGuard, ActiveQueries, Facts, PricedRequest},
    fields::{logged, short},
    sampled::SampledLines,
    span::{Ended, Trace},
    stage::Stage,
};
use crate::{
    base::{Blame, ErrorKind, Estimate, QueryCost, time::EvalTimes},
    cost::Estimated,
    journal::{self, Basis, Journal, SelectorCount},
    limit::{LimitName, ShadowHit},
    promql::Fingerprint,
    proxy::{
        meter::{Actual, Cancellation, EndRecord, Outcome, Progress},
        query::ParsedQuery,
        respond::failure::Failure,
        route::Endpoint,
    },
    telemetry::{metrics::Metrics, otlp},
};

/// A line of the log: the fields that every line about a query has, then its own.
macro_rules! log_line {
    ($log:expr, target: $target:literal, $message:literal, $($field:tt)*) => {{
        let (owner, times) = ($log.owner.as_ref(), $log.times.as_ref());
        let origin = owner.map(|owner| &owner.origin);
        tracing::info!(
            target: $target,
            tenant = owner.map(|o| o.tenant.as_str()), actor = owner.map(|o| &*o.actor),
            class = owner.map(|o| &*o.class), backend = owner.map(|o| &*o.backend),
            user = origin.and_then(|o| o.user.as_deref()), dashboard = origin.and_then(|o| o.dashboard.as_deref()),
            panel = origin.and_then(|o| o.panel.as_deref()), client = origin.and_then(|o| o.client).map(tracing::field::display),
            trace_id = origin.and_then(|o| o.trace_id.as_deref()),
            endpoint = $log.endpoint.as_str(), fingerprint = $log.fingerprint.map(tracing::field::display),
            enforced = $log.enforced.then_some(true), start_ms = times.map(|t| t.start), end_ms = times.map(|t| t.end), step_ms = times.map(|t| t.step),
            $($field)*
            query = $log.query(), $message
        );
    }};
}

/// Where the records of all queries go.
#[derive(Debug)]
pub(in crate::proxy) struct QueryLogs {
    pub active: Arc<ActiveQueries>,
    pub metrics: Arc<Metrics>,
    /// Where spans go, if anywhere.
    pub spans: OnceLock<otlp::Sender>,
    /// Where queries are kept, if anywhere.
    pub journal: OnceLock<Journal>,
    pub rate_lines: SampledLines,
    /// Milliseconds since the epoch.
    pub clock: fn() -> i64,
}

impl QueryLogs {
    /// The record of a request that came at `began`. The spans of its backend become part of its trace: `headers` name
    /// it.
    pub(in crate::proxy) fn begin(
        self: &Arc<Self>,
        endpoint: Endpoint,
        began: Instant,
        headers: &mut HeaderMap,
    ) -> Box<QueryLog> {
        let spans = self.spans.get().filter(|_| endpoint != Endpoint::Light);
        let trace = spans.and_then(|spans| Trace::begin(spans, headers, self.clock));
        Box::new(QueryLog {
            logs: Arc::clone(self),
            active: None,
            endpoint,
            began,
            came_ms: (self.clock)(),
            stage: Stage::Identify,
            priced: began,
            owner: None,
            query: None,
            text: None,
            text_is_cut: false,
            enforced: false,
            fingerprint: None,
            times: None,
            cost: None,
            parts: 1,
            price: None,
            waited: Duration::ZERO,
            verdict: "admitted",
            shadowed: Vec::new(),
            shadow_ids: String::new(),
            slow: false,
            clamped: false,
            backend_error: None,
            trace,
            open: true,
        })
    }
}

/// The record of a request so far. Dropped before its end was written, it writes that the request was dropped: the
/// client left, or a shutdown cut it.
#[derive(Debug)]
pub(in crate::proxy) struct QueryLog {
    pub(super) logs: Arc<QueryLogs>,
    /// Its place among the queries on the status page.
    active: Option<ActiveGuard>,
    pub(super) endpoint: Endpoint,
    pub(super) began: Instant,
    /// The same in milliseconds since the epoch.
    pub(super) came_ms: i64,
    stage: Stage,
    /// When its cost was known; until then, when it came.
    priced: Instant,
    pub(super) owner: Option<Arc<Owner>>,
    pub(super) query: Option<Arc<str>>,
    /// The same for the journal, which keeps more of it.
    pub(super) text: Option<Arc<str>>,
    pub(super) text_is_cut: bool,
    /// It is confined to its tenant's labels, which its text does not show.
    enforced: bool,
    pub(super) fingerprint: Option<Fingerprint>,
    /// Start, end and step, milliseconds.
    pub(super) times: Option<EvalTimes>,
    pub(super) cost: Option<QueryCost>,
    /// Requests that it is asked for in.
    pub(super) parts: u64,
    /// How it was priced, where a journal keeps that.
    pub(super) price: Option<Price>,
    waited: Duration,
    /// Its verdict once it may run.
    verdict: &'static str,
    /// Limits in shadow mode that it passed and that are not written down yet.
    shadowed: Vec<ShadowHit>,
    /// The ids of those that are.
    pub(super) shadow_ids: String,
    slow: bool,
    clamped: bool,
    /// The text of the backend's own error.
    backend_error: Option<Box<str>>,
    /// The span that it leaves beside the line.
    trace: Option<Trace>,
    /// The line is still to be written.
    open: bool,
}

/// How a query was priced, beside its cost.
#[derive(Debug)]
pub(super) struct Price {
    pub(super) whole_memory: Estimate,
    pub(super) counts: SmallVec<[SelectorCount; 2]>,
    pub(super) basis: Basis,
}

/// The fields that only the end of a query knows.
#[derive(Default)]
pub(super) struct End<'a> {
    pub(super) verdict: &'static str,
    pub(super) outcome: &'static str,
    pub(super) status: Option<u16>,
    pub(super) limit: Option<&'static str>,
    error: Option<&'a str>,
    pub(super) actual: Option<Actual>,
}

impl QueryLog {
    /// When the request came.
    pub(in crate::proxy) const fn began(&self) -> Instant {
        self.began
    }

    /// The same in milliseconds since the epoch: the time of everything that is worked out for it.
    pub(in crate::proxy) const fn came_ms(&self) -> i64 {
        self.came_ms
    }

    /// A later time of the same clock.
    pub(in crate::proxy) fn ms_at(&self, at: Instant) -> i64 {
        self.came_ms.saturating_add_unsigned(at.saturating_duration_since(self.began).as_millis() as u64)
    }

    /// Its text, cut.
    pub(in crate::proxy) fn query(&self) -> &str {
        self.query.as_deref().unwrap_or_default()
    }

    /// The paying tenant and the origin, once they are known.
    pub(in crate::proxy) fn owner(&self) -> Option<&Owner> {
        self.owner.as_deref()
    }

    /// The client is identified.
    pub(in crate::proxy) fn identified(&mut self, owner: Owner) {
        self.owner = Some(Arc::new(owner));
        self.stage = Stage::Parse;
    }

    /// The query cannot be read.
    pub(in crate::proxy) fn unreadable(&mut self, text: &str) {
        self.query = Some(short(text).into());
    }

    /// It is confined to its tenant's labels, if it can be; its text stays the client's.
    pub(in crate::proxy) fn enforced(&mut self, is_confined: bool) {
        self.enforced = true;
        if let Some(owner) = &self.owner {
            self.logs
                .metrics
                .label_enforcement(&owner.tenant, if is_confined { "confined" } else { "refused" });
        }
    }

    /// The query is parsed.
    pub(in crate::proxy) fn parsed(&mut self, query: &ParsedQuery) {
        let shown: Arc<str> = short(&query.text).into();
        if self.logs.journal.get().is_some() {
            let kept = journal::kept(&query.text);
            self.text_is_cut = kept.len() < query.text.len();
            self.text = Some(if kept.len() == shown.len() { Arc::clone(&shown) } else { kept.into() });
        }
        (self.query, self.fingerprint) = (Some(shown), Some(query.fingerprint));
        (self.times, self.stage) = (query.times, Stage::Estimate);
    }

    /// The query is priced. Gives the time that this took.
    pub(in crate::proxy) fn estimated(&mut self, estimated: &Estimated) -> Duration {
        (self.cost, self.parts) = (Some(estimated.cost), estimated.parts);
        if let Some(Price { basis, .. }) = self.price.take() {
            self.price(estimated, basis);
        }
        (self.stage, self.priced) = (Stage::Admit, Instant::now());
        self.priced.saturating_duration_since(self.began)
    }

    /// The inputs of its price, for the journal.
    pub(in crate::proxy) fn price(&mut self, estimated: &Estimated, basis: Basis) {
        if self.logs.journal.get().is_some() {
            let Estimated { whole_memory, selectors, .. } = estimated;
            let counts = selectors.iter().map(SelectorCount::from).collect();
            self.price = Some(Price { whole_memory: *whole_memory, counts, basis });
        }
    }

    /// It is about to be priced. From here to its end it is one of the active queries. Gives the handle on its answer.
    pub(in crate::proxy) fn probing(&mut self) -> Arc<Progress> {
        let Some(facts) = self.facts() else { return Arc::default() };
        self.active.insert(self.logs.active.enter(facts)).progress()
    }

    fn facts(&self) -> Option<Facts> {
        let (owner, query) = (self.owner.clone()?, self.query.clone());
        let Self { endpoint, fingerprint, enforced, times, began, .. } = *self;
        Some(Facts { owner, endpoint, fingerprint, query, enforced, times, began })
    }

    /// It asks to run, perhaps again in another way.
    pub(in crate::proxy) fn queued(&mut self) {
        if let Some((active, cost)) = self.active.as_mut().zip(self.cost) {
            active.queued(PricedRequest { cost, parts: self.parts, at: self.priced });
        }
    }

    /// The handle on its answer, from when it is priced.
    pub(in crate::proxy) fn progress(&self) -> Option<Arc<Progress>> {
        self.active.as_ref().map(ActiveGuard::progress)
    }

    /// The number by which admission knows it; 0 before it is priced.
    pub(in crate::proxy) fn tag(&self) -> u64 {
        self.active.as_ref().map_or(0, ActiveGuard::tag)
    }

    /// It may run, after having waited this long; for the `first` time it is counted. Gives the handle on its answer.
    pub(in crate::proxy) fn admitted(&mut self, waited: Duration, first: bool) -> Arc<Progress> {
        self.waited = waited;
        if let Some(owner) = self.owner.as_ref().filter(|_| first) {
            self.logs.metrics.admitted(&owner.tenant, &owner.class, waited);
        }
        self.stage = Stage::Forward;
        self.write_shadowed();
        self.active.as_ref().map(|active| active.admitted(waited)).unwrap_or_default()
    }

    /// It passed this soft limit in this mode (`enforce` or `shadow`).
    pub(in crate::proxy) fn over_soft_limit(&self, limit: LimitName, mode: &'static str) {
        if let Some(owner) = &self.owner {
            self.logs.metrics.over_soft_limit(&owner.tenant, limit.id(), mode);
        }
    }

    /// It runs in the slow lane.
    pub(in crate::proxy) fn slow(&mut self) {
        self.slow = true;
    }

    /// A rule cut it.
    pub(in crate::proxy) fn clamped(&mut self) {
        self.clamped = true;
    }

    /// It passed these limits in shadow mode. They are written down with its text, or with its end.
    pub(in crate::proxy) fn shadowed(&mut self, hits: Vec<ShadowHit>) {
        self.shadowed.extend(hits);
    }

    fn write_shadowed(&mut self) {
        for hit in std::mem::take(&mut self.shadowed) {
            let Some(owner) = &self.owner else { continue };
            if !self.shadow_ids.is_empty() {
                self.shadow_ids.push(',');
            }
            self.shadow_ids.push_str(hit.id());
            self.logs.metrics.refused(&owner.tenant, hit.id(), "shadow", hit.kind);
            tracing::info!(
                target: "weir::shadow",
                tenant = %owner.tenant, actor = &*owner.actor, class = &*owner.class, backend = &*owner.backend,
                fingerprint = self.fingerprint.map(tracing::field::display), limit = hit.id(), query = self.query(),
                "would be refused: {hit}"
            );
            let (reason, status) = (hit.id(), hit.kind.status());
            self.reject(Rejection { reason, status, message: &hit.message(), shadow: true });
        }
    }

    fn reject(&self, rejection: Rejection<'_>) {
        if let Some(owner) = &self.owner {
            let fingerprint = self.fingerprint.map(|f| f.to_string()).unwrap_or_default();
            self.logs.active.rejected(owner, &fingerprint, self.query(), rejection);
        }
    }

    /// The head of its answer is there.
    pub(in crate::proxy) fn answered(&mut self) {
        self.stage = Stage::Meter;
    }

    /// The backend answered with an error; this is its text.
    pub(in crate::proxy) fn backend_error(&mut self, text: &str) {
        self.backend_error = Some(short(text).into());
    }

    /// The line before an expensive query is dispatched, so that the query behind a crash is known.
    pub(in crate::proxy) fn dispatched(&self) {
        let cost = self.cost.as_ref();
        log_line!(
            self, target: "weir::dispatch", "dispatching expensive query",
            series = cost.map(|c| logged(c.series)), samples = cost.map(|c| logged(c.samples)),
            memory_bytes = cost.map(|c| logged(c.memory)), known = cost.map(|c| c.confidence().as_str()),
        );
    }

    /// It may run uncounted.
    pub(in crate::proxy) fn free(&mut self) {
        (self.verdict, self.stage) = ("free", Stage::Forward);
    }

    /// The same at a backend: it is one of the active queries as long as the guard is there.
    pub(in crate::proxy) fn uncounted(&mut self, path: &str) -> Option<ActiveGuard> {
        self.free();
        let facts = self.facts()?;
        let query = facts.query.filter(|text| !text.is_empty()).or_else(|| Some(path.into()));
        Some(self.logs.active.enter_uncounted(Facts { query, ..facts }))
    }

    /// Weir answered itself; it asked for no place.
    pub(in crate::proxy) fn explained(&mut self) {
        self.stage = Stage::Estimate;
        self.write(End { verdict: "explained", outcome: "passed", status: Some(200), ..End::default() });
    }

    /// The answer passes uncounted.
    pub(in crate::proxy) fn passed(&mut self, status: StatusCode) {
        let (status, error) = (Some(status.as_u16()), self.backend_error.take());
        let (verdict, error) = (self.verdict, error.as_deref());
        self.write(End { verdict, outcome: "passed", status, error, ..End::default() });
    }

    /// It failed before a byte of an answer was sent.
    pub(in crate::proxy) fn failed(&mut self, failure: &Failure) {
        let limit = failure.limit;
        let refused = self.stage < Stage::Forward;
        if let (Some(id), Some(owner)) = (limit, &self.owner) {
            self.logs.metrics.refused(&owner.tenant, id, "enforce", failure.kind);
        }
        let query = self.open && self.endpoint != Endpoint::Light;
        if query && failure.kind.blame() != Blame::Client {
            let reason = limit.unwrap_or(failure.kind.label());
            let status = failure.status().as_u16();
            self.reject(Rejection { reason, status, message: &failure.message, shadow: false });
        }
        self.write(End {
            verdict: if refused { limit.unwrap_or(failure.kind.label()) } else { self.verdict },
            outcome: match failure.kind {
                _ if refused => "refused",
                ErrorKind::LimitExceeded if limit.is_some() => "cut_off",
                _ => Outcome::Failed.label(),
            },
            status: Some(failure.status().as_u16()),
            limit: limit.filter(|_| !refused),
            error: Some(&failure.message),
            actual: None,
        });
    }

    fn write(&mut self, end: End<'_>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        self.active = None;
        let took = self.began.elapsed();
        self.logs.metrics.ended(self.endpoint.as_str(), end.outcome, end.status, took);
        if self.endpoint == Endpoint::Light {
            return;
        }
        self.write_shadowed();
        let waited = if self.stage == Stage::Admit { self.priced.elapsed() } else { self.waited };
        let is_by_rate = end.status == Some(ErrorKind::RateLimited.status());
        if !is_by_rate || self.logs.rate_lines.takes_one((self.logs.clock)()) {
            self.write_line(&end, took, waited);
        }
        if let Some(trace) = self.trace.take() {
            let ended = Ended {
                verdict: end.verdict,
                outcome: end.outcome,
                status: end.status,
                error: end.error,
                actual: end.actual.as_ref(),
                waited,
            };
            trace.end(self, &ended);
        }
        let record = (!self.endpoint.is_explained() && self.logs.journal.get().is_some())
            .then(|| self.record(&end, took, waited));
        if let (Some(journal), Some(record)) = (self.logs.journal.get(), record) {
            journal.write(record);
        }
    }

    fn write_line(&self, end: &End<'_>, took: Duration, waited: Duration) {
        let (cost, actual) = (self.cost.as_ref(), end.actual.as_ref());
        log_line!(
            self, target: "weir::query", "query",
            verdict = end.verdict, status = end.status, outcome = end.outcome, stage = self.stage.as_str(),
            limit = end.limit, error = end.error.map(short),
            shadowed = Some(&*self.shadow_ids).filter(|ids| !ids.is_empty()),
            slow = self.slow.then_some(true), clamped = self.clamped.then_some(true),
            wait_ms = waited.as_millis() as u64, took_ms = took.as_millis() as u64,
            est_series = cost.map(|c| logged(c.series)), est_samples = cost.map(|c| logged(c.samples)),
            est_memory_bytes = cost.map(|c| logged(c.memory)), known = cost.map(|c| c.confidence().as_str()),
            est_pieces = cost.map(|_| self.parts),
            answer_series = actual.map(|a| a.series), answer_samples = actual.map(|a| a.samples),
            answer_bytes = actual.map(|a| a.bytes_decoded),
        );
    }
}

impl EndRecord for QueryLog {
    fn ended(&mut self, status: u16, outcome: Outcome, actual: Actual) {
        let limit = if let Outcome::CutOff(limit) = outcome { Some(limit.id()) } else { None };
        let late = (outcome == Outcome::Late).then_some("the client did not take its answer in time");
        let progress = self.progress();
        let cancelled = progress.as_ref().and_then(|progress| progress.cancelled());
        let cancelled = cancelled.filter(|_| limit.is_some()).map(Cancellation::message);
        let backend_error = self.backend_error.take();
        self.write(End {
            verdict: self.verdict,
            outcome: outcome.label(),
            status: Some(status),
            limit,
            error: cancelled.as_deref().or(late).or(backend_error.as_deref()),
            actual: Some(actual),
        });
    }
}

impl Drop for QueryLog {
    fn drop(&mut self) {
        let verdict = match self.stage {
            // The client gets a 500, and an earlier line of the log names the defect.
            _ if std::thread::panicking() => ErrorKind::Internal.label(),
            Stage::Forward | Stage::Meter => self.verdict,
            _ => "undecided",
        };
        self.write(End { verdict, outcome: Outcome::Dropped.label(), ..End::default() });
    }
}
