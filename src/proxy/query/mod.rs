//! The parse stage: from the parameters of a request to its shape.

pub(in crate::proxy) mod body;
pub(in crate::proxy) mod enforce;
pub(in crate::proxy) mod layer;
mod listing;
pub(in crate::proxy) mod offload;
mod remote_read;
#[cfg(test)]
mod tests;
mod unparsable;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use self::remote_read::{ReadError, ReadRequest};
pub use self::{remote_read::confine_read, unparsable::OnUnparsable};
use crate::proxy::route::Endpoint;
use crate::{
    backend::{DataScope, parameters::lookback_ms},
    base::{
        Kind, TimeDialect,
        params::{ParamError, Params},
        time::EvalTimes,
    },
    cost::{self, QuerySplit},
    promql::{
        self, CachedQuery, Fingerprint, ParseError, Reason, approximation,
        ast::{Ast, Expr},
        durations, metricsql,
        shape::{DEFAULT_LOOKBACK_MS, Listed, Output, Reads, SelectorShape, Shape},
        templates,
    },
};

/// VictoriaMetrics' defaults of a range query without `start` or `step`: the last five minutes, one step.
const LENIENT_RANGE_MS: i64 = 300_000;

/// The least step that Thanos takes where a range query names none; it takes a 250th of the range if that is more.
const THANOS_STEP_MS: i64 = 1_000;

/// Parameters of a range query that mean the same for each of its parts.
const PLAIN_PARAMS: [&str; 11] = [
    "query",
    "start",
    "end",
    "step",
    "timeout",
    "lookback_delta",
    "dedup",
    "partial_response",
    "max_source_resolution",
    "replicaLabels[]",
    "storeMatch[]",
];

/// A parsed request.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct ParsedQuery {
    /// The query, or the selectors, as the client wrote them.
    pub text: String,
    /// The texts that the backend gets in its place, where it could read the client's otherwise.
    pub sent: Vec<String>,
    /// The same for the same query with other times and constants.
    pub fingerprint: Fingerprint,
    /// Selectors, windows and steps.
    pub shape: Shape,
    /// It lists label sets and reads no samples.
    pub listing: bool,
    /// It reads nothing and costs nothing: `1+1`.
    pub free: bool,
    /// Nothing in it could be read: its selector stands for all that it reads.
    pub opaque: bool,
    /// When it is evaluated; `None` where nothing of that could be read.
    pub times: Option<EvalTimes>,
    /// How far back an instant looks for a sample, milliseconds.
    pub lookback_ms: u64,
    /// How long the client is willing to wait.
    pub timeout: Option<Duration>,
    /// Series or names that it wants at most.
    pub limit: Option<u64>,
    /// How it may be split, where it may.
    pub split: Option<Box<QuerySplit>>,
    /// The series of its answer are all that it touched: nothing filters, cuts or combines them.
    pub answer_is_whole: bool,
    /// Its data scope.
    pub scope: DataScope,
    /// The query string that the backend gets, where that is not the client's own.
    pub url_query: Option<String>,
    /// The body that the backend gets, where that is not the client's own.
    pub body: Option<Bytes>,
}

/// How a request is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct QueryParser<'a> {
    /// The time of a request that names none, milliseconds since the epoch.
    pub now_ms: i64,
    /// How the backend reads times; VictoriaMetrics fills in a missing start, end and step.
    pub dialect: TimeDialect,
    /// The kind of backend, which has parameters and templates of its own.
    pub kind: Kind,
    /// The treatment of a query that is not PromQL.
    pub on_unparsable: OnUnparsable,
    /// Parsed queries.
    pub cache: &'a promql::Cache,
}

/// Why a request cannot be read.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum QueryError {
    /// A parameter.
    Param(ParamError),
    /// A query that is not PromQL.
    Parse {
        /// The parameter that holds it.
        name: &'static str,
        /// The problem, and its place.
        error: ParseError,
    },
    /// A remote read that cannot be read.
    RemoteRead(ReadError),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(error) => error.fmt(f),
            Self::Parse { name, error } => write!(f, "invalid parameter {name:?}: {error}"),
            Self::RemoteRead(error) => error.fmt(f),
        }
    }
}

