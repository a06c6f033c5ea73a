//! Confines a request to its tenant's labels before anything else reads it: the confined request is priced, kept and
//! forwarded from here on, and its client's text is for people only.
//!
//! The request is made anew. Only the parameters of its endpoint go on, each in one place and in one encoding: of a text
//! that two readers take for different queries, one would be confined and another would run.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, Uri, header};

use super::{
    OnUnparsable, ParsedQuery, QueryError, body, expanded, layer::unreadable, listing::check_number, plain,
    remote_read::ReadRequest,
};
use crate::{
    base::{ErrorKind, Kind, params::Params},
    promql::{
        self, Limits, ParseError, Reason,
        ast::Ast,
        enforce::{EnforceError, LabelEnforcement},
    },
    proxy::{exchange::Common, respond::failure::Failure, route::Endpoint},
};

/// Matchers beside the query, by which a client could widen a selection of VictoriaMetrics: it takes any of several filters.
const EXTRA_MATCHERS: [&str; 3] = ["extra_label", "extra_filters", "extra_filters[]"];
/// The same for M3, which puts them in the place of the query's own matchers.
const RESTRICT_BY_TAGS: HeaderName = HeaderName::from_static("m3-restrict-by-tags-json");

/// Light endpoints that say nothing of any series. The text that the formatters get comes from the client alone.
const WITHOUT_SERIES: [&str; 5] =
    ["format_query", "parse_query", "status/buildinfo", "features", "openapi.yaml"];

/// The request with its tenant's labels in every selector; the body is returned, the rest changed in place.
///
/// # Errors
/// It cannot be confined: a text that is not understood, a selector of other tenants' data, an endpoint that answers about all
/// series.
pub(in crate::proxy) fn confine(common: &mut Common, body: Bytes) -> Result<Bytes, Failure> {
    let Some(labels) = common.enforced.clone() else { return Ok(body) };
    common.head.headers.remove(RESTRICT_BY_TAGS);
    let confined = match common.endpoint {
        Endpoint::RemoteRead => remote_read(common, &labels, &body),
        Endpoint::Query
        | Endpoint::QueryRange
        | Endpoint::QueryExemplars
        | Endpoint::Series
        | Endpoint::Labels
        | Endpoint::LabelValues
        | Endpoint::QueryCost
        | Endpoint::QueryRangeCost => parameters(common, &labels, &body),
        // Any other endpoint may answer about all series, unless it is known not to.
        _ => closed_to(common, body),
    };
    common.log.enforced(confined.is_ok());
    confined
}

fn closed_to(common: &Common, body: Bytes) -> Result<Bytes, Failure> {
    let name = common.head.uri.path().strip_prefix("/api/v1/").unwrap_or_default();
    if WITHOUT_SERIES.contains(&name) {
        return Ok(body);
    }
    Err(Failure::not_confined(
        "this endpoint answers about all series, and your tenant may read those with its own labels only",
    ))
}

fn failure(error: EnforceError) -> Failure {
    match error {
        EnforceError::Parse(error) => QueryError::Parse { name: "query", error }.into(),
        error @ (EnforceError::Conflict(_) | EnforceError::Info) => Failure::not_confined(&error.to_string()),
    }
}

fn remote_read(common: &mut Common, labels: &LabelEnforcement, body: &Bytes) -> Result<Bytes, Failure> {
    let mut request = ReadRequest::parse(body).map_err(QueryError::from)?;
    common.own_text = Some(request.text().into());
    request.confine(labels).map_err(failure)?;
    Ok(request.to_body().map_err(QueryError::from)?)
}

/// Writes the parameters of a query or listing anew: in the form where it has one, else in the URL.
fn parameters(common: &mut Common, labels: &LabelEnforcement, body: &Bytes) -> Result<Bytes, Failure> {
    let uri = common.head.uri.clone();
    let form = body::form(&common.head.headers, common.endpoint, body)?;
    let params = Params::parse(uri.query().unwrap_or(""), form)?;
    let reader = Confiner {
        labels,
        kind: common.upstream.backend.kind(),
        on_unparsable: common.upstream.on_unparsable,
        cache: &common.shared.reader.cache,
    };
    let texts = texts(common.endpoint, &params)?;
    let own = texts.join(" ");
    let name = if reads_selectors(common.endpoint) { "match[]" } else { "query" };
    let confined = texts.iter().map(|text| reader.confined(name, text)).collect::<Result<Vec<_>, _>>();
    let mut confined = confined.map_err(|error| match error {
        ConfineError::Unreadable(error) => unreadable(&mut common.log, reader.kind, &own, error),
        ConfineError::Enforce(error) => {
            common.log.unreadable(&own);
            failure(error)
        }
    })?;
    if confined.is_empty() && matches!(common.endpoint, Endpoint::Labels | Endpoint::LabelValues) {
        confined.push(labels.selector());
    }
    let mut written = form_urlencoded::Serializer::new(String::new());
    written.extend_pairs(confined.iter().map(|text| (name, text)));
    if reader.kind == Kind::VictoriaMetrics {
        // Its own means beside ours: no way in which it reads a text otherwise leads out of them.
        written.append_pair("extra_filters[]", &labels.selector());
    }
    let is_other = |name: &str| !matches!(name, "query" | "match[]") && !EXTRA_MATCHERS.contains(&name);
    written.extend_pairs(params.iter().filter(|(name, _)| is_other(name)));
    let written = written.finish();
    common.own_text = Some(own.into());
    let in_form = common.head.method == Method::POST && !form.is_empty();
    let target = if in_form { uri.path().to_owned() } else { format!("{}?{written}", uri.path()) };
    common.head.uri = target.parse::<Uri>()?;
    if in_form {
        return Ok(written.into());
    }
    common.head.headers.remove(header::CONTENT_TYPE);
    Ok(Bytes::new())
}

