//! Reads a query: its body, its parameters, its text.

use std::{
    borrow::Cow,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http::{HeaderValue, Response, header};
use serde_json::json;
use tower::Service;

use super::{
    ParsedQuery, QueryError, QueryParser, body, enforce, listing::label_of, offload::INLINE_BYTES_MAX,
    parse_only,
};
use crate::{
    backend::{DataScope, parameters::filter_parameters},
    base::{
        ErrorKind, Kind,
        params::{self, Params},
        units,
    },
    promql::{
        self,
        shape::{Listed, Reads},
    },
    proxy::{
        exchange::{Common, Exchange, Identified, Parsed, Rejected},
        forward,
        layer::layer,
        log::QueryLog,
        respond::{Body, failure::Failure},
        route::{Endpoint, PARSED},
        shared::QueryReader,
    },
};

/// Bytes of the longest query that is taken for a health check.
const CONSTANT_QUERY_MAX: usize = 64;
/// Bytes of an escaped character.
const ESCAPED_BYTES: usize = 3;
/// The endpoint that lays a query out in lines.
const FORMAT: &str = "format_query";
/// The largest that indentation may make a query, bytes.
const FORMATTED_BYTES_MAX: usize = 1 << 20;

impl QueryReader {
    /// Reads the query. A text that cannot be parsed goes on record as it came.
    pub(in crate::proxy) fn parse(common: &mut Common, body: &Bytes) -> Result<Box<ParsedQuery>, Failure> {
        let Common { shared, head, endpoint, upstream, log, .. } = &mut *common;
        let (endpoint, cache) = (*endpoint, &shared.reader.cache);
        let (kind, dialect) = (upstream.backend.kind(), upstream.dialect());
        let mut url_query = filter_parameters(kind, head.uri.query().unwrap_or(""))?;
        let mut form = filter_parameters(kind, body::form(&head.headers, endpoint, body)?)?;
        let query = if endpoint == Endpoint::RemoteRead {
            ParsedQuery::remote_read(body, cache)?
        } else {
            let params = Params::parse(&url_query, &form)?;
            let on_unparsable = upstream.on_unparsable;
            let reading = QueryParser { now_ms: log.came_ms(), dialect, kind, on_unparsable, cache };
            reading.read(endpoint, &params).map_err(|error| {
                let text = params.first("query").or_else(|| params.first("match[]"));
                if text.is_none() && form.is_empty() && !body.is_empty() {
                    return Failure::new(ErrorKind::BadData, body::NO_FORM);
                }
                unreadable(log, kind, text.unwrap_or_default(), error)
            })?
        };
        // In a box from here on, since it moves from stage to stage.
        let mut query = Box::new(query);
        if endpoint == Endpoint::LabelValues {
            query.shape.reads = Reads::Listing(Listed::Values(label_of(head.uri.path())));
        }
        query.scope = DataScope::new(kind, &head.headers, &url_query, &form)?;
        if !query.sent.is_empty() {
            let name = if query.listing { "match[]" } else { "query" };
            (url_query, form) = with_texts(&url_query, &form, name, &query.sent);
        }
        // Parameters for Weir do not go on to the backend.
        if let Cow::Owned(kept) = url_query {
            query.url_query = Some(kept);
        }
        if let Cow::Owned(kept) = form {
            query.body = Some(kept.into());
        }
        enforce::check(common, &mut query)?;
        Ok(query)
    }

    /// The same query with other parameters in place of these. Nothing of it goes on record.
    pub(in crate::proxy) fn parse_with(
        common: &Common,
        query: &ParsedQuery,
        body: &Bytes,
        set: &[(&str, String)],
    ) -> Result<ParsedQuery, Failure> {
        let Common { shared, head, upstream, endpoint, .. } = common;
        let kind = upstream.backend.kind();
        let url_query = query.url_query.as_deref().or(head.uri.query()).unwrap_or("");
        let form = query.body.as_ref().unwrap_or(body);
        let form = body::form(&head.headers, *endpoint, form)?;
        let names: Vec<_> = set.iter().map(|(name, _)| (*name, "")).collect();
        let mut kept = [String::new(), String::new()];
        for (kept, text) in kept.iter_mut().zip([url_query, form]) {
            params::write(kept, &[], text, &names);
        }
        let set = set.iter().map(|(name, value)| match *name {
            "query" => enforce::text(common, value).map(|confined| (*name, confined)),
            _ => Ok((*name, value.clone())),
        });
        let set = set.collect::<Result<Vec<_>, _>>()?;
        let set = form_urlencoded::Serializer::new(std::mem::take(&mut kept[0])).extend_pairs(set).finish();
        let params = Params::parse(&set, &kept[1])?;
        let (dialect, on_unparsable) = (upstream.dialect(), upstream.on_unparsable);
        let (now_ms, cache) = (common.log.came_ms(), &shared.reader.cache);
        let other = QueryParser { now_ms, dialect, kind, on_unparsable, cache }.read(*endpoint, &params)?;
        enforce::check_shape(common, &other)?;
        Ok(ParsedQuery { scope: query.scope.clone(), ..other })
    }

    /// The text for a formatter or a parser is read here first, since a query nested 4,000 times takes Prometheus 30 s of
    /// CPU. It is formatted here as well: `1+1+…` of 2,000 numbers takes Prometheus as long, and 5,000 take 750 MiB.
    fn formatted(&self, common: &Common, body: &Bytes) -> Result<Option<Response<Body>>, Failure> {
        let name = common.head.uri.path().strip_prefix("/api/v1/").unwrap_or_default();
        if !PARSED.contains(&name) {
            return Ok(None);
        }
        let form = body::form(&common.head.headers, common.endpoint, body)?;
        let params = Params::parse(common.head.uri.query().unwrap_or(""), form)?;
        let query = parse_only(&params, &self.cache)?;
        if name != FORMAT {
            return Ok(None);
        }
        let text = promql::print::pretty(&query.ast, FORMATTED_BYTES_MAX).ok_or_else(|| {
            let max = units::bytes(FORMATTED_BYTES_MAX as u64);
            Failure::new(ErrorKind::LimitExceeded, format!("written in lines the query is larger than {max}"))
        })?;
        // In Prometheus' own order, so that the answer is the same byte by byte.
        let answer = format!(r#"{{"status":"success","data":{}}}"#, json!(text));
        let mut response = Response::new(Body::full(answer));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Some(response))
    }
}

/// URL and form with these texts in the place of those of this name, which stay in the one that had them.
fn with_texts(
    url_query: &str,
    form: &str,
    name: &str,
    texts: &[String],
) -> (Cow<'static, str>, Cow<'static, str>) {
    let encoded = |text: &String| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let encoded: Vec<_> = texts.iter().map(encoded).collect();
    let first: Vec<_> = encoded.iter().map(|text| (name, text.as_str())).collect();
    let in_form = Params::parse("", form).is_ok_and(|params| params.first(name).is_some());
    let write = |text: &str, is_here: bool| {
        let mut out = String::new();
        params::write(&mut out, if is_here { &first } else { &[] }, text, &[(name, "")]);
        Cow::Owned(out)
    };
    (write(url_query, !in_form), write(form, in_form))
}

/// The failure of a text that cannot be read, which goes on record as it came.
pub(super) fn unreadable(log: &mut QueryLog, kind: Kind, text: &str, error: QueryError) -> Failure {
    log.unreadable(text);
    let bare = matches!(kind, Kind::Thanos | Kind::Cortex).then(|| error.without_parameter());
    let failure = Failure::from(error);
    match bare.filter(|_| failure.kind == ErrorKind::BadData) {
        Some(message) => Failure { message, ..failure },
        None => failure,
    }
}

/// Whether a query surely reads nothing, before anything of it is parsed: short, of numbers, operators and these calls,
/// as health checks are (`1+1`, `vector(1)`).
pub(in crate::proxy) fn is_constant(url_query: Option<&str>, form: &str) -> bool {
    let url_query = url_query.unwrap_or_default();
    let mut parts = form.split('&').chain(url_query.split('&'));
    let encoded = parts.find_map(|part| part.strip_prefix("query=")).unwrap_or_default();
    // Nearly every query has a letter that is in none of these calls, nor in an escape: nothing is decoded for it.
    let is_long = encoded.len() > CONSTANT_QUERY_MAX * ESCAPED_BYTES;
    if is_long
        || encoded.bytes().any(|byte| byte.is_ascii_alphabetic() && !b"vectorimpabdfABCDEF".contains(&byte))
    {
        return false;
    }
    let params = Params::parse(url_query, form).unwrap_or_default();
    is_constant_text(params.first("query").unwrap_or_default())
}

/// The same of a text alone.
pub(in crate::proxy) fn is_constant_text(text: &str) -> bool {
    if text.len() > CONSTANT_QUERY_MAX {
        return false;
    }
    let is_plain = |byte: u8| byte.is_ascii_digit() || b" ()+-*/%^.".contains(&byte);
    // Without its calls nothing of it is a name.
    let rest = ["vector(", "time(", "pi("].iter().fold(text.to_owned(), |text, call| text.replace(call, "("));
    text.contains(|c: char| c.is_ascii_digit()) && rest.bytes().all(is_plain)
}

fn is_constant_request(common: &Common, body: &Bytes) -> bool {
    let form = body::form(&common.head.headers, common.endpoint, body).unwrap_or_default();
    is_constant(common.head.uri.query(), form)
}

layer! {
    /// Reads queries before the service that takes them. A request that costs nothing is forwarded here, uncounted.
    pub(in crate::proxy) ParseLayer => Parse
}

impl<S, B> Service<Exchange<Identified<B>>> for Parse<S>
where
    S: Service<Exchange<Parsed>, Response = Response<Body>, Error = Rejected> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Rejected;
    type Future = BoxFuture<'static, Result<Response<Body>, Rejected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<Identified<B>>) -> Self::Future {
        let mut inner = self.inner.clone();
        Box::pin(async move {
            match parsed(exchange).await? {
                Either::Left(exchange) => inner.call(exchange).await,
                Either::Right(response) => Ok(response),
            }
        })
    }
}

