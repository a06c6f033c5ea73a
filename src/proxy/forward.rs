//! The request to the backend, and the response to the client.

use std::{
    borrow::Cow,
    convert::Infallible,
    io::Read,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Response, Version, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::Instant;
use tower::Service;

use super::{
    exchange::{Common, Rejected},
    log::ActiveGuard,
    meter::Progress,
    query::ParsedQuery,
    respond::{
        Body,
        failure::{BackendRequest, Failure},
    },
    route::Endpoint,
    split::InParts,
    supervise::STALLED,
    upstream::Upstream,
};
use crate::{
    backend::{
        self, BackendError, Kind, Outgoing, PlaceHandle,
        headers::{Exceeded, M3Limits, exceeded, m3_push_down},
        parameters::filter_headers,
    },
    base::{Confidence, ErrorKind, Estimate, params::Params},
    cost::Estimated,
    limit::{LimitName, Permitted, Refusal, Scope},
};

/// Bytes of a backend's error that are read before it is sent on.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Longest wait for that error.
const ERROR_WAIT: Duration = Duration::from_secs(1);
/// The time that a request has which costs nothing.
const UNCOUNTED_TIME: Duration = Duration::from_secs(30);

/// A request on its way to a backend.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) upstream: Arc<Upstream>,
    pub(super) outgoing: Box<Outgoing>,
    pub(super) deadline: Instant,
    /// It may be tried on another replica after the first one has seen it: a query that may have brought one down may
    /// not.
    pub(super) idempotent: bool,
    /// Its parts; `None` if it goes out as it is.
    pub(super) split: Option<InParts>,
}

/// The head of a backend's answer, or why there is none.
#[derive(Debug)]
pub(super) struct Answer {
    /// When the request went out.
    pub(super) sent: Instant,
    /// In a box, since several futures on its way hold it.
    pub(super) result: Result<Box<Response<backend::Body>>, BackendError>,
}

/// The last service of the stack: sends a query that has its permit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forward;

impl Service<Permitted<Dispatch>> for Forward {
    type Response = Permitted<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Permitted<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, dispatch: Permitted<Dispatch>) -> Self::Future {
        Box::pin(async move {
            let (Dispatch { upstream, outgoing, deadline, idempotent, .. }, permit) = dispatch.into_parts();
            let sent = Instant::now();
            let result = upstream.backend.send(outgoing, deadline, idempotent).await.map(Box::new);
            Ok(Permitted::new(Answer { sent, result }, permit))
        })
    }
}

/// Forwards a request that costs the backend next to nothing: limited in time only.
pub(super) async fn uncounted(mut common: Box<Common>, body: Bytes) -> Result<Response<Body>, Rejected> {
    let active = common.log.uncounted(common.head.uri.path());
    let progress = active.as_ref().map(ActiveGuard::progress).unwrap_or_default();
    let mut headers = std::mem::take(&mut common.head.headers);
    if let Err(refused) = filter_headers(common.upstream.backend.kind(), &mut headers) {
        return Err(common.reject(refused));
    }
    let outgoing = plain(&common, headers, body);
    let until = common.log.began() + UNCOUNTED_TIME;
    let answering = async {
        let answered = common.upstream.backend.send_light(&common.caller.tenant, outgoing, until).await;
        match answered {
            Ok(response) => receive(Box::new(response), BackendRequest::of(&common)).await,
            Err(error) => Err(Failure::from(&error)),
        }
    };
    let answered = tokio::select! {
        answered = answering => answered,
        why = progress.cancellation() => Err(Failure::cancelled(why)),
    };
    let received = match answered {
        Ok(received) => received,
        Err(failure) => return Err(common.reject(failure)),
    };
    if let Some(text) = &received.error {
        common.log.backend_error(text);
    }
    common.log.passed(received.response.status());
    Ok(received.response.map(|body| {
        let place = body.light_place();
        let body = Body::passed(body, until, progress, active);
        if let Some((place, progress)) = place.zip(body.to_come()) {
            tokio::spawn(give_back_if_stalled(place, Arc::downgrade(progress)));
        }
        body
    }))
}

/// Gives the place of an answer back once its client has not asked for more of it for a while. The body cannot do it: it
/// is not asked for anything meanwhile.
async fn give_back_if_stalled(place: PlaceHandle, progress: Weak<Progress>) {
    loop {
        tokio::time::sleep(STALLED).await;
        let Some(progress) = progress.upgrade() else { return };
        if progress.is_stalled(STALLED) && place.stalled() {
            return;
        }
    }
}

