//! A span, and the request that carries some: the JSON form of `ExportTraceServiceRequest`, with ids in hexadecimal and
//! 64-bit integers as strings.

use serde_json::{Value as Json, json};

use super::Context;

/// `SPAN_KIND_SERVER`
const SERVER: u8 = 2;
/// `STATUS_CODE_OK` is for people to set; an instrument says nothing or this.
const ERROR: u8 = 2;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number; the caller leaves out those that do not fit.
    Int(i64),
}

/// One finished piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which span it is, and of which.
    pub context: Context,
    /// Its name.
    pub name: &'static str,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed; `None` if it did not.
    pub error: Option<String>,
}

/// The body of a request that carries these spans.
pub(super) fn request(spans: &[Span]) -> String {
    let resource = [("service.name", "weir"), ("service.version", env!("CARGO_PKG_VERSION"))];
    let resource: Vec<_> =
        resource.iter().map(|(key, value)| attribute(key, &Value::Text((*value).to_owned()))).collect();
    let spans: Vec<_> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "weir"}, "spans": spans}],
    }]})
    .to_string()
}

fn span(span: &Span) -> Json {
    let attributes: Vec<_> = span.attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let mut json = json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        "name": span.name,
        "kind": SERVER,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": attributes,
        "status": {},
    });
    if let Some(parent) = span.context.parent {
        json["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(error) = &span.error {
        json["status"] = json!({"code": ERROR, "message": error});
    }
    json
}

fn attribute(key: &str, value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({"key": key, "value": {"stringValue": text}}),
        Value::Int(n) => json!({"key": key, "value": {"intValue": n.to_string()}}),
    }
}