/// Reads a request, beside the worker where its body is long.
async fn in_turn<T: Send + 'static>(
    mut common: Box<Common>,
    body: Bytes,
    read: impl FnOnce(&mut Common, Bytes) -> Result<T, Failure> + Send + 'static,
) -> Result<(Box<Common>, T), Rejected> {
    let done = if body.len() <= INLINE_BYTES_MAX {
        read(&mut common, body)
    } else {
        let texts = common.shared.reader.long_texts.clone();
        let reading = texts.read(move || {
            let done = read(&mut common, body);
            (common, done)
        });
        let done;
        (common, done) = Box::pin(reading).await;
        done
    };
    match done {
        Ok(read) => Ok((common, read)),
        Err(failure) => Err(common.reject(failure)),
    }
}

/// The parsed query, or the answer where that costs nothing. A function of its own, so that its variables take no room
/// while the query runs.
async fn parsed<B>(
    exchange: Exchange<Identified<B>>,
) -> Result<Either<Exchange<Parsed>, Response<Body>>, Rejected>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Exchange { common, stage: Identified { body, over_rate } } = exchange;
    let reader = &common.shared.reader;
    let body = match reader.bodies.read(body, common.config.request_body).await {
        Ok(body) => body,
        Err(failure) => return Err(common.reject(failure)),
    };
    if common.endpoint == Endpoint::Light {
        let (mut common, (formatted, body)) = in_turn(common, body, |common, body| {
            let body = enforce::confine(common, body)?;
            common.shared.reader.formatted(common, &body).map(|formatted| (formatted, body))
        })
        .await?;
        if let Some(response) = formatted {
            common.log.free();
            common.log.passed(response.status());
            return Ok(Either::Right(response));
        }
        return Box::pin(forward::uncounted(common, body)).await.map(Either::Right);
    }
    let over_rate = over_rate.map(|refusal| Failure::over_rate(&refusal));
    if let Some(failure) = over_rate.clone().filter(|_| !is_constant_request(&common, &body)) {
        return Err(common.reject(failure));
    }
    let (mut common, (query, body)) = in_turn(common, body, |common, body| {
        let body = enforce::confine(common, body)?;
        QueryReader::parse(common, &body).map(|query| (query, body))
    })
    .await?;
    common.log.parsed(&query);
    if let Some(failure) = over_rate.filter(|_| !query.free) {
        return Err(common.reject(failure));
    }
    if query.free && !common.endpoint.is_explained() {
        return Box::pin(forward::uncounted(common, body)).await.map(Either::Right);
    }
    Ok(Either::Left(Exchange { common, stage: Parsed { query, body } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_told_from_queries_without_parsing() {
        for (url, form, want) in [
            ("query=1%2B1&time=4", "", true),
            ("", "query=vector(1)%2Btime()", true),
            ("query=up", "", false),
            ("query=vector", "", false),
            ("query=((", "", false),
            ("query=1%2Bup", "", false),
            ("query=1", "query=up", false),
            ("query=", "", false),
            ("query=vector(1)[1d:1s]", "", false),
            (&*format!("query={}", "1%2B".repeat(40)), "", false),
        ] {
            assert_eq!(is_constant(Some(url), form), want, "{url} {form}");
        }
    }
}