/// The request for the backend, with the limits handed down that it takes.
pub(super) fn outgoing(
    common: &mut Common,
    query: &ParsedQuery,
    body: Bytes,
) -> Result<Box<Outgoing>, Failure> {
    let is_m3 = common.upstream.backend.kind() == Kind::M3;
    // M3's own timeout gives way to any that it is sent.
    let timeout = common.timeout().filter(|_| !is_m3 || common.limits().written.timeout);
    let lower = timeout_to_set(common.endpoint, query.timeout, timeout);
    let mut headers = std::mem::take(&mut common.head.headers);
    filter_headers(common.upstream.backend.kind(), &mut headers)?;
    if is_m3 {
        let timeout = query.timeout.into_iter().chain(timeout).min();
        push_down(common, query, &body, timeout, &mut headers);
    }
    let mut outgoing = Box::new(plain(common, headers, body));
    if let Some(kept) = &query.url_query {
        let target = format!("{}?{kept}", common.head.uri.path());
        let broken = |error| Failure::new(ErrorKind::BadData, format!("the request target: {error}"));
        outgoing.path_and_query = PathAndQuery::try_from(target).map_err(broken)?;
    }
    if let Some(lower) = lower {
        let ms = u64::try_from(lower.as_millis()).unwrap_or(u64::MAX);
        outgoing.set_params(&[("timeout", &[itoa::Buffer::new().format(ms), "ms"].concat())])?;
    }
    Ok(outgoing)
}

/// The client's own request.
pub(super) fn plain(common: &Common, headers: HeaderMap, body: Bytes) -> Outgoing {
    let uri = &common.head.uri;
    let path_and_query = uri.path_and_query().cloned();
    let path_and_query = path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    Outgoing { method: common.head.method.clone(), path_and_query, headers, body }
}

/// Hands the limit on time down to M3, and others where the configuration says so. The client's may only be lower.
fn push_down(
    common: &Common,
    query: &ParsedQuery,
    body: &Bytes,
    timeout: Option<Duration>,
    headers: &mut HeaderMap,
) {
    let limits = M3Limits { timeout, ..handed_down(common) };
    // Both were read before.
    let form = std::str::from_utf8(body).unwrap_or_default();
    let url_query = query.url_query.as_deref().or(common.head.uri.query());
    let params = Params::parse(url_query.unwrap_or_default(), form).unwrap_or_default();
    m3_push_down(headers, |name| params.first(name), &limits);
}

/// The limits that go down with a query, as far as they are written: a built-in one of Weir's is not to replace one of
/// the backend's own. Listings are no queries: M3 lets them begin in 1970, which no limit on the range allows.
fn handed_down(common: &Common) -> M3Limits {
    if !common.upstream.push_down || !matches!(common.endpoint, Endpoint::Query | Endpoint::QueryRange) {
        return M3Limits::default();
    }
    let limits = common.limits();
    let written = limits.written;
    let range = limits.range_seconds.enforced().filter(|_| written.range);
    M3Limits {
        series: limits.series.enforced().filter(|_| written.series),
        docs: limits.blocks.enforced().filter(|_| written.blocks),
        range: range.map(Duration::from_secs),
        ..M3Limits::default()
    }
}

/// A refusal by a limit that was handed down is Weir's own: it has the limit's id, and the status of such.
pub(super) fn refused_below(common: &Common, failure: Failure, estimate: &Estimated) -> Failure {
    let Some(exceeded) = exceeded(&failure.message, &handed_down(common)) else { return failure };
    let limits = common.limits();
    let (limit, observed, max) = match exceeded {
        Exceeded::Series(n) => (LimitName::MaxSeries, n, limits.series.enforced()),
        Exceeded::Docs(n) => (LimitName::MaxBlocks, n, limits.blocks.enforced()),
        Exceeded::Range(n) => (LimitName::MaxRange, n.as_secs(), limits.range_seconds.enforced()),
    };
    let observed = Estimate::new(observed, Confidence::AtLeast);
    let scope = Scope::Tenant(common.caller.tenant.clone());
    Failure::refused(&Refusal::exceeded(limit, observed, max.unwrap_or_default(), scope), estimate, None)
}

/// The timeout that replaces the client's own: none where that is lower, or where nothing takes time.
fn timeout_to_set(endpoint: Endpoint, client: Option<Duration>, limit: Option<Duration>) -> Option<Duration> {
    let takes_time = matches!(endpoint, Endpoint::Query | Endpoint::QueryRange);
    limit.filter(|limit| takes_time && client.is_none_or(|client| client > *limit))
}

/// An answer that its client can read.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) response: Box<Response<backend::Body>>,
    /// The text of the backend's own error.
    pub(super) error: Option<String>,
}

