//! The requests that probes are made of.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    request::{ProbeError, ProbeRequest},
    scan::SeriesScan,
};
use crate::{
    backend::{
        Backend, Outgoing,
        error::Cause,
        fetch::{Fetched, read_at_most},
    },
    base::{LabelSize, TimeRange, time::seconds},
};

/// A longer target goes into a form: common proxies take 8 KiB.
const TARGET_MAX: usize = 8 << 10;
/// The longest small answer (a number, an error) that is read.
const ANSWER_MAX: usize = 1 << 20;
/// The longest list of series that is counted; counting holds none of it, but its transport costs time.
const SERIES_BYTES_MAX: u64 = 256 << 20;
/// How much of an error's text is kept.
const ERROR_TEXT_MAX: usize = 300;

/// A list of series, counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) series: u64,
    pub(super) bytes: u64,
    pub(super) labels: Option<LabelSize>,
    /// Counting stopped over the limit: the number is a lower bound.
    pub(super) truncated: bool,
    /// The backend left something out, or said that it might have, below the limit that it was asked for.
    pub(super) incomplete: bool,
}

/// Parameters in their wire form.
pub(super) struct Form(String);

impl Form {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    pub(super) fn with(self, name: &str, value: &str) -> Self {
        // A serializer is not `Send` and must not live across an await: one for each pair.
        Self(Serializer::new(self.0).append_pair(name, value).finish())
    }

    /// The data scope of the client.
    pub(super) fn scoped(self, request: &ProbeRequest<'_>) -> Self {
        let parameters = request.scope.parameters.iter();
        parameters.fold(self, |form, (name, value)| form.with(name, value))
    }

    pub(super) fn window(self, window: TimeRange) -> Self {
        self.with("start", &seconds(window.start)).with("end", &seconds(window.end))
    }

    fn text(self) -> String {
        self.0
    }
}

impl Backend {
    /// Asks for a small JSON answer.
    pub(super) async fn ask_json<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        form: Form,
        request: &ProbeRequest<'_>,
        deadline: Instant,
    ) -> Result<(T, u64), ProbeError> {
        let outgoing = self.outgoing(path, form.scoped(request), request.scope.headers.clone())?;
        let fetched = self.fetch(outgoing, deadline, ANSWER_MAX).await.map_err(ProbeError::Backend)?;
        if fetched.status != StatusCode::OK {
            return Err(refused(&fetched));
        }
        let parsed = serde_json::from_slice(&fetched.body);
        Ok((parsed.map_err(|e| ProbeError::Unreadable(e.to_string()))?, fetched.body.len() as u64))
    }

    /// Lists the series of a selector and counts them, up to one more than the limit.
    pub(super) async fn list_series(
        &self,
        request: &ProbeRequest<'_>,
        extra: HeaderMap,
        deadline: Instant,
    ) -> Result<Listed, ProbeError> {
        let limit = request.limit.saturating_add(1);
        let form = Form::new()
            .with("match[]", request.selector)
            .window(request.window)
            .with("limit", &limit.to_string())
            .scoped(request);
        let mut headers = request.scope.headers.clone();
        headers.extend(extra);
        let mut outgoing = self.outgoing("/api/v1/series", form, headers)?;
        outgoing.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = self.send(outgoing, deadline, true).await.map_err(ProbeError::Backend)?;
        let limited = is_limited(response.headers());
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = read_at_most(response.into_body(), ANSWER_MAX).await;
            return Err(refused(&Fetched { status, body: body.unwrap_or_default() }));
        }
        let (mut body, mut scan, mut bytes) = (response.into_body(), SeriesScan::default(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(ProbeError::Backend)?.into_data() else { continue };
            bytes += data.len() as u64;
            scan.feed(&data);
            // A backend that knows no limit sends on; leaving closes the connection.
            if scan.series > request.limit && !scan.whole {
                break;
            }
            if bytes > SERIES_BYTES_MAX {
                return Err(ProbeError::Backend(self.error(None, Cause::TooLong(SERIES_BYTES_MAX as usize))));
            }
        }
        let truncated = scan.series > request.limit;
        if !scan.whole && !truncated {
            return Err(ProbeError::Unreadable("the list of series has no end".to_owned()));
        }
        let (series, labels, incomplete) = (scan.series, scan.labels(), scan.incomplete || limited);
        Ok(Listed { series, bytes, labels, truncated, incomplete })
    }

    fn outgoing(&self, path: &str, form: Form, mut headers: HeaderMap) -> Result<Outgoing, ProbeError> {
        let form = form.text();
        let (method, target, body) = if path.len() + form.len() < TARGET_MAX {
            (Method::GET, format!("{path}?{form}"), Bytes::new())
        } else {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
            (Method::POST, path.to_owned(), Bytes::from(form))
        };
        let path_and_query = PathAndQuery::from_maybe_shared(target)
            .map_err(|e| ProbeError::Backend(self.error(None, Cause::Request(e.to_string()))))?;
        Ok(Outgoing { method, path_and_query, headers, body })
    }
}

/// Whether M3 marks its list as incomplete: by its limits on the reads, or on the result.
fn is_limited(headers: &HeaderMap) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Returned {
        limited: bool,
    }
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let returned = text("m3-returned-metadata-limited").and_then(|json| serde_json::from_str(json).ok());
    text("m3-results-limited").is_some_and(|what| !what.trim().is_empty())
        || returned.is_some_and(|returned: Returned| returned.limited)
}

fn refused(fetched: &Fetched) -> ProbeError {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    let text = serde_json::from_slice::<Body>(&fetched.body)
        .map_or_else(|_| String::from_utf8_lossy(&fetched.body).into_owned(), |b| b.error);
    ProbeError::Refused(fetched.status.as_u16(), text.chars().take(ERROR_TEXT_MAX).collect())
}
