//! The errors of all stages, on their way to the one place that makes error responses.

use std::time::Duration;

use http::{Response, StatusCode, header, response};

use crate::proxy::{
    identify::{IdentifyError, JwtError},
    meter::{Actual, BodyError, Cancellation},
    query::QueryError,
    respond::{self, Body, Extra, Fix},
    route::{Endpoint, RouteError},
};
use crate::{
    backend::{BackendError, ProbeError, parameters::Refused},
    base::{ErrorKind, duration, params::ParamError, units},
    cost::{Estimated, explain},
    limit::{LimitName, Refusal},
    promql::{ParseError, Part, Reason},
    rules::Rule,
};

/// Bytes of a backend's own error text that are shown.
const EXCERPT_CHARS: usize = 300;

/// Until a backend that could not be asked about a query may be asked.
const UNASKED_RETRY: Duration = Duration::from_secs(5);
/// Until a backend that ran out of memory may have some again.
const RECALLED_RETRY: Duration = Duration::from_secs(10);

/// The request to a backend, and its tenant.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct BackendRequest<'a> {
    pub(in crate::proxy) endpoint: Endpoint,
    /// The backend's name.
    pub(in crate::proxy) backend: &'a str,
    /// The client's own credentials went with it.
    pub(in crate::proxy) with_credentials: bool,
}

impl BackendRequest<'_> {
    /// Whether a status speaks of Weir's access to the backend, and not of the client's. An endpoint that only some
    /// databases have may be missing at one that is where it should be.
    pub(in crate::proxy) fn is_about_access(self, status: StatusCode) -> bool {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => !self.with_credentials,
            StatusCode::NOT_FOUND => self.endpoint.is_everywhere(),
            _ => false,
        }
    }
}

/// Why a request gets no answer from a backend.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Failure {
    /// Status, label and blame.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The id of the limit that it is due to.
    pub limit: Option<&'static str>,
    /// For machines, as headers.
    pub extra: Box<Extra>,
    /// The backend's own status, where it is worth more to the client than Weir's.
    pub status: Option<StatusCode>,
}