impl Received {
    /// An answer that goes on as it is.
    pub(super) fn unchanged(mut response: Box<Response<backend::Body>>) -> Self {
        // The client's connection is another one than the backend's.
        *response.version_mut() = Version::HTTP_11;
        Self { response, error: None }
    }
}

/// The members of a backend's error that the query API of Prometheus has.
#[derive(Deserialize)]
struct ApiError<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, rename = "errorType")]
    error_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Cow<'a, str>,
}

/// Whether an answer can be sent on as it is.
pub(super) fn is_readable(response: &Response<backend::Body>, endpoint: Endpoint) -> bool {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let content_type = content_type.unwrap_or("");
    // Samples, lines of JSON and descriptions in YAML are answers; a page of HTML comes from another server.
    let takes_others = matches!(endpoint, Endpoint::RemoteRead | Endpoint::Search | Endpoint::Light);
    let is_other = takes_others && status.is_success() && !content_type.starts_with("text/html");
    // Nothing to read is nothing to misread: 204, 304. Nobody asked for another protocol.
    let is_empty = http_body::Body::is_end_stream(response.body());
    let failed = status.is_client_error() || status.is_server_error();
    let is_final = !status.is_informational();
    is_final && !failed && (is_json(content_type) || is_other || status.is_redirection() || is_empty)
}

/// Looks at the head of an answer, and at all of an error: one that Grafana could not read becomes JSON in the shape of
/// the query API.
///
/// # Errors
/// The backend's answer is of no use to the client: it is no JSON, or it is about Weir's own access to the backend.
pub(super) async fn receive(
    response: Box<Response<backend::Body>>,
    asked: BackendRequest<'_>,
) -> Result<Received, Failure> {
    let Received { response, error } = Received::unchanged(response);
    if is_readable(&response, asked.endpoint) {
        return Ok(Received { response, error });
    }
    let (mut head, body) = response.into_parts();
    let failed = head.status.is_client_error() || head.status.is_server_error();
    // In a box, since nearly no answer is one.
    let text = Box::pin(read_error(body)).await;
    let plain = decoded(head.headers.get(header::CONTENT_ENCODING), &text);
    let parsed = plain
        .as_deref()
        .filter(|_| failed)
        .and_then(|plain| serde_json::from_slice::<ApiError<'_>>(plain).ok());
    let in_shape = parsed.as_ref().filter(|error| error.status == "error" && error.error_type.is_some());
    match in_shape {
        Some(error) if !asked.is_about_access(head.status) => {
            let error = error.error.clone().into_owned();
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let response = Response::from_parts(head, backend::Body::whole(text.clone()));
            Ok(Received { response: Box::new(response), error: Some(error) })
        }
        _ => {
            let own = parsed.as_ref().map(|error| &*error.error);
            let excerpt = plain.as_deref().map_or(Cow::Borrowed("(compressed)"), String::from_utf8_lossy);
            Err(Failure::foreign(asked, &head, own, &excerpt))
        }
    }
}

/// The text of an error, without its compression; `None` for another one than gzip.
fn decoded<'a>(coding: Option<&HeaderValue>, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match coding.map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Some(Cow::Borrowed(body)),
        Some(b"gzip") => {
            let mut plain = Vec::new();
            GzDecoder::new(body).take(ERROR_BYTES_MAX as u64).read_to_end(&mut plain).ok()?;
            Some(Cow::Owned(plain))
        }
        Some(_) => None,
    }
}

impl<'a> BackendRequest<'a> {
    pub(super) fn of(common: &'a Common) -> Self {
        let backend = &common.upstream.backend;
        let with_credentials = backend.tenancy().forward_credentials;
        Self { endpoint: common.endpoint, backend: backend.name(), with_credentials }
    }
}

/// Reads the body of an error, as far as it comes within its time.
async fn read_error(mut body: backend::Body) -> Bytes {
    let mut text = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { break };
            let room = ERROR_BYTES_MAX.saturating_sub(text.len());
            text.extend_from_slice(data.get(..room).unwrap_or(&data));
            if text.len() >= ERROR_BYTES_MAX {
                break;
            }
        }
    };
    // The part until then is shown.
    let _ = tokio::time::timeout(ERROR_WAIT, reading).await;
    text.into()
}