impl QueryError {
    /// As Thanos and Cortex say it: without the parameter's name.
    pub(super) fn without_parameter(&self) -> String {
        match self {
            Self::Parse { error, .. } => error.to_string(),
            Self::Param(_) | Self::RemoteRead(_) => self.to_string(),
        }
    }
}

impl std::error::Error for QueryError {}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> Self {
        Self::RemoteRead(error)
    }
}

impl From<ParamError> for QueryError {
    fn from(error: ParamError) -> Self {
        Self::Param(error)
    }
}

impl QueryParser<'_> {
    /// Reads the parameters of a request to this endpoint; one without selectors (`labels`) reads nothing known.
    pub(in crate::proxy) fn read(
        &self,
        endpoint: Endpoint,
        params: &Params<'_>,
    ) -> Result<ParsedQuery, QueryError> {
        let timeout = self.timeout(params)?;
        let mut query = match endpoint {
            Endpoint::Query | Endpoint::QueryCost => self.query(params, self.instant(params)?)?,
            Endpoint::QueryRange | Endpoint::QueryRangeCost => self.query(params, self.range(params)?)?,
            Endpoint::QueryExemplars => self.exemplars(params)?,
            Endpoint::Series => self.listing(params, Listed::Series)?,
            Endpoint::Labels => self.listing(params, Listed::Names)?,
            // Which label stands in the path, or in a parameter.
            Endpoint::LabelValues | Endpoint::Search => {
                self.listing(params, Listed::Values(Box::default()))?
            }
            // Remote reads come in a body of their own.
            Endpoint::RemoteRead
            | Endpoint::Light
            | Endpoint::Healthy
            | Endpoint::Ready
            | Endpoint::Guide
            | Endpoint::Description => ParsedQuery::unread(),
        };
        query.timeout = timeout;
        // 0 is no limit.
        query.limit = params.first("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        Ok(query)
    }

    fn query(&self, params: &Params<'_>, times: EvalTimes) -> Result<ParsedQuery, QueryError> {
        let text = params.one("query")?.ok_or_else(|| ParamError::invalid("query", "it is missing"))?;
        let step = params.duration_in("step", self.dialect)?.map_or(0, |ms| ms.max(0) as u64);
        let lookback = lookback_ms(self.kind, self.dialect, params, DEFAULT_LOOKBACK_MS, step)?;
        let plain = plain(self.kind, "query", text)?;
        let expanded = expanded(self.kind, "query", &plain)?;
        let query = match self.parse("query", &expanded) {
            Ok(query) => query,
            Err(error) => {
                let unread = self.unparsable(error, &expanded, times, lookback)?;
                let sent = plain.into_owned();
                let sent = if sent == text { Vec::new() } else { vec![sent] };
                return Ok(ParsedQuery { text: text.to_owned(), sent, ..unread });
            }
        };
        let sent = if *expanded == *text { Vec::new() } else { vec![promql::print::line(&query.ast)] };
        let ast = &query.ast;
        durations::check(ast, times).map_err(|error| QueryError::Parse { name: "query", error })?;
        let shape = Shape::of(ast, times, lookback);
        let free = cost::is_free(&shape);
        // A query for more than points goes on as it came.
        let is_plain = params.names().all(|name| PLAIN_PARAMS.contains(&name))
            && ["start", "end"].into_iter().all(|name| params.is_plain_time(name))
            && params.first("step").is_some();
        let split = if is_plain { QuerySplit::of(ast, times, lookback) } else { None };
        let all_replicas = params.one("dedup")? == Some("false");
        let split = split.map(|split| if all_replicas { split.of_all_replicas() } else { split });
        Ok(ParsedQuery {
            text: text.to_owned(),
            sent,
            fingerprint: query.fingerprint(),
            shape,
            free,
            times: Some(times),
            lookback_ms: lookback,
            split: split.map(Box::new),
            answer_is_whole: is_raw(ast) && params.first("limit").is_none(),
            ..ParsedQuery::unread()
        })
    }

    /// Treats a query that is not PromQL as the configuration says: it may be a dialect that the backend knows.
    fn unparsable(
        &self,
        error: QueryError,
        text: &str,
        times: EvalTimes,
        lookback: u64,
    ) -> Result<ParsedQuery, QueryError> {
        let QueryError::Parse { error: ParseError { reason, .. }, name } = &error else { return Err(error) };
        if *reason == Reason::UnknownFunction
            && self.on_unparsable != OnUnparsable::Refuse
            && let Ok(query) = Self::with_unknown_functions(text, times, lookback)
        {
            return Ok(query);
        }
        match (reason, self.on_unparsable) {
            (Reason::Limit(..), _) => Err(error),
            (_, OnUnparsable::EstimateFromText) => Self::sketched(name, text, times, lookback),
            (_, OnUnparsable::Forward) => self.opaque(text, times, lookback),
            (_, OnUnparsable::UnknownFunctions | OnUnparsable::Refuse) => Err(error),
        }
    }

    /// A query with a function that only the database knows: databases are upgraded before Weir is.
    fn with_unknown_functions(
        text: &str,
        times: EvalTimes,
        lookback: u64,
    ) -> Result<ParsedQuery, ParseError> {
        let limits = promql::Limits { unknown_functions: true, ..promql::Limits::default() };
        let ast = Arc::new(promql::parse_with(text, &limits)?);
        durations::check(&ast, times)?;
        let mut shape = Shape::of(&ast, times, lookback);
        for selector in &mut shape.selectors {
            // All of it may reach the answer, but the answer does not show the samples that were read.
            selector.output = Output::Top(u64::MAX);
        }
        Ok(ParsedQuery {
            text: text.to_owned(),
            fingerprint: Fingerprint::of(&ast),
            shape,
            times: Some(times),
            lookback_ms: lookback,
            ..ParsedQuery::unread()
        })
    }

    /// A query of which nothing is read: one selector that may match anything.
    fn opaque(&self, text: &str, times: EvalTimes, lookback: u64) -> Result<ParsedQuery, QueryError> {
        let everything = self.parse("query", "{__name__=~\".+\"}")?;
        let mut shape = Shape::of(&everything.ast, times, lookback);
        for selector in &mut shape.selectors {
            selector.output = Output::Top(u64::MAX);
        }
        shape.size.bytes = text.len() as u64;
        Ok(ParsedQuery {
            text: text.to_owned(),
            shape,
            opaque: true,
            times: Some(times),
            lookback_ms: lookback,
            ..ParsedQuery::unread()
        })
    }

    /// A query that only the backend can read, priced by its approximation.
    fn sketched(
        name: &'static str,
        text: &str,
        times: EvalTimes,
        lookback: u64,
    ) -> Result<ParsedQuery, QueryError> {
        let unreadable = |error| QueryError::Parse { name, error };
        let ast = approximation::approximate(text, lookback.saturating_add(times.step), times.step)
            .map_err(unreadable)?;
        let ast = Arc::new(ast);
        let mut shape = Shape::of(&ast, times, lookback);
        for selector in &mut shape.selectors {
            // All of it may reach the answer, but the answer does not show the samples that were read.
            selector.output = Output::Top(u64::MAX);
        }
        shape.size.bytes = text.len() as u64;
        let (text, fingerprint) = (text.to_owned(), Fingerprint::of(&ast));
        Ok(ParsedQuery {
            text,
            fingerprint,
            shape,
            times: Some(times),
            lookback_ms: lookback,
            ..ParsedQuery::unread()
        })
    }

    fn parse(&self, name: &'static str, text: &str) -> Result<Arc<CachedQuery>, QueryError> {
        self.cache.query(text).map_err(|error| QueryError::Parse { name, error })
    }

    fn instant(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        Ok(EvalTimes::instant(self.time(params, "time")?.unwrap_or(self.now_ms)))
    }

    fn time(&self, params: &Params<'_>, name: &'static str) -> Result<Option<i64>, ParamError> {
        params.time_in(name, self.dialect, self.now_ms)
    }

    fn timeout(&self, params: &Params<'_>) -> Result<Option<Duration>, ParamError> {
        let Some(ms) = params.duration_in("timeout", self.dialect)? else { return Ok(None) };
        match u64::try_from(ms) {
            Ok(ms @ 1..) => Ok(Some(Duration::from_millis(ms))),
            // To VictoriaMetrics that is none.
            _ if self.dialect == TimeDialect::VictoriaMetrics => Ok(None),
            _ => Err(ParamError::invalid("timeout", "it must be longer than nothing")),
        }
    }

    fn range(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        let is_lenient = self.dialect == TimeDialect::VictoriaMetrics;
        let missing = |name, default: i64| {
            if is_lenient { Ok(default) } else { Err(ParamError::invalid(name, "it is missing")) }
        };
        let mut end = self.time(params, "end")?.map_or_else(|| missing("end", self.now_ms), Ok)?;
        let start = self
            .time(params, "start")?
            .map_or_else(|| missing("start", end.saturating_sub(LENIENT_RANGE_MS)), Ok)?;
        if end < start && is_lenient {
            end = start.saturating_add(LENIENT_RANGE_MS);
        }
        if end < start {
            return Err(ParamError::invalid("end", "end timestamp must not be before start time"));
        }
        let step = match params.duration_in("step", self.dialect)? {
            Some(step) => step,
            None if self.kind == Kind::Thanos => (end.saturating_sub(start) / 250).max(THANOS_STEP_MS),
            None => missing("step", LENIENT_RANGE_MS)?,
        };
        match u64::try_from(step) {
            Ok(step @ 1..) => Ok(EvalTimes { start, end, step }),
            _ => Err(ParamError::invalid(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            )),
        }
    }
}

