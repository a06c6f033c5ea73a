//! The headers of an untrusted client that go on to a database. Databases and the proxies before them learn from dozens of
//! headers who asks and from where, and no list of those is complete: so this is a list of the others.

use http::{HeaderMap, HeaderName};

use super::tenant::{CREDENTIALS, Tenancy};
use crate::backend::{Kind, parameters};

/// Headers that say how a message is written and answered, or which request or trace it is.
const HARMLESS: [&str; 29] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "b3",
    "baggage",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "host",
    "origin",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "weir-agent",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-prometheus-remote-read-version",
    "x-request-id",
];

/// Takes out the headers of an untrusted client that are neither harmless, nor known to this kind of database, nor
/// configured to go on.
pub fn keep_known(headers: &mut HeaderMap, kind: Kind, tenancy: &Tenancy) {
    let is_known = |name: &HeaderName| {
        let text = name.as_str();
        HARMLESS.contains(&text)
            || tenancy.forward_headers.contains(name)
            || (tenancy.forward_credentials && CREDENTIALS.contains(&text))
            || parameters::knows_header(kind, text)
    };
    let unknown: Vec<HeaderName> = headers.keys().filter(|name| !is_known(name)).cloned().collect();
    for name in unknown {
        headers.remove(name);
    }
}
