//! The one place that makes error responses, and the body that every response of the proxy has.
//!
//! Grafana parses the bodies of 2xx, 400, 422 and 503 and prints the first KiB of any other as it is. So every body is
//! JSON in Prometheus' shape, and one that will be printed raw is short and free of characters that JSON escapes.

pub(in crate::proxy) mod failure;
pub(in crate::proxy) mod layer;
mod warnings;

use std::{
    fmt::{self, Write as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use serde::Serialize;
use tokio::time::Instant;

pub use self::warnings::Warned;
use crate::proxy::{
    log::ActiveGuard,
    meter::{BodyError, MeteredBody, Progress},
};
use crate::{
    backend::{self, BackendError},
    base::{ErrorKind, cors::TO_SCRIPTS, error, json},
};

/// The id of the error, which `docs/errors.md` explains.
pub const WEIR_ERROR: HeaderName = HeaderName::from_static(error::WEIR_ERROR);
/// Which limit refused, and by how much.
pub const WEIR_LIMIT: HeaderName = HeaderName::from_static("weir-limit");
/// The estimated cost of the query.
pub const WEIR_ESTIMATE: HeaderName = HeaderName::from_static("weir-estimate");
/// The actual cost of the query, where that is known before the answer's first byte goes out.
pub const WEIR_COST: HeaderName = HeaderName::from_static("weir-cost");
/// The time that Weir and the backend took, beside the entries of others.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Bytes of a message; a longer one is cut.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of a message that will be printed raw: with the JSON around it, it fits the KiB that Grafana prints.
const RAW_MESSAGE_BYTES_MAX: usize = 900;
/// Bytes of a header value made from text.
const HEADER_BYTES_MAX: usize = 1024;

/// The headers of an error response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// For `Weir-Limit`: the stable id of the limit, and the numbers.
    pub limit: Option<String>,
    /// For `Weir-Estimate`.
    pub estimate: Option<String>,
    /// For `Weir-Cost`: the part of an answer before it was refused.
    pub cost: Option<String>,
    /// For `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// For `Allow`: the methods that the endpoint takes.
    pub allow: Option<&'static str>,
    /// For `WWW-Authenticate`: the ways in which a client may identify itself.
    pub challenge: Option<&'static str>,
    /// For `Location`: where the endpoint is.
    pub location: Option<String>,
    /// For the body: a query that passes.
    pub fix: Option<Box<Fix>>,
}

/// A query that passes in place of one that was refused: parameters for the same endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The text; empty for a listing, which keeps its selectors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// The text is a part of the one that was refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
    /// Of a range query or a listing, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Of a range query or a listing, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Of a range query, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.part {
            f.write_str("a part of it, ")?;
        }
        let query = (!self.query.is_empty()).then_some(&self.query);
        let values = [
            ("query", query),
            ("start", self.start.as_ref()),
            ("end", self.end.as_ref()),
            ("step", self.step.as_ref()),
        ];
        let given = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (at, (name, value)) in given.enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// An error response: JSON with `status`, `errorType` and `error`, first and in this order.
///
/// A refusal with a `retry_after` whose body will be printed raw starts with it; the message need not repeat it.
pub fn error(kind: ErrorKind, message: &str, extra: Extra) -> Response<Body> {
    let retry_seconds = extra.retry_after.map(seconds_up);
    let id = extra.limit.as_deref().and_then(|limit| limit.split(';').next()).unwrap_or(kind.label());
    let id = header_text(id);
    let mut text = json(kind, message, retry_seconds);
    if let Some(fix) = extra.fix.and_then(|fix| serde_json::to_string(&fix).ok()) {
        text.pop();
        text.extend([",\"fix\":", &fix, "}"]);
    }
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(WEIR_ERROR, id);
    if let Some(seconds) = retry_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = extra.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    if kind == ErrorKind::Unauthorized {
        let challenge = extra.challenge.unwrap_or("Basic realm=\"weir\"");
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    let texts = [
        (WEIR_LIMIT, extra.limit),
        (WEIR_ESTIMATE, extra.estimate),
        (WEIR_COST, extra.cost),
        (header::LOCATION, extra.location),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            headers.insert(name, header_text(&text));
        }
    }
    response
}

