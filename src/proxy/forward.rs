//! The forward stage: what the backend gets, and what the client gets of its answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, Version, header, request::Parts, uri::PathAndQuery};
use http_body_util::BodyExt;

use super::{
    respond::failure::Failure,
    route::{Endpoint, Routed},
};
use crate::{
    backend::{self, Outgoing, headers::strip_hop_by_hop},
    base::ErrorKind,
};

/// Bytes of a backend's error text that are read before it is put into JSON.
const ERROR_TEXT_MAX: usize = 4 << 10;
/// Longest wait for that text.
const ERROR_TEXT_WAIT: Duration = Duration::from_secs(1);
const TIMEOUT: &str = "timeout";

/// A client's request with its body read, ready to be sent on.
#[derive(Debug)]
pub(super) struct Forward<'a> {
    /// Method, target and headers as they came.
    pub parts: &'a Parts,
    /// Where it goes.
    pub routed: Routed<'a>,
    /// The whole body.
    pub body: Bytes,
    /// The longest that the backend may take; `None` where the client asked for less, or for nothing that takes time.
    pub ceiling: Option<Duration>,
}

impl Forward<'_> {
    /// The request for the backend. The client's own bytes go on; a lower timeout is put before them, since the first
    /// value of a parameter counts, and the form's before the URL's.
    pub(super) fn outgoing(self, headers: HeaderMap) -> Result<Outgoing, Failure> {
        let timeout = self.ceiling.map(|ceiling| format!("{TIMEOUT}={}ms", ceiling.as_millis()));
        let in_form = timeout.is_some() && !self.body.is_empty();
        let body = match &timeout {
            Some(timeout) if in_form => prepend(timeout, &self.body),
            _ => self.body,
        };
        let uri = &self.parts.uri;
        let unchanged = self.routed.path == uri.path() && (timeout.is_none() || in_form);
        let path_and_query = match (uri.path_and_query(), timeout) {
            (Some(whole), _) if unchanged => whole.clone(),
            (_, timeout) => {
                let added = timeout.filter(|_| !in_form);
                let broken = |error| Failure::new(ErrorKind::BadData, format!("the request target: {error}"));
                PathAndQuery::try_from(target(self.routed.path, added.as_deref(), uri.query()))
                    .map_err(broken)?
            }
        };
        Ok(Outgoing { method: self.parts.method.clone(), path_and_query, headers, body })
    }
}

fn target(path: &str, added: Option<&str>, query: Option<&str>) -> String {
    let length = |text: Option<&str>| text.map_or(0, |text| text.len() + 1);
    let mut out = String::with_capacity(path.len() + length(added) + length(query));
    out.push_str(path);
    let mut mark = '?';
    for text in added.into_iter().chain(query) {
        out.push(mark);
        out.push_str(text);
        mark = '&';
    }
    out
}

fn prepend(timeout: &str, form: &Bytes) -> Bytes {
    let mut longer = BytesMut::with_capacity(timeout.len() + 1 + form.len());
    longer.extend_from_slice(timeout.as_bytes());
    longer.extend_from_slice(b"&");
    longer.extend_from_slice(form);
    longer.freeze()
}

/// What is left of the ceiling on the time of a query once the client's own is looked at: nothing when that is lower.
pub(super) fn ceiling(
    endpoint: Endpoint,
    client: Option<Duration>,
    limit: Option<Duration>,
) -> Option<Duration> {
    let takes_time = matches!(endpoint, Endpoint::Query | Endpoint::QueryRange);
    limit.filter(|limit| takes_time && client.is_none_or(|client| client > *limit))
}

/// Looks at the head of an answer: hop-by-hop headers go, and what Grafana could not read becomes JSON.
pub(super) async fn receive(
    response: Response<backend::Body>,
    endpoint: Endpoint,
    backend: &str,
) -> Result<Response<backend::Body>, Failure> {
    let (mut head, mut body) = response.into_parts();
    strip_hop_by_hop(&mut head.headers);
    // The client's connection is another one than the backend's.
    head.version = Version::HTTP_11;
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    // Samples, lines of JSON and descriptions in YAML are what was asked for; a page of HTML is from somebody else.
    let takes_others = matches!(endpoint, Endpoint::RemoteRead | Endpoint::Search | Endpoint::Light);
    let is_other = takes_others && head.status.is_success() && !content_type.starts_with("text/html");
    let readable = is_json(content_type) || is_other;
    // Nothing to read is nothing to misread: 204, 304. Nobody asked for another protocol.
    let is_final = !head.status.is_informational();
    if is_final && (readable || head.status.is_redirection() || http_body::Body::is_end_stream(&body)) {
        return Ok(Response::from_parts(head, body));
    }
    let mut text = Vec::new();
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { break };
            let room = ERROR_TEXT_MAX.saturating_sub(text.len());
            text.extend_from_slice(data.get(..room).unwrap_or(&data));
            if text.len() >= ERROR_TEXT_MAX {
                break;
            }
        }
    };
    // What came until then is shown.
    let _ = tokio::time::timeout(ERROR_TEXT_WAIT, reading).await;
    if head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        text = b"(compressed)".to_vec();
    }
    Err(Failure::foreign(backend, &head, &text))
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or("").trim();
    media.eq_ignore_ascii_case("application/json") || media.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn sent(uri: &str, body: &str, ceiling: Option<u64>) -> (String, String) {
        let (parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
        let path = parts.uri.path().strip_prefix("/prometheus").unwrap_or(parts.uri.path());
        let routed = Routed { endpoint: Endpoint::Query, path };
        let body = Bytes::copy_from_slice(body.as_bytes());
        let ceiling = ceiling.map(Duration::from_millis);
        let out = Forward { parts: &parts, routed, body, ceiling }.outgoing(HeaderMap::new()).unwrap();
        (out.path_and_query.to_string(), String::from_utf8(out.body.to_vec()).unwrap())
    }

    #[test]
    fn requests_go_on_as_they_came_but_for_a_lower_timeout() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(sent("/api/v1/query?query=up%20", "", None), pair("/api/v1/query?query=up%20", ""));
        assert_eq!(sent("/prometheus/api/v1/query?query=up", "", None), pair("/api/v1/query?query=up", ""));
        assert_eq!(sent("/prometheus/api/v1/labels", "", None), pair("/api/v1/labels", ""));
        assert_eq!(
            sent("/api/v1/query?query=up", "", Some(60_000)),
            pair("/api/v1/query?timeout=60000ms&query=up", "")
        );
        assert_eq!(
            sent("/api/v1/query?stats=all", "query=up", Some(5)),
            pair("/api/v1/query?stats=all", "timeout=5ms&query=up")
        );
    }

    #[test]
    fn only_a_longer_timeout_is_lowered() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(ceiling(Endpoint::Query, seconds(5), seconds(60)), None);
        assert_eq!(ceiling(Endpoint::Query, seconds(90), seconds(60)), seconds(60));
        assert_eq!(ceiling(Endpoint::QueryRange, None, seconds(60)), seconds(60));
        assert_eq!(ceiling(Endpoint::Series, None, seconds(60)), None);
        assert_eq!(ceiling(Endpoint::Query, None, None), None);
    }
}