impl Failure {
    /// A failure with nothing beside its message.
    pub(in crate::proxy) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), limit: None, extra: Box::default(), status: None }
    }

    /// A refusal by a limit, with the estimate of the query and the advice for a cheaper one.
    /// `passing` is a query that passes in its place.
    pub(in crate::proxy) fn refused(
        refusal: &Refusal,
        estimate: &Estimated,
        passing: Option<Box<Fix>>,
    ) -> Self {
        let mut message = refusal.message();
        if refusal.kind == ErrorKind::LimitExceeded {
            if let Some(worst) = explain::worst(estimate) {
                message = format!("{message}. Most of it is {}", explain::line(worst));
            }
            message = format!("{message}. To fix it: {}", fix(refusal.limit, estimate));
        }
        let passing = passing.filter(|_| refusal.kind == ErrorKind::LimitExceeded);
        if let Some(passing) = &passing {
            message = format!("{message}. This passes: {passing}");
        }
        let extra = Extra {
            limit: Some(refusal.header()),
            estimate: Some(estimate_header(estimate)),
            retry_after: refusal.retry_after,
            fix: passing,
            ..Extra::default()
        };
        Self { limit: Some(refusal.id()), extra: Box::new(extra), ..Self::new(refusal.kind, message) }
    }

    /// The same with another sentence behind its message.
    pub(in crate::proxy) fn with(mut self, sentence: Option<String>) -> Self {
        if let Some(sentence) = sentence {
            self.message = format!("{}. {sentence}", self.message);
        }
        self
    }

    /// A query that comes before its tenant's rate allows it.
    pub(in crate::proxy) fn over_rate(refusal: &Refusal) -> Self {
        let extra =
            Extra { limit: Some(refusal.header()), retry_after: refusal.retry_after, ..Extra::default() };
        let (id, extra) = (Some(refusal.id()), Box::new(extra));
        Self { limit: id, extra, ..Self::new(refusal.kind, refusal.message()) }
    }

    /// An answer of the backend that the client cannot use as it is. `own` is the error that it states itself, in a
    /// shape that is not quite that of the query API; `excerpt` is the beginning of any other text.
    pub(in crate::proxy) fn foreign(
        asked: BackendRequest<'_>,
        head: &response::Parts,
        own: Option<&str>,
        excerpt: &str,
    ) -> Self {
        let status = head.status;
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = header(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        let extra = Extra { retry_after: retry_after.map(Duration::from_secs), ..Extra::default() };
        let extra = Box::new(extra);
        let text = own.map_or_else(
            || {
                let words = excerpt.split_whitespace().collect::<Vec<_>>().join(" ");
                words.chars().take(EXCERPT_CHARS).collect()
            },
            str::to_owned,
        );
        let backend = asked.backend;
        if asked.is_about_access(status) {
            // The client's own login is not at fault, and Grafana would say so.
            let message = format!("backend `{backend}` answered {} to Weir: {text}", status.as_u16());
            return Self { extra, ..Self::new(ErrorKind::UpstreamDead, message) };
        }
        let kind = match status.as_u16() {
            429 => ErrorKind::RateLimited,
            422 => ErrorKind::LimitExceeded,
            408 | 504 => ErrorKind::UpstreamTimeout,
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Forbidden,
            404 => ErrorKind::NotFound,
            400..500 => ErrorKind::BadData,
            _ => ErrorKind::UpstreamDead,
        };
        let message = if own.is_some() {
            text
        } else if kind == ErrorKind::NotFound {
            format!("backend `{backend}` does not have this endpoint: {text}")
        } else {
            let content_type = header(header::CONTENT_TYPE).filter(|value| !value.is_empty());
            let content_type = content_type.unwrap_or("no content type");
            let status = status.as_u16();
            format!("backend `{backend}` answered {status} with {content_type} instead of JSON: {text}")
        };
        let status = Some(status).filter(|s| s.is_client_error() || s.is_server_error());
        Self { extra, status, ..Self::new(kind, message) }
    }

    /// The backend gave no answer; when the time of the query is over, that is said too: it may be nobody's fault.
    pub(in crate::proxy) fn late(error: &BackendError, over: bool, time: Duration) -> Self {
        let failure = Self::from(error);
        if !over || failure.kind != ErrorKind::UpstreamTimeout {
            return failure;
        }
        let time = duration::text(time);
        let why = format!(
            "the query may take {time} (the lower of its own timeout and weir-max-time): {}",
            failure.message
        );
        Self { message: why, ..failure }
    }

    /// Nothing of an answer was sent yet when it broke off or went over a limit.
    pub(in crate::proxy) fn unsent(error: &BodyError<BackendError>) -> Self {
        match error {
            BodyError::Upstream(error) => Self::from(error),
            BodyError::CutOff(cut) => {
                let (id, max, observed) = (cut.limit.id(), cut.max, cut.observed);
                let limit = Some(format!("{id}; max={max}; observed={observed}; known=exact"));
                let cost = Some(format!("{}; whole=false", cost_header(None, &cut.came)));
                let extra = Box::new(Extra { limit, cost, ..Extra::default() });
                Self { limit: Some(id), extra, ..Self::new(ErrorKind::LimitExceeded, cut.to_string()) }
            }
        }
    }

    /// A rule is against it; `why` begins the message.
    pub(in crate::proxy) fn blocked(rule: &Rule, why: &str) -> Self {
        let id = LimitName::Blocked.id();
        let extra = Extra { limit: Some(format!("{id}; rule={}", rule.name())), ..Extra::default() };
        let message = format!("{why}blocked by {} ({id})", rule.sentence());
        Self { limit: Some(id), extra: Box::new(extra), ..Self::new(ErrorKind::LimitExceeded, message) }
    }

    /// The caller is unknown; `challenge` is the scheme by which it may identify itself.
    pub(in crate::proxy) fn unidentified(error: &IdentifyError, challenge: &'static str) -> Self {
        let kind = match error {
            IdentifyError::Jwt(JwtError::NoKeys) => ErrorKind::IdentityUnavailable,
            IdentifyError::Name(_)
            | IdentifyError::Token
            | IdentifyError::Jwt(_)
            | IdentifyError::Certificate
            | IdentifyError::Nobody => ErrorKind::Unauthorized,
            IdentifyError::NotNamed(_) => ErrorKind::Forbidden,
            IdentifyError::Twice(_) | IdentifyError::Apart(_) | IdentifyError::Pattern(_) => {
                ErrorKind::BadData
            }
        };
        let extra = Extra { challenge: Some(challenge), ..Extra::default() };
        Self { extra: Box::new(extra), ..Self::new(kind, error.to_string()) }
    }

    /// It may read its tenant's series only, and there is no way to see to that.
    pub(in crate::proxy) fn not_confined(message: &str) -> Self {
        let id = LimitName::LabelEnforcement.id();
        let extra = Extra { limit: Some(id.to_owned()), ..Extra::default() };
        let message = format!("{message} ({id})");
        Self { limit: Some(id), extra: Box::new(extra), ..Self::new(ErrorKind::Forbidden, message) }
    }

    /// It was ended from outside: for the backend's sake, or by an operator.
    pub(in crate::proxy) fn cancelled(why: &Cancellation) -> Self {
        let id = why.limit().id();
        let (kind, retry_after) = match why {
            Cancellation::ForBackend => (ErrorKind::BackendSick, Some(RECALLED_RETRY)),
            Cancellation::Killed(_) => (ErrorKind::LimitExceeded, None),
        };
        let extra = Extra { limit: Some(id.to_owned()), retry_after, ..Extra::default() };
        Self { limit: Some(id), extra: Box::new(extra), ..Self::new(kind, why.message()) }
    }

    /// The status that the client gets.
    pub(in crate::proxy) fn status(&self) -> StatusCode {
        let own = || StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.status.unwrap_or_else(own)
    }

    /// The response.
    pub(in crate::proxy) fn into_response(self) -> Response<Body> {
        let status = self.status();
        let mut response = respond::error(self.kind, &self.message, *self.extra);
        *response.status_mut() = status;
        response
    }
}

