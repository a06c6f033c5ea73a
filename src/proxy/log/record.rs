//! The end of every request, whatever it is: answered, refused, malformed, or left by its client at any stage. It is
//! counted and timed, and leaves one line in the log.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use crate::proxy::{
    log::active::{Board, Running, Ticket, Told},
    log::span::{Ended, Trace},
    meter::{Actual, Outcome, Progress},
    respond::failure::Failure,
    route::Endpoint,
};
use crate::{
    base::{Blame, ErrorKind, Estimate, QueryCost, TenantId},
    promql::Fingerprint,
    telemetry::metrics::Metrics,
};

/// Characters of a query, and of a message, in a log line.
const LOGGED_CHARS_MAX: usize = 1_000;

/// How far a query got: the stages of its way, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proxy) enum Stage {
    /// Who asks is not known yet.
    Identify,
    /// Its parameters are read, the body of the request included.
    Parse,
    /// Its cost is found out, by probes if need be.
    Estimate,
    /// It waits for budget.
    Admit,
    /// The backend has it and has not answered.
    Forward,
    /// The answer streams.
    Meter,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Parse => "parse",
            Self::Estimate => "estimate",
            Self::Admit => "admit",
            Self::Forward => "forward",
            Self::Meter => "meter",
        }
    }
}

/// Whose query it is, and where it runs.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Owner {
    /// Who pays.
    pub tenant: TenantId,
    /// Who inside the tenant.
    pub actor: Arc<str>,
    /// Name of the class.
    pub class: Arc<str>,
    /// Name of the backend.
    pub backend: Arc<str>,
}

/// What is known of a request so far. Dropped before its end was written, it writes that the request was dropped: the
/// client left, or a shutdown cut it.
#[derive(Debug)]
pub(in crate::proxy) struct Record {
    board: Arc<Board>,
    /// Its place among the queries on the status page.
    ticket: Option<Ticket>,
    metrics: Arc<Metrics>,
    pub(in crate::proxy) endpoint: Endpoint,
    began: Instant,
    stage: Stage,
    /// When the stage began.
    since: Instant,
    pub(in crate::proxy) owner: Option<Owner>,
    pub(in crate::proxy) query: Arc<str>,
    /// Known once it is parsed.
    pub(in crate::proxy) fingerprint: Option<Arc<str>>,
    pub(in crate::proxy) cost: Option<QueryCost>,
    waited: Duration,
    /// What holds once it may run.
    verdict: &'static str,
    /// The span that it leaves beside the line.
    trace: Option<Trace>,
    /// The line is still to be written.
    open: bool,
}

/// What only the end tells.
#[derive(Default)]
struct End<'a> {
    verdict: &'a str,
    outcome: &'static str,
    status: Option<u16>,
    limit: Option<&'a str>,
    error: Option<&'a str>,
    actual: Option<Actual>,
}