/// The answer to a browser that asks whether a page may ask.
pub(in crate::proxy) fn preflight(for_script: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    readable(response, for_script)
}

/// The same response, readable to the page of another host if it is for one.
pub(in crate::proxy) fn readable(mut response: Response<Body>, for_script: bool) -> Response<Body> {
    if for_script {
        let headers = response.headers_mut();
        for (name, value) in TO_SCRIPTS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// A valid header value for any text: other characters become a space or `?`, and a long text is cut.
pub fn header_text(text: &str) -> HeaderValue {
    // Nearly always it is one already.
    if text.len() <= HEADER_BYTES_MAX
        && text.is_ascii()
        && let Ok(value) = HeaderValue::from_str(text)
    {
        return value;
    }
    let visible = |c: char| match c {
        ' '..='~' => c,
        c if c.is_control() => ' ',
        _ => '?',
    };
    let clean: String = text.chars().map(visible).take(HEADER_BYTES_MAX).collect();
    HeaderValue::try_from(clean).unwrap_or_else(|_| HeaderValue::from_static("?"))
}

/// Whole seconds, rounded up: never earlier than asked for, never "at once".
fn seconds_up(wait: Duration) -> u64 {
    let whole = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    whole.max(1)
}

/// Whether Grafana parses the body of this status; it prints any other raw.
const fn is_parsed_by_grafana(status: u16) -> bool {
    matches!(status, 200..=299 | 400 | 422 | 503)
}

fn json(kind: ErrorKind, message: &str, retry_seconds: Option<u64>) -> String {
    let mut out = String::with_capacity(96 + message.len());
    out.push_str(r#"{"status":"error","errorType":""#);
    out.push_str(kind.error_type());
    out.push_str(r#"","error":""#);
    if is_parsed_by_grafana(kind.status()) {
        json::escape(&mut out, message, MESSAGE_BYTES_MAX);
    } else {
        if let Some(seconds) = retry_seconds {
            // Writing to a string does not fail.
            let _ = write!(out, "retry in {seconds}s: ");
        }
        json::escape(&mut out, &plain(message), RAW_MESSAGE_BYTES_MAX);
    }
    out.push_str("\"}");
    out
}

/// The text almost without characters that JSON escapes: quoted strings of a query keep their meaning in single quotes.
/// Only a backslash stays, since nothing else means the same.
fn plain(text: &str) -> String {
    let replace = |c: char| match c {
        '"' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// The body of every response of the proxy.
#[derive(Debug)]
pub enum Body {
    /// Made here, sent in one piece; `None` when it was handed on.
    Full(Option<Bytes>),
    /// A backend's answer under a permit.
    Metered(Box<MeteredBody<backend::Body>>),
    /// The same with warnings of Weir's.
    Warned(Box<Warned>),
    /// A backend's answer that nobody counts.
    Streaming(Box<Passed>),
}

/// An answer that is not metered, and its progress.
#[derive(Debug)]
pub struct Passed {
    body: backend::Body,
    progress: Arc<Progress>,
    _active: Option<ActiveGuard>,
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.progress.end();
    }
}

impl Body {
    /// A body made here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// A backend's answer that nobody counts, which must have ended by then.
    pub(in crate::proxy) fn passed(
        body: backend::Body,
        until: Instant,
        progress: Arc<Progress>,
        active: Option<ActiveGuard>,
    ) -> Self {
        progress.set_deadline(until);
        Self::Streaming(Box::new(Passed { body, progress, _active: active }))
    }

    /// Its progress, if it is still under way.
    pub(in crate::proxy) fn to_come(&self) -> Option<&Arc<Progress>> {
        match self {
            Self::Metered(body) => body.to_come(),
            Self::Warned(warned) => warned.to_come(),
            Self::Streaming(passed) => Some(&passed.progress).filter(|_| !passed.body.is_end_stream()),
            Self::Full(_) => None,
        }
    }

    /// No bytes.
    pub const fn empty() -> Self {
        Self::Full(None)
    }
}

impl From<Box<MeteredBody<backend::Body>>> for Body {
    fn from(body: Box<MeteredBody<backend::Body>>) -> Self {
        Self::Metered(body)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError<BackendError>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Metered(body) => Pin::new(body).poll_frame(cx),
            Self::Warned(warned) => Pin::new(warned).poll_frame(cx),
            Self::Streaming(passed) => {
                let next = Pin::new(&mut passed.body).poll_frame(cx).map_err(BodyError::Upstream);
                passed.progress.handed(next.is_ready());
                next
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Metered(body) => body.is_end_stream(),
            Self::Warned(warned) => warned.is_end_stream(),
            Self::Streaming(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Metered(body) => body.size_hint(),
            Self::Warned(warned) => warned.size_hint(),
            Self::Streaming(passed) => passed.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(response: Response<Body>) -> (u16, http::HeaderMap, String) {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn bodies_are_these() {
        let cases = [
            (
                ErrorKind::BadData,
                "1:5: parse error: \"x\"",
                None,
                r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: \"x\""}"#,
            ),
            (
                ErrorKind::LimitExceeded,
                "a\nb\t\\ \u{1}\u{7f}é",
                None,
                r#"{"status":"error","errorType":"execution","error":"a\nb\t\\ \u0001\u007fé"}"#,
            ),
            (
                ErrorKind::RateLimited,
                "over 50/s for up{job=\"a\"}\n(weir-rate)",
                Some(1500),
                r#"{"status":"error","errorType":"too_many_requests","error":"retry in 2s: over 50/s for up{job='a'} (weir-rate)"}"#,
            ),
            (
                ErrorKind::QueueFull,
                "full",
                Some(0),
                r#"{"status":"error","errorType":"unavailable","error":"full"}"#,
            ),
            (
                ErrorKind::UpstreamDead,
                "C:\\x\r\0",
                None,
                r#"{"status":"error","errorType":"unavailable","error":"C:\\x  "}"#,
            ),
        ];
        for (kind, message, retry_ms, want) in cases {
            let retry_after = retry_ms.map(Duration::from_millis);
            let (status, headers, body) =
                read(error(kind, message, Extra { retry_after, ..Extra::default() })).await;
            assert_eq!(body, want);
            assert_eq!(status, kind.status());
            assert_eq!(headers["content-type"], "application/json");
            assert_eq!(headers.get("retry-after").is_some(), retry_ms.is_some());
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
    }

    #[tokio::test]
    async fn every_kind_is_valid_json_whatever_the_text() {
        let mut rng = fastrand::Rng::with_seed(7);
        for &kind in ErrorKind::ALL {
            for length in [0, 1, 900, 901, 5000] {
                let message: String = (0..length).map(|_| rng.char('\0'..='\u{ffff}')).collect();
                let limit = Some(message.clone());
                let extra = Extra { limit, retry_after: Some(Duration::MAX), ..Extra::default() };
                let (_, headers, body) = read(error(kind, &message, extra)).await;
                let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(parsed["status"], "error");
                assert_eq!(parsed["errorType"], kind.error_type());
                assert!(headers["weir-limit"].to_str().unwrap().len() <= HEADER_BYTES_MAX);
                if !is_parsed_by_grafana(kind.status()) {
                    assert!(body.len() <= 1024, "{kind:?}: {} bytes", body.len());
                    assert!(!body.replace("\\\\", "").contains('\\'), "{body}");
                }
            }
        }
    }

    #[test]
    fn header_values_are_valid_whatever_the_text() {
        assert_eq!(header_text("weir-max-series; max=5"), "weir-max-series; max=5");
        assert_eq!(header_text("a\r\nX: y\0é"), "a  X: y ?");
        assert_eq!(header_text(""), "");
        assert_eq!(header_text(&"x".repeat(5000)).len(), HEADER_BYTES_MAX);
    }

    #[test]
    fn retry_after_is_never_too_early() {
        for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(seconds_up(Duration::from_millis(ms)), seconds);
        }
    }

    #[tokio::test]
    async fn a_401_challenges_and_a_405_says_what_is_allowed() {
        let (_, headers, _) = read(error(ErrorKind::Unauthorized, "who?", Extra::default())).await;
        assert_eq!(headers["www-authenticate"], "Basic realm=\"weir\"");
        let extra = Extra { allow: Some("GET, POST"), ..Extra::default() };
        let (_, headers, _) = read(error(ErrorKind::MethodNotAllowed, "no", extra)).await;
        assert_eq!(headers["allow"], "GET, POST");
    }
}
