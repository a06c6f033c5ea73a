//! Responses of a connection itself, to requests that reach no service.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Full;

use crate::base::{ErrorKind, error::WEIR_ERROR};

/// Bytes of a request's head, and of the buffer that an answer is written from.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// When a client that found no connection free may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// It is not HTTP/1.
    Malformed,
    /// Its head is too long, or has too many fields.
    HeadTooLarge,
    /// Its URL is too long.
    UrlTooLong,
    /// It names no host, several, or one that is none.
    Host(&'static str),
    /// It came over plain HTTP to an address that speaks TLS.
    NotTls,
    /// All connections, or those of its client, are in use.
    NoConnection(&'static str),
    /// The server ends, and the grace period is over.
    GraceOver,
}

impl Rejection {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::Host(_) | Self::NotTls => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UrlTooLong => StatusCode::URI_TOO_LONG,
            Self::NoConnection(_) | Self::GraceOver => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Self::NoConnection(_) => ErrorKind::QueueFull,
            Self::GraceOver => ErrorKind::ShuttingDown,
            _ => ErrorKind::BadData,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Malformed => {
                "the request is not well-formed HTTP/1.1, and no other version is spoken here: check its first line and its \
                 headers"
            }
            Self::HeadTooLarge => {
                "the head of the request is longer than 64KiB or has more than 100 headers: send a long query as the \
                 form of a POST"
            }
            Self::UrlTooLong => "the URL is longer than 64KiB: send a long query as the form of a POST",
            Self::Host(why) | Self::NoConnection(why) => why,
            Self::NotTls => "this address speaks https, and the request came over http",
            Self::GraceOver => {
                "Weir is shutting down, and its grace period was over before this request had an answer"
            }
        }
    }

    /// The body: an error in Prometheus' shape.
    fn body(self) -> String {
        // The sentences above hold nothing that JSON escapes.
        let (kind, message) = (self.kind().error_type(), self.message());
        format!(r#"{{"status":"error","errorType":"{kind}","error":"{message}"}}"#)
    }

    /// The whole answer as bytes, for a connection on which no request was understood.
    pub(super) fn bytes(self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let mut text =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        // Writing to a string does not fail.
        let _ = write!(text, "{WEIR_ERROR}: {}\r\n", self.kind().label());
        let _ = write!(text, "content-length: {}\r\n\r\n{body}", body.len());
        text.into_bytes()
    }

    /// The answer to a request; the connection ends with it.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body().into()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(WEIR_ERROR, HeaderValue::from_static(self.kind().label()));
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        response
    }

    /// The replacement of an answer without a body that the HTTP parser gives by itself; `None` for any other bytes.
    pub(super) fn of_parser(answer: &[u8]) -> Option<Self> {
        match answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?.get(..3)? {
            b"400" => Some(Self::Malformed),
            b"414" => Some(Self::UrlTooLong),
            b"431" => Some(Self::HeadTooLarge),
            _ => None,
        }
    }
}

/// RFC 9112, 3.2: a request without a `Host`, with several or with an invalid one is refused with 400, or two servers in
/// a row may take it for different hosts. HTTP/1.0 knows no `Host`.
pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), Rejection> {
    check_hosts(request.headers(), request.version() == Version::HTTP_10).map_err(Rejection::Host)
}

fn check_hosts(headers: &HeaderMap, may_be_missing: bool) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if may_be_missing => Ok(()),
        (None, _) => Err("the request names no host: HTTP/1.1 wants one Host header"),
        (Some(_), Some(_)) => Err("the request has several Host headers: HTTP/1.1 wants one"),
        (Some(host), None) if host.as_bytes().iter().all(|&byte| is_host_byte(byte)) => Ok(()),
        (Some(_), None) => Err("the Host header holds a character that no host has"),
    }
}

/// The characters of a host and port (RFC 3986, 3.2.2), escapes and the brackets of IPv6 included.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'$'..=b'.' | b':' | b';' | b'=' | b'[' | b']' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_host_is_wanted() {
        let check = |hosts: &[&'static str], may_be_missing| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_static(host));
            }
            check_hosts(&headers, may_be_missing).is_ok()
        };
        for good in ["x", "localhost:9099", "10.0.0.1", "[::1]:9099", "xn--a.example", "a_b", "%41", ""] {
            assert!(check(&[good], false), "{good}");
        }
        for bad in ["a b", "a/b", "a,b c", "a?b", "a@b", "<x>", "\"x\""] {
            assert!(!check(&[bad], false), "{bad}");
        }
        assert!(check(&[], true) && !check(&[], false));
        assert!(!check(&["x", "x"], false) && !check(&["x", "y"], true));
    }

    #[test]
    fn every_rejection_is_json_of_the_contract() {
        let all = [
            Rejection::Malformed,
            Rejection::HeadTooLarge,
            Rejection::UrlTooLong,
            Rejection::Host("two"),
            Rejection::NotTls,
            Rejection::NoConnection("none"),
            Rejection::GraceOver,
        ];
        for rejection in all {
            let text = String::from_utf8(rejection.bytes()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (json["status"].as_str(), json["error"].as_str()),
                (Some("error"), Some(rejection.message()))
            );
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert_eq!(rejection.response().status(), rejection.status());
        }
        assert_eq!(Rejection::of_parser(b"HTTP/1.1 431 Request"), Some(Rejection::HeadTooLarge));
        for other in [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.1 4", b"", b"data: HTTP/1.1 400"] {
            assert_eq!(Rejection::of_parser(other), None);
        }
    }
}