impl ParsedQuery {
    /// A remote read: raw samples of each selector in its window.
    pub(in crate::proxy) fn remote_read(body: &[u8], cache: &promql::Cache) -> Result<Self, QueryError> {
        let request = ReadRequest::parse(body)?;
        let mut query = Self { body: Some(request.to_body()?), ..Self::unread() };
        query.shape =
            Shape::unevaluated(Reads::RemoteRead { streamed: request.is_streamed() }, request.selectors());
        let fingerprint = |selector: &SelectorShape| match cache.query(&selector.text) {
            Ok(query) => query.fingerprint(),
            Err(_) => Fingerprint::of_bytes(b"selector", &[selector.text.as_bytes()]),
        };
        query.fingerprint = Fingerprint::of_set(query.shape.selectors.iter().map(fingerprint));
        let texts: Vec<&str> = query.shape.selectors.iter().map(|selector| &*selector.text).collect();
        query.text = texts.join(" ");
        let ranges = query.shape.selectors.iter().map(|selector| selector.window.len_ms().div_ceil(1_000));
        query.shape.range_seconds = ranges.max().unwrap_or(0);
        Ok(query)
    }

    /// A request of which nothing is read but that it came.
    fn unread() -> Self {
        Self {
            text: String::new(),
            sent: Vec::new(),
            fingerprint: Fingerprint::default(),
            shape: Shape::unevaluated(Reads::Listing(Listed::Names), Vec::new()),
            listing: false,
            free: false,
            opaque: false,
            times: None,
            lookback_ms: 0,
            timeout: None,
            limit: None,
            split: None,
            answer_is_whole: false,
            scope: DataScope::default(),
            url_query: None,
            body: None,
        }
    }
}

