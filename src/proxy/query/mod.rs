//! The parse stage: from the parameters of a request to what it reads.

pub(in crate::proxy) mod body;
pub(in crate::proxy) mod layer;
mod remote_read;

use std::{fmt, time::Duration};

use bytes::Bytes;

use self::remote_read::{ReadError, ReadRequest};
use crate::proxy::{route::Endpoint, upstream::OnUnparsable};
use crate::{
    base::{
        TimeRange,
        params::{ParamError, Params},
        time::EvalTimes,
    },
    cost::QuerySplit,
    promql::{
        self, CachedQuery, Fingerprint, ParseError, Reason,
        ast::{Ast, Expr},
        shape::{DEFAULT_LOOKBACK_MS, Output, SelectorShape, Shape},
        sketch,
    },
};

/// Most selectors of `match[]` in one request.
const MATCHERS_MAX: usize = 100;
/// A query of so few nodes, none of them a selector or a subquery, costs no more than its own parsing.
const FREE_NODES_MAX: usize = 16;
/// What VictoriaMetrics assumes of a range query without `start` or `step`: the last five minutes, one step.
const LENIENT_RANGE_MS: i64 = 300_000;

/// Parameters of a range query that mean the same for each of its pieces.
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

/// What a request reads.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Call {
    /// The query, or the selectors, as the client wrote them.
    pub text: String,
    /// The same for the same query with other times and constants.
    pub fingerprint: Fingerprint,
    /// Selectors, windows and steps.
    pub shape: Shape,
    /// It lists label sets and reads no samples.
    pub listing: bool,
    /// It reads nothing and costs nothing: `1+1`.
    pub free: bool,
    /// Nothing in it could be read: its selector stands for whatever it reads.
    pub opaque: bool,
    /// When it is evaluated; `None` where nothing of that could be read.
    pub times: Option<EvalTimes>,
    /// How long the client is willing to wait.
    pub timeout: Option<Duration>,
    /// How it may be asked for in pieces, where it may.
    pub division: Option<Box<QuerySplit>>,
    /// The series of its answer are all that it touched: nothing filters, cuts or combines them.
    pub answer_is_whole: bool,
    /// The body that the backend gets, where that is not the client's own.
    pub body: Option<Bytes>,
}

/// The name of a [`Call`] beyond this module.
pub(in crate::proxy) type ParsedQuery = Call;

/// How a request is read.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Reading<'a> {
    /// The time of a request that names none, milliseconds since the epoch.
    pub now_ms: i64,
    /// The backend fills in a missing start, end and step (VictoriaMetrics).
    pub lenient: bool,
    /// What becomes of a query that is not PromQL.
    pub on_unparsable: OnUnparsable,
    /// Parsed queries.
    pub cache: &'a promql::Cache,
}