/// Whether an endpoint takes selectors, and no query.
const fn reads_selectors(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::Series | Endpoint::Labels | Endpoint::LabelValues)
}

/// The texts of a request that select series.
fn texts<'p>(endpoint: Endpoint, params: &'p Params<'_>) -> Result<Vec<&'p str>, Failure> {
    if reads_selectors(endpoint) {
        let texts: Vec<&str> = params.all("match[]").collect();
        check_number(&texts)?;
        return Ok(texts);
    }
    Ok(params.one("query")?.into_iter().collect())
}

/// Why a text is not confined.
enum ConfineError {
    Unreadable(QueryError),
    Enforce(EnforceError),
}

struct Confiner<'a> {
    labels: &'a LabelEnforcement,
    kind: Kind,
    on_unparsable: OnUnparsable,
    cache: &'a promql::Cache,
}

impl<'a> Confiner<'a> {
    fn of(common: &'a Common, labels: &'a LabelEnforcement) -> Self {
        let Common { upstream, shared, .. } = common;
        let (kind, on_unparsable) = (upstream.backend.kind(), upstream.on_unparsable);
        Self { labels, kind, on_unparsable, cache: &shared.reader.cache }
    }

    /// A text with the matchers. A text that Weir cannot parse never runs: the selectors found in it may be half of them.
    fn confined(&self, name: &'static str, text: &str) -> Result<String, ConfineError> {
        let plain = plain(self.kind, name, text).map_err(ConfineError::Unreadable)?;
        let parsed = expanded(self.kind, name, &plain)
            .and_then(|text| self.parse(&text).map_err(|error| QueryError::Parse { name, error }));
        let ast = parsed.map_err(ConfineError::Unreadable)?;
        self.labels.confine(&ast).map_err(ConfineError::Enforce)
    }

    /// A function that is not known may read series by itself, as `info` does. None of VictoriaMetrics' does, and it filters.
    fn parse(&self, text: &str) -> Result<Arc<Ast>, ParseError> {
        let takes_unknown = self.kind == Kind::VictoriaMetrics && self.on_unparsable != OnUnparsable::Refuse;
        match self.cache.parse(text) {
            Err(error) if error.reason == Reason::UnknownFunction && takes_unknown => {
                let limits = Limits { unknown_functions: true, ..Limits::default() };
                promql::parse_with(text, &limits).map(Arc::new)
            }
            other => other,
        }
    }
}

/// Another text of the same client for its query, confined as that was.
pub(super) fn text(common: &Common, text: &str) -> Result<String, Failure> {
    let Some(labels) = &common.enforced else { return Ok(text.to_owned()) };
    let confined = Confiner::of(common, labels).confined("query", text);
    confined.map_err(|error| match error {
        ConfineError::Unreadable(error) => error.into(),
        ConfineError::Enforce(error) => failure(error),
    })
}

/// A confined query that was read once more has its labels in each selector, or a defect would let it out. People see its
/// client's own text.
pub(super) fn check(common: &Common, query: &mut ParsedQuery) -> Result<(), Failure> {
    check_shape(common, query)?;
    if let Some(own) = &common.own_text {
        own.as_ref().clone_into(&mut query.text);
    }
    Ok(())
}

/// The same for one of which only the price is wanted.
pub(super) fn check_shape(common: &Common, query: &ParsedQuery) -> Result<(), Failure> {
    let is_confined = common.enforced.as_ref().is_none_or(|labels| labels.holds_in(&query.shape.selectors));
    is_confined.then_some(()).ok_or_else(|| {
        let message = "a selector is without the labels of its tenant; this is a defect of Weir";
        Failure::new(ErrorKind::Internal, message)
    })
}