pub(super) fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or("").trim();
    media.eq_ignore_ascii_case("application/json") || media.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_longer_timeout_is_lowered() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(timeout_to_set(Endpoint::Query, seconds(5), seconds(60)), None);
        assert_eq!(timeout_to_set(Endpoint::Query, seconds(90), seconds(60)), seconds(60));
        assert_eq!(timeout_to_set(Endpoint::QueryRange, None, seconds(60)), seconds(60));
        assert_eq!(timeout_to_set(Endpoint::Series, None, seconds(60)), None);
        assert_eq!(timeout_to_set(Endpoint::Query, None, None), None);
    }

    #[tokio::test]
    async fn errors_of_a_backend_have_the_shape_of_the_query_api() {
        let shaped = r#"{"status":"error","errorType":"execution","error":"too many samples"}"#;
        let cases = [
            // As it came, whatever the content type says (Thanos' query-frontend sends text/plain).
            (422, "application/json", shaped, Ok("too many samples")),
            (422, "text/plain; charset=utf-8", shaped, Ok("too many samples")),
            // Without a type (M3): it gets one, and keeps its status and text.
            (
                400,
                "application/json",
                r#"{"status":"error","error":"bad \"x\""}"#,
                Err((400, "bad_data", "bad \"x\"")),
            ),
            (
                500,
                "application/json",
                r#"{"status":"error","error":"boom"}"#,
                Err((500, "unavailable", "boom")),
            ),
            (504, "application/json", r#"{"status":"error","error":"late"}"#, Err((504, "timeout", "late"))),
            // About Weir's access to the backend: no fault of the client, and no login of its own.
            (401, "application/json", shaped, Err((502, "unavailable", "too many samples"))),
            (403, "text/html", "<html>no</html>", Err((502, "unavailable", "answered 403"))),
            (404, "text/plain", "404 page not found", Err((502, "unavailable", "404 page not found"))),
            (405, "text/plain", "Method Not Allowed", Err((405, "bad_data", "Method Not Allowed"))),
            // No JSON at all.
            (400, "text/plain", "no", Err((400, "bad_data", "instead of JSON: no"))),
            (503, "text/html", "down", Err((503, "unavailable", "down"))),
        ];
        for (status, content_type, text, want) in cases {
            let response = Response::builder().status(status).header("content-type", content_type);
            let response = response.body(backend::Body::whole(text.into())).unwrap();
            let asked =
                BackendRequest { endpoint: Endpoint::Query, backend: "main", with_credentials: false };
            match (receive(Box::new(response), asked).await, want) {
                (Ok(received), Ok(error)) => {
                    assert_eq!(received.error.as_deref(), Some(error));
                    assert_eq!(received.response.headers()["content-type"], "application/json");
                    let body = received.response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, text);
                }
                (Err(failure), Err((status, error_type, part))) => {
                    let found = (failure.status().as_u16(), failure.kind.error_type());
                    assert_eq!(found, (status, error_type), "{text}");
                    assert!(failure.message.contains(part), "{}", failure.message);
                }
                (found, _) => panic!("{status} {text}: {found:?}"),
            }
        }
    }

    /// The owner of the credentials is at fault: the client, or Weir.
    #[tokio::test]
    async fn a_login_that_a_backend_refuses_is_the_clients_where_it_was_forwarded() {
        for (status, with_credentials, want) in
            [(401, true, 401), (403, true, 403), (401, false, 502), (403, false, 502)]
        {
            let response = Response::builder().status(status).header("content-type", "text/plain");
            let response = response.body(backend::Body::whole("Unauthorized".into())).unwrap();
            let asked = BackendRequest { endpoint: Endpoint::Query, backend: "main", with_credentials };
            let failure = receive(Box::new(response), asked).await.unwrap_err();
            assert_eq!(failure.status(), want, "{status} {with_credentials}");
            assert!(failure.message.contains("Unauthorized"), "{}", failure.message);
        }
    }

    /// Grafana takes a database without `status/buildinfo` for one of another kind, and any other error for a failure.
    #[tokio::test]
    async fn an_endpoint_that_a_database_lacks_is_not_found() {
        for (endpoint, want) in [
            (Endpoint::Light, 404),
            (Endpoint::QueryExemplars, 404),
            (Endpoint::Search, 404),
            (Endpoint::RemoteRead, 404),
            (Endpoint::Query, 502),
            (Endpoint::LabelValues, 502),
        ] {
            let response = Response::builder().status(404).header("content-type", "text/plain");
            let response = response.body(backend::Body::whole("404 page not found\n".into())).unwrap();
            let asked = BackendRequest { endpoint, backend: "main", with_credentials: false };
            let failure = receive(Box::new(response), asked).await.unwrap_err();
            assert_eq!(failure.status(), want, "{endpoint:?}");
            assert!(failure.message.contains("404 page not found"), "{}", failure.message);
        }
    }
}