/// Why a request cannot be read.
#[derive(Clone, Debug)]
pub(in crate::proxy) enum CallError {
    /// A parameter.
    Param(ParamError),
    /// A query that is not PromQL.
    Parse {
        /// The parameter that holds it.
        name: &'static str,
        /// What is wrong, and where.
        error: ParseError,
    },
    /// A remote read that cannot be read.
    RemoteRead(ReadError),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(error) => error.fmt(f),
            Self::Parse { name, error } => write!(f, "invalid parameter {name:?}: {error}"),
            Self::RemoteRead(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

impl From<ReadError> for CallError {
    fn from(error: ReadError) -> Self {
        Self::RemoteRead(error)
    }
}

impl From<ParamError> for CallError {
    fn from(error: ParamError) -> Self {
        Self::Param(error)
    }
}

impl Reading<'_> {
    /// Reads the parameters of a request to this endpoint; one without selectors (`labels`) reads nothing known.
    pub(in crate::proxy) fn read(&self, endpoint: Endpoint, params: &Params<'_>) -> Result<Call, CallError> {
        let timeout = timeout(params)?;
        let mut call = match endpoint {
            Endpoint::Query | Endpoint::QueryCost => self.query(params, self.instant(params)?)?,
            Endpoint::QueryRange | Endpoint::QueryRangeCost => self.query(params, self.range(params)?)?,
            Endpoint::QueryExemplars => self.query(params, self.span(params)?)?,
            Endpoint::Series | Endpoint::Labels | Endpoint::LabelValues => {
                self.listing(params, endpoint == Endpoint::Series)?
            }
            // Remote reads come in a body of their own.
            Endpoint::RemoteRead | Endpoint::Light => Call::unread(),
        };
        call.timeout = timeout;
        Ok(call)
    }

    fn query(&self, params: &Params<'_>, times: EvalTimes) -> Result<Call, CallError> {
        let text = params.one("query")?.ok_or_else(|| ParamError::invalid("query", "it is missing"))?;
        let lookback = params.duration("lookback_delta")?.and_then(|ms| u64::try_from(ms).ok());
        let lookback = lookback.filter(|ms| *ms > 0).unwrap_or(DEFAULT_LOOKBACK_MS);
        let query = match self.parse("query", text) {
            Ok(query) => query,
            Err(error) => return self.dialect(error, text, times, lookback),
        };
        let ast = &query.ast;
        let shape = Shape::of(ast, times, lookback);
        let free = shape.selectors.is_empty() && is_plain(ast);
        // What asks for more than points is asked for as it came.
        let is_plain = params.names().all(|name| PLAIN_PARAMS.contains(&name))
            && ["start", "end"].into_iter().all(|name| params.is_plain_time(name));
        let division = if is_plain { QuerySplit::of(ast, times, lookback).map(Box::new) } else { None };
        Ok(Call {
            text: text.to_owned(),
            fingerprint: query.fingerprint(),
            shape,
            free,
            times: Some(times),
            division,
            answer_is_whole: is_raw(ast) && params.first("limit").is_none(),
            ..Call::unread()
        })
    }

    /// What is not PromQL, as the configuration says of the backend: it may be a dialect that the backend knows.
    fn dialect(
        &self,
        error: CallError,
        text: &str,
        times: EvalTimes,
        lookback: u64,
    ) -> Result<Call, CallError> {
        match (&error, self.on_unparsable) {
            (CallError::Parse { error, name }, OnUnparsable::EstimateFromText)
                if error.reason == Reason::Malformed =>
            {
                Self::sketched(name, text, times, lookback)
            }
            (CallError::Parse { error, .. }, OnUnparsable::Forward) if error.reason == Reason::Malformed => {
                self.opaque(text, times, lookback)
            }
            _ => Err(error),
        }
    }

    /// A query of which nothing is read: one selector that may match anything.
    fn opaque(&self, text: &str, times: EvalTimes, lookback: u64) -> Result<Call, CallError> {
        let everything = self.parse("query", "{__name__=~\".+\"}")?;
        let mut shape = Shape::of(&everything.ast, times, lookback);
        for selector in &mut shape.selectors {
            selector.output = Output::Top(u64::MAX);
        }
        Ok(Call { text: text.to_owned(), shape, opaque: true, times: Some(times), ..Call::unread() })
    }

    /// A query that only the backend can read, by what it seems to read.
    fn sketched(name: &'static str, text: &str, times: EvalTimes, lookback: u64) -> Result<Call, CallError> {
        let unreadable = |error| CallError::Parse { name, error };
        let ast =
            sketch::stand_in(text, lookback.saturating_add(times.step), times.step).map_err(unreadable)?;
        let mut shape = Shape::of(&ast, times, lookback);
        for selector in &mut shape.selectors {
            // All of it may reach the answer, but the answer does not tell what was read.
            selector.output = Output::Top(u64::MAX);
        }
        let (text, fingerprint) = (text.to_owned(), Fingerprint::of(&ast));
        Ok(Call { text, fingerprint, shape, times: Some(times), ..Call::unread() })
    }

    fn parse(&self, name: &'static str, text: &str) -> Result<std::sync::Arc<CachedQuery>, CallError> {
        self.cache.query(text).map_err(|error| CallError::Parse { name, error })
    }

    fn instant(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        Ok(EvalTimes::instant(params.time("time")?.unwrap_or(self.now_ms)))
    }

    fn range(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        let missing = |name, default: i64| {
            if self.lenient { Ok(default) } else { Err(ParamError::invalid(name, "it is missing")) }
        };
        let end = params.time("end")?.map_or_else(|| missing("end", self.now_ms), Ok)?;
        let start = params
            .time("start")?
            .map_or_else(|| missing("start", end.saturating_sub(LENIENT_RANGE_MS)), Ok)?;
        if end < start {
            return Err(ParamError::invalid("end", "end timestamp must not be before start time"));
        }
        let step = params.duration("step")?.map_or_else(|| missing("step", LENIENT_RANGE_MS), Ok)?;
        match u64::try_from(step) {
            Ok(step @ 1..) => Ok(EvalTimes { start, end, step }),
            _ => Err(ParamError::invalid(
                "step",
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            )),
        }
    }

    /// From start to end, as two steps: what a listing looks through. One without a start looks through all of time,
    /// which has no price; it is priced by what is there now. One that ends before it starts finds nothing, as the backend
    /// knows by itself.
    fn span(&self, params: &Params<'_>) -> Result<EvalTimes, ParamError> {
        let end = params.time("end")?.unwrap_or(self.now_ms);
        let start = params.time("start")?.unwrap_or(end);
        let span = TimeRange::new(start, end);
        Ok(EvalTimes { start: span.start, end: span.end, step: span.len_ms().max(1) })
    }

    fn listing(&self, params: &Params<'_>, needs_selectors: bool) -> Result<Call, CallError> {
        let times = self.span(params)?;
        let texts: Vec<&str> = params.all("match[]").collect();
        if texts.len() > MATCHERS_MAX {
            return Err(ParamError::invalid("match[]", format!("more than {MATCHERS_MAX} are given")).into());
        }
        if texts.is_empty() && needs_selectors {
            return Err(ParamError::Malformed("no match[] parameter provided").into());
        }
        let text = texts.join(" ");
        let mut call = Call { text, listing: true, times: Some(times), ..Call::unread() };
        let mut fingerprints = Vec::with_capacity(texts.len());
        for text in texts {
            let one = self.matched(text, times)?;
            fingerprints.push(one.fingerprint);
            call.opaque |= one.opaque;
            call.shape.range_seconds = call.shape.range_seconds.max(one.shape.range_seconds);
            call.shape.selectors.extend(one.shape.selectors);
        }
        call.fingerprint = Fingerprint::of_set(fingerprints);
        Ok(call)
    }

    /// One `match[]`: a selector, of PromQL or of a dialect.
    fn matched(&self, text: &str, times: EvalTimes) -> Result<Call, CallError> {
        let query = match self.parse("match[]", text) {
            Ok(query) => query,
            Err(error) => {
                // A listing looks through its own span of time, and no further back.
                let times = EvalTimes { step: 0, ..times };
                let call = self.dialect(error, text, times, 0)?;
                return if call.shape.selectors.is_empty() { self.opaque(text, times, 0) } else { Ok(call) };
            }
        };
        let ast = &query.ast;
        if !matches!(ast.expr(ast.root), Expr::Selector(_)) {
            return Err(ParamError::invalid("match[]", format!("{text:?} is not a series selector")).into());
        }
        Ok(Call { fingerprint: query.fingerprint(), shape: Shape::of(ast, times, 0), ..Call::unread() })
    }
}

impl Call {
    /// A remote read: raw samples of each selector in its window.
    pub(in crate::proxy) fn remote_read(body: &[u8], cache: &promql::Cache) -> Result<Self, CallError> {
        let request = ReadRequest::parse(body)?;
        let mut call = Self { body: Some(request.to_body()?), ..Self::unread() };
        call.shape.selectors = request.selectors();
        let fingerprint = |selector: &SelectorShape| match cache.query(&selector.text) {
            Ok(query) => query.fingerprint(),
            Err(_) => Fingerprint::of_bytes(b"selector", &[selector.text.as_bytes()]),
        };
        call.fingerprint = Fingerprint::of_set(call.shape.selectors.iter().map(fingerprint));
        let texts: Vec<&str> = call.shape.selectors.iter().map(|selector| selector.text.as_str()).collect();
        call.text = texts.join(" ");
        let ranges = call.shape.selectors.iter().map(|selector| selector.window.len_ms().div_ceil(1_000));
        call.shape.range_seconds = ranges.max().unwrap_or(0);
        Ok(call)
    }

