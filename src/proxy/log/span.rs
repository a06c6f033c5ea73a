//! The span of a query for a trace collector, with the fields of its log line.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{fields::short, query_log::QueryLog};
use crate::proxy::meter::Actual;
use crate::{
    base::Estimate,
    telemetry::otlp::{Context, Sender, Span, Value},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A query's place in a trace, and where its span goes.
#[derive(Debug)]
pub(super) struct Trace {
    context: Context,
    spans: Sender,
    clock: fn() -> i64,
}

/// The attributes that only the end knows.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub verdict: &'a str,
    pub outcome: &'a str,
    pub status: Option<u16>,
    pub error: Option<&'a str>,
    pub actual: Option<&'a Actual>,
    pub waited: Duration,
}

impl Trace {
    /// Begins a query's span and names it in the headers that go on: the backend's work, and the probes before it, are
    /// part of it. `None` for a trace that nobody keeps: its headers go on unchanged.
    pub(super) fn begin(spans: &Sender, headers: &mut HeaderMap, clock: fn() -> i64) -> Option<Self> {
        let context = Context::within(headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()));
        if !context.sampled {
            return None;
        }
        if context.parent.is_none() {
            // The state of a trace that cannot be read is not that of a new one.
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, HeaderValue::try_from(context.header()).ok()?);
        Some(Self { context, spans: spans.clone(), clock })
    }

    pub(super) fn end(self, log: &QueryLog, ended: &Ended<'_>) {
        let end_ns = u64::try_from((self.clock)()).unwrap_or(0).saturating_mul(1_000_000);
        let took = u64::try_from(log.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut attributes = Attributes(Vec::with_capacity(20));
        if let Some(owner) = &log.owner {
            attributes.text("weir.tenant", owner.tenant.as_str());
            attributes.text("weir.actor", &owner.actor);
            attributes.text("weir.class", &owner.class);
            attributes.text("weir.backend", &owner.backend);
        }
        attributes.text("weir.endpoint", log.endpoint.as_str());
        attributes.text("weir.fingerprint", &log.fingerprint.map(|f| f.to_string()).unwrap_or_default());
        attributes.text("db.query.text", log.query());
        if let Some(cost) = &log.cost {
            attributes.known("weir.estimate.series", cost.series);
            attributes.known("weir.estimate.samples", cost.samples);
            attributes.known("weir.estimate.memory_bytes", cost.memory);
            attributes.text("weir.estimate.known", cost.confidence().as_str());
        }
        attributes.text("weir.verdict", ended.verdict);
        attributes.text("weir.outcome", ended.outcome);
        attributes.number("weir.wait_ms", ended.waited.as_millis() as u64);
        if let Some(status) = ended.status {
            attributes.number("http.response.status_code", u64::from(status));
        }
        if let Some(actual) = ended.actual {
            attributes.number("weir.answer.series", actual.series);
            attributes.number("weir.answer.samples", actual.samples);
            attributes.number("weir.answer.bytes", actual.bytes_decoded);
        }
        let failed = ended.status.is_none_or(|status| status >= 500) || ended.outcome == "failed";
        let error = failed.then(|| short(ended.error.unwrap_or(ended.outcome)).to_owned());
        self.spans.send(Span {
            context: self.context,
            name: log.endpoint.as_str(),
            start_ns: end_ns.saturating_sub(took),
            end_ns,
            attributes: attributes.0,
            error,
        });
    }
}

struct Attributes(Vec<(&'static str, Value)>);

impl Attributes {
    fn text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.0.push((key, Value::Text(text.to_owned())));
        }
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.0.extend(i64::try_from(number).ok().map(|number| (key, Value::Int(number))));
    }

    /// An unknown number is left out.
    fn known(&mut self, key: &'static str, number: Estimate) {
        self.number(key, number.value);
    }
}