/// The text as VictoriaMetrics can read it in one way only.
fn plain<'t>(kind: Kind, name: &'static str, text: &'t str) -> Result<Cow<'t, str>, QueryError> {
    match kind {
        Kind::VictoriaMetrics => metricsql::plain(text).map_err(|error| QueryError::Parse { name, error }),
        _ => Ok(Cow::Borrowed(text)),
    }
}

/// The text without the templates that VictoriaMetrics expands.
fn expanded<'t>(kind: Kind, name: &'static str, text: &'t str) -> Result<Cow<'t, str>, QueryError> {
    if kind != Kind::VictoriaMetrics {
        return Ok(Cow::Borrowed(text));
    }
    templates::expand(text).map_err(|error| QueryError::Parse { name, error })
}

/// Only reads the query, within the limits of the parser.
pub(in crate::proxy) fn parse_only(
    params: &Params<'_>,
    cache: &promql::Cache,
) -> Result<Arc<CachedQuery>, QueryError> {
    let text = params.one("query")?.unwrap_or_default();
    cache.query(text).map_err(|error| QueryError::Parse { name: "query", error })
}

/// A selector, or its samples as they are.
fn is_raw(ast: &Ast) -> bool {
    let mut root = ast.expr(ast.root);
    while let Expr::Paren(inner) = root {
        root = ast.expr(*inner);
    }
    matches!(root, Expr::Selector(_) | Expr::Matrix { .. })
}