/// The advice for this limit.
pub(in crate::proxy) fn fix(limit: LimitName, estimate: &Estimated) -> String {
    match limit {
        LimitName::MaxSeries => explain::fewer_series(estimate),
        LimitName::MaxText | LimitName::MaxNodes | LimitName::MaxDepth => {
            "split the query, or use a recording rule".to_owned()
        }
        LimitName::MaxMatchers | LimitName::MaxRegex => {
            "choose fewer values, or a pattern that covers them, such as `web-.*`".to_owned()
        }
        LimitName::MaxListingRange => "ask for a shorter time".to_owned(),
        LimitName::MaxSteps => "raise the step, or ask for a shorter time".to_owned(),
        LimitName::MaxRange => "ask for a shorter time, or use a recording rule".to_owned(),
        LimitName::MaxSelectors => "split the query, or use a recording rule".to_owned(),
        LimitName::QuotaQueries => "ask less often, or for longer times at once".to_owned(),
        _ => explain::cheapest_fix(estimate),
    }
}

/// For `Weir-Estimate`: `series=20000; samples=28800000; memory=1.2GiB; known=upper_bound`.
pub(in crate::proxy) fn estimate_header(estimate: &Estimated) -> String {
    let d = &estimate.cost;
    let mut out = String::with_capacity(96);
    for (name, n) in [("series=", d.series), ("; samples=", d.samples)] {
        out.push_str(name);
        match n.known() {
            None => out.push_str("unknown"),
            Some(n) => out.push_str(itoa::Buffer::new().format(n)),
        }
    }
    out.push_str("; memory=");
    match d.memory.known() {
        None => out.push_str("unknown"),
        Some(bytes) => out.push_str(&units::bytes(bytes)),
    }
    out.push_str("; known=");
    out.push_str(d.confidence().as_str());
    if estimate.parts > 1 {
        out.push_str("; pieces=");
        out.push_str(itoa::Buffer::new().format(estimate.parts));
    }
    out
}

/// For `Weir-Cost`: `series=20; answer_series=20; answer_samples=4800; answer_bytes=51234`. The first is the number
/// that the query read, where the backend or the answer has it; the others are the answer itself, bytes as inflated.
pub(in crate::proxy) fn cost_header(touched: Option<u64>, actual: &Actual) -> String {
    let mut out = String::with_capacity(96);
    let touched = touched.map(|series| ("series=", series));
    let answer = [
        ("answer_series=", actual.series),
        ("answer_samples=", actual.samples),
        ("answer_bytes=", actual.bytes_decoded),
    ];
    for (name, n) in touched.into_iter().chain(answer) {
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.push_str(name);
        out.push_str(itoa::Buffer::new().format(n));
    }
    out
}