    /// A request of which nothing is read but that it came.
    fn unread() -> Self {
        Self {
            text: String::new(),
            fingerprint: Fingerprint::default(),
            shape: Shape {
                selectors: Vec::new(),
                steps: 1,
                range_seconds: 0,
                functions: Vec::new(),
                aggregates: false,
                returns_matrix: false,
            },
            listing: false,
            free: false,
            opaque: false,
            times: None,
            timeout: None,
            division: None,
            answer_is_whole: false,
            body: None,
        }
    }
}

fn timeout(params: &Params<'_>) -> Result<Option<Duration>, ParamError> {
    let Some(ms) = params.duration("timeout")? else { return Ok(None) };
    match u64::try_from(ms) {
        Ok(ms @ 1..) => Ok(Some(Duration::from_millis(ms))),
        _ => Err(ParamError::invalid("timeout", "it must be longer than nothing")),
    }
}

/// A selector, or its samples as they are.
fn is_raw(ast: &Ast) -> bool {
    let mut root = ast.expr(ast.root);
    while let Expr::Paren(inner) = root {
        root = ast.expr(*inner);
    }
    matches!(root, Expr::Selector(_) | Expr::Matrix { .. })
}

/// Few nodes, and none that multiplies work.
fn is_plain(ast: &Ast) -> bool {
    ast.nodes.len() <= FREE_NODES_MAX
        && !ast.nodes.iter().any(|node| matches!(node.expr, Expr::Subquery { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: Endpoint, query: &str) -> Result<Call, String> {
        read_as(endpoint, query, false)
    }

    fn read_as(endpoint: Endpoint, query: &str, lenient: bool) -> Result<Call, String> {
        let cache = promql::Cache::new(16);
        let reading =
            Reading { now_ms: 1_000_000, lenient, on_unparsable: OnUnparsable::Refuse, cache: &cache };
        let params = Params::parse(query, "").unwrap();
        reading.read(endpoint, &params).map_err(|error| error.to_string())
    }

    #[test]
    fn queries_read_their_times() {
        let call = read(Endpoint::Query, "query=up&timeout=5s").unwrap();
        assert_eq!(call.timeout, Some(Duration::from_secs(5)));
        assert_eq!(call.shape.selectors[0].window.end, 1_000_000);
        assert!(!call.free && !call.listing);
        let call = read(Endpoint::QueryRange, "query=rate(a[5m])&start=0&end=600&step=1m").unwrap();
        assert_eq!(call.shape.steps, 11);
        assert!(read_as(Endpoint::QueryRange, "query=up", true).is_ok());
    }

    #[test]
    fn what_reads_nothing_is_free_unless_it_multiplies_work() {
        for (query, free) in [
            ("1%2B1", true),
            ("vector(1)", true),
            ("up", false),
            ("sum_over_time(vector(1)[100d:1ms])", false),
            (&*vec!["1"; 40].join("%2B"), false),
        ] {
            assert_eq!(read(Endpoint::Query, &format!("query={query}")).unwrap().free, free, "{query}");
        }
    }

    #[test]
    fn listings_read_selectors_only() {
        let call = read(Endpoint::Series, "match[]=up&match[]={job=\"a\"}&start=0&end=600").unwrap();
        assert!(call.listing);
        assert_eq!(call.shape.selectors.len(), 2);
        assert!((600..=601).contains(&call.shape.range_seconds));
        assert!(read(Endpoint::Series, "match[]={__name__!=\"\"}").unwrap().shape.selectors[0].match_all);
        assert!(read(Endpoint::Labels, "").unwrap().shape.selectors.is_empty());
    }

    #[test]
    fn selectors_of_a_dialect_are_read_as_its_queries_are() {
        let cache = promql::Cache::new(16);
        let read = |on_unparsable, query: &str| {
            let reading = Reading { now_ms: 1_000_000, lenient: true, on_unparsable, cache: &cache };
            reading.read(Endpoint::Series, &Params::parse(query, "").unwrap())
        };
        let dialect = "match[]=up{job=\"a\" or job=\"b\"}&match[]=down&start=0&end=600";
        let error = read(OnUnparsable::Refuse, dialect).unwrap_err().to_string();
        assert!(error.starts_with("invalid parameter \"match[]\": 1:"), "{error}");

        let call = read(OnUnparsable::EstimateFromText, dialect).unwrap();
        let texts: Vec<_> = call.shape.selectors.iter().map(|selector| &*selector.text).collect();
        assert_eq!((texts, call.opaque), (vec!["up", "down"], false));
        assert!(call.listing && (600..=601).contains(&call.shape.range_seconds), "{call:?}");

        let call = read(OnUnparsable::Forward, dialect).unwrap();
        assert!(call.opaque && call.listing && call.shape.selectors[0].match_all);
        // Nothing to be found in it: it may list anything.
        let call = read(OnUnparsable::EstimateFromText, "match[]=~").unwrap();
        assert!(call.opaque && call.shape.selectors[0].match_all);
        // What is PromQL and no selector, no dialect takes for one.
        assert!(read(OnUnparsable::Forward, "match[]=rate(a[5m])").is_err());
    }

    #[test]
    fn a_dialects_subqueries_are_counted() {
        let cache = promql::Cache::new(16);
        let on_unparsable = OnUnparsable::EstimateFromText;
        let reading = Reading { now_ms: 1_000_000, lenient: true, on_unparsable, cache: &cache };
        let query = "query=max_over_time(rate(a[5m])[1d:10s]) default 0";
        let call = reading.read(Endpoint::Query, &Params::parse(query, "").unwrap()).unwrap();
        assert_eq!(call.shape.selectors[0].evaluations, 8_640);
    }

    #[test]
    fn mistakes_read_as_those_of_prometheus() {
        for (endpoint, query, want) in [
            (Endpoint::Query, "", "invalid parameter \"query\": it is missing"),
            (
                Endpoint::Query,
                "query=up&time=x",
                "invalid parameter \"time\": cannot parse \"x\" to a valid timestamp",
            ),
            (Endpoint::QueryRange, "query=up&end=1&step=1", "invalid parameter \"start\": it is missing"),
            (
                Endpoint::QueryRange,
                "query=up&start=2&end=1&step=1",
                "invalid parameter \"end\": end timestamp must not be before start time",
            ),
            (Endpoint::Series, "", "no match[] parameter provided"),
            (
                Endpoint::Series,
                "match[]=rate(a[5m])",
                "invalid parameter \"match[]\": \"rate(a[5m])\" is not a series selector",
            ),
            (
                Endpoint::Query,
                "query=up&timeout=-1",
                "invalid parameter \"timeout\": it must be longer than nothing",
            ),
        ] {
            assert_eq!(read(endpoint, query).unwrap_err(), want);
        }
        let backwards = read(Endpoint::Series, "match[]=up&start=2000&end=1000").unwrap();
        assert_eq!(backwards.shape.selectors[0].window, TimeRange { start: 1_000_000, end: 2_000_000 });
        let zero = read(Endpoint::QueryRange, "query=up&start=0&end=1&step=0").unwrap_err();
        assert!(zero.contains("zero or negative query resolution"), "{zero}");
        assert!(
            read(Endpoint::Query, "query=up{").unwrap_err().starts_with("invalid parameter \"query\": 1:")
        );
    }
}