impl Record {
    /// A request that came at `began`; light ones are counted and leave no line.
    pub(in crate::proxy) fn new(
        endpoint: Endpoint,
        began: Instant,
        board: Arc<Board>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            board,
            ticket: None,
            metrics,
            endpoint,
            began,
            stage: Stage::Identify,
            since: began,
            owner: None,
            query: Arc::default(),
            fingerprint: None,
            cost: None,
            waited: Duration::ZERO,
            verdict: "admitted",
            trace: None,
            open: true,
        }
    }

    /// It leaves this span too.
    pub(in crate::proxy) fn trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }

    /// The record itself, for whoever writes it later; what stays behind writes nothing.
    pub(in crate::proxy) fn hand_over(&mut self) -> Self {
        let (board, metrics) = (Arc::clone(&self.board), Arc::clone(&self.metrics));
        let mut silent = Self::new(self.endpoint, self.began, board, metrics);
        silent.open = false;
        std::mem::replace(self, silent)
    }

    /// When the request came.
    pub(in crate::proxy) const fn began(&self) -> Instant {
        self.began
    }

    fn enter(&mut self, stage: Stage) {
        (self.stage, self.since) = (stage, Instant::now());
    }

    /// It is known who asks.
    pub(in crate::proxy) fn identified(&mut self, owner: Owner) {
        self.owner = Some(owner);
        self.enter(Stage::Parse);
    }

    /// What is asked makes no sense here.
    pub(in crate::proxy) fn unreadable(&mut self, text: &str) {
        self.query = short(text).into();
    }

    /// It is known what is asked.
    pub(in crate::proxy) fn parsed(&mut self, query: &str, fingerprint: Fingerprint) {
        self.query = short(query).into();
        self.fingerprint = Some(fingerprint.to_string().into());
        self.enter(Stage::Estimate);
    }

    /// It is known what it will cost.
    pub(in crate::proxy) fn estimated(&mut self, cost: QueryCost) {
        self.cost = Some(cost);
        self.enter(Stage::Admit);
    }

    /// It asks to run. From here to its end it is seen on the status page.
    pub(in crate::proxy) fn asks(&mut self) {
        let Some((owner, cost)) = self.owner.clone().zip(self.cost) else { return };
        self.ticket = Some(self.board.enter(Running {
            owner,
            cost,
            endpoint: self.endpoint,
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            query: Arc::clone(&self.query),
            began: self.began,
            asked: self.since,
        }));
    }

    /// It may run, after having waited so long. Gives what its answer tells and is told.
    pub(in crate::proxy) fn admitted(&mut self, waited: Duration) -> Arc<Progress> {
        self.waited = waited;
        self.enter(Stage::Forward);
        self.ticket.as_ref().map(|ticket| ticket.admitted(waited)).unwrap_or_default()
    }

    /// A limit that is only watched would have refused it.
    pub(in crate::proxy) fn hit(&self, limit: &'static str, status: u16, message: &str) {
        self.tell(Told { reason: limit, status, message, shadow: true });
    }

    fn tell(&self, told: Told<'_>) {
        if let Some(owner) = &self.owner {
            self.board.tell(owner, self.fingerprint.as_deref().unwrap_or_default(), &self.query, told);
        }
    }

    /// The head of its answer is there.
    pub(in crate::proxy) fn answered(&mut self) {
        self.enter(Stage::Meter);
    }

    /// The record before dispatch, so that the query behind a crash is known.
    pub(in crate::proxy) fn dispatch(&self) {
        let (owner, cost) = (self.owner.as_ref(), self.cost.as_ref());
        tracing::info!(
            target: "weir::dispatch",
            tenant = owner.map(|o| o.tenant.as_str()), actor = owner.map(|o| &*o.actor),
            class = owner.map(|o| &*o.class), backend = owner.map(|o| &*o.backend),
            endpoint = self.endpoint.as_str(), fingerprint = self.fingerprint.as_deref(),
            series = cost.map(|d| logged(d.series)), samples = cost.map(|d| logged(d.samples)),
            memory_bytes = cost.map(|d| logged(d.memory)), known = cost.map(|d| d.memory.confidence.as_str()),
            query = &*self.query, "dear query goes out"
        );
    }

    /// It may run uncounted.
    pub(in crate::proxy) fn free(&mut self) {
        self.verdict = "free";
        self.enter(Stage::Forward);
    }

    /// Weir answered itself.
    pub(in crate::proxy) fn explained(&mut self) {
        let status = Some(StatusCode::OK.as_u16());
        self.write(End { verdict: "explained", outcome: "passed", status, ..End::default() });
    }

    /// The answer passes uncounted.
    pub(in crate::proxy) fn passed(&mut self, status: StatusCode) {
        let status = Some(status.as_u16());
        self.write(End { verdict: self.verdict, outcome: "passed", status, ..End::default() });
    }

    /// It failed before a byte of an answer was sent.
    pub(in crate::proxy) fn failed(&mut self, failure: &Failure) {
        let limit = failure.limit;
        let refused = self.stage < Stage::Forward;
        let query = self.open && self.endpoint != Endpoint::Light;
        if query && failure.kind.blame() != Blame::Client {
            let reason = limit.unwrap_or(failure.kind.label());
            let status = failure.status().as_u16();
            self.tell(Told { reason, status, message: &failure.message, shadow: false });
        }
        self.write(End {
            verdict: if refused { limit.unwrap_or(failure.kind.label()) } else { self.verdict },
            outcome: match failure.kind {
                _ if refused => "refused",
                ErrorKind::LimitExceeded => "cut_off",
                _ => Outcome::Failed.label(),
            },
            status: Some(failure.status().as_u16()),
            limit: limit.filter(|_| !refused),
            error: Some(&failure.message),
            actual: None,
        });
    }

    /// Its answer ended; `status` is the backend's, which the client has seen.
    pub(in crate::proxy) fn ended(&mut self, status: u16, outcome: Outcome, actual: Actual) {
        let limit = match outcome {
            Outcome::CutOff(limit) => Some(limit.id()),
            Outcome::Complete | Outcome::Failed | Outcome::Dropped | Outcome::Late => None,
        };
        self.write(End {
            verdict: self.verdict,
            outcome: outcome.label(),
            status: Some(status),
            limit,
            error: (outcome == Outcome::Late).then_some("the client did not take its answer in time"),
            actual: Some(actual),
        });
    }

    fn write(&mut self, end: End<'_>) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        self.ticket = None;
        self.metrics.ended(self.endpoint.as_str(), end.outcome, end.status, self.began.elapsed());
        if self.endpoint == Endpoint::Light {
            return;
        }
        let waited = if self.stage == Stage::Admit { self.since.elapsed() } else { self.waited };
        let (owner, cost, actual) = (self.owner.as_ref(), self.cost.as_ref(), end.actual.as_ref());
        tracing::info!(
            target: "weir::query",
            tenant = owner.map(|o| o.tenant.as_str()), actor = owner.map(|o| &*o.actor),
            class = owner.map(|o| &*o.class), backend = owner.map(|o| &*o.backend),
            endpoint = self.endpoint.as_str(), fingerprint = self.fingerprint.as_deref(),
            verdict = end.verdict, status = end.status, outcome = end.outcome, stage = self.stage.as_str(),
            limit = end.limit, error = end.error.map(short),
            wait_ms = waited.as_millis() as u64, took_ms = self.began.elapsed().as_millis() as u64,
            est_series = cost.map(|d| logged(d.series)), est_samples = cost.map(|d| logged(d.samples)),
            est_memory_bytes = cost.map(|d| logged(d.memory)), known = cost.map(|d| d.series.confidence.as_str()), est_pieces = cost.map(|d| d.pieces),
            answer_series = actual.map(|a| a.series), answer_samples = actual.map(|a| a.samples),
            answer_bytes = actual.map(|a| a.bytes_decoded), query = &*self.query, "query"
        );
        if let Some(trace) = self.trace.take() {
            let ended = Ended {
                verdict: end.verdict,
                outcome: end.outcome,
                status: end.status,
                error: end.error,
                actual,
                waited,
            };
            trace.end(self, &ended);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let verdict = match self.stage {
            // The client gets a 500, and the log says before this line what is broken.
            _ if std::thread::panicking() => ErrorKind::Internal.label(),
            Stage::Forward | Stage::Meter => self.verdict,
            _ => "undecided",
        };
        self.write(End { verdict, outcome: Outcome::Dropped.label(), ..End::default() });
    }
}

/// A number for a log line; -1 where it is unknown, since fields that are sometimes words cannot be charted.
fn logged(number: Estimate) -> i64 {
    i64::try_from(number.value).unwrap_or(-1)
}

/// A text for a log line.
pub(in crate::proxy) fn short(text: &str) -> &str {
    match text.char_indices().nth(LOGGED_CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