/// For `Server-Timing`: milliseconds.
pub(in crate::proxy) fn timing_header(waited: Duration, backend: Duration) -> String {
    let mut out = String::with_capacity(64);
    for (name, time) in [("weir-wait;dur=", waited), (", backend;dur=", backend)] {
        let tenths = (time.as_micros() as u64 + 50) / 100;
        out.push_str(name);
        out.push_str(itoa::Buffer::new().format(tenths / 10));
        out.push('.');
        out.push_str(itoa::Buffer::new().format(tenths % 10));
    }
    out
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Unknown => Self::new(
                ErrorKind::NotFound,
                "no such endpoint; Weir serves the query API of Prometheus under /api/v1/",
            ),
            RouteError::Misspelt(meant) => {
                Self::new(ErrorKind::NotFound, format!("no such endpoint; did you mean /api/v1/{meant}?"))
            }
            RouteError::WebInterface => Self::new(
                ErrorKind::NotFound,
                "Weir has no web interface on this address, only the query API under /api/v1/. That of the database is at \
                 the database's own address (backends[].urls), Weir's at server.admin_listen",
            ),
            RouteError::Moved(location) => {
                let message = format!("the path is {location}");
                let extra = Box::new(Extra { location: Some(location), ..Extra::default() });
                let status = Some(StatusCode::MOVED_PERMANENTLY);
                Self { extra, status, ..Self::new(ErrorKind::NotFound, message) }
            }
            RouteError::Closed => Self::new(
                ErrorKind::Forbidden,
                "this endpoint is closed here: writes and administration go to the database itself; Weir's own metrics \
                 and health are on server.admin_listen",
            ),
            RouteError::TenantInPath => Self::new(
                ErrorKind::Forbidden,
                "the path names a tenant, which only Weir does: ask for /api/v1/… without what comes before it. A tenant of \
                 a VictoriaMetrics cluster is a backend of its own (backends[].urls: [http://vmselect:8481/select/7/prometheus]), \
                 and routes[] says whose queries go there",
            ),
            RouteError::Method(allow) => {
                let extra = Box::new(Extra { allow: Some(allow), ..Extra::default() });
                let message = format!("this endpoint takes {allow} only");
                Self { extra, ..Self::new(ErrorKind::MethodNotAllowed, message) }
            }
        }
    }
}

impl From<http::uri::InvalidUri> for Failure {
    fn from(error: http::uri::InvalidUri) -> Self {
        Self::new(ErrorKind::BadData, format!("the request target: {error}"))
    }
}

impl From<ParamError> for Failure {
    fn from(error: ParamError) -> Self {
        Self::new(ErrorKind::BadData, error.to_string())
    }
}

/// The size of a query could not be found out: it is not let through as if nothing were known of it.
impl From<&ProbeError> for Failure {
    fn from(error: &ProbeError) -> Self {
        let message = format!("how much the query reads could not be found out before it runs: {error}");
        let extra = Extra { retry_after: Some(UNASKED_RETRY), ..Extra::default() };
        Self { extra: Box::new(extra), ..Self::new(error.kind(), message) }
    }
}

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        Self::new(ErrorKind::BadData, error.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        let QueryError::Parse { error: ParseError { reason: Reason::Limit(part, max), .. }, .. } = error
        else {
            return Self::new(ErrorKind::BadData, message);
        };
        let id = limit_of(part).id();
        let extra = Extra {
            limit: Some(format!("{id}; max={max}; observed=unknown; known=at_least")),
            ..Extra::default()
        };
        let message = format!("{message}; more is never parsed, whatever the limits say ({id})");
        Self { limit: Some(id), extra: Box::new(extra), ..Self::new(ErrorKind::LimitExceeded, message) }
    }
}

/// The limit on this part of a query.
const fn limit_of(part: Part) -> LimitName {
    match part {
        Part::Text => LimitName::MaxText,
        Part::Nodes => LimitName::MaxNodes,
        Part::Depth => LimitName::MaxDepth,
        Part::Matchers => LimitName::MaxMatchers,
        Part::Regex => LimitName::MaxRegex,
    }
}

impl From<&BackendError> for Failure {
    fn from(error: &BackendError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
