//! Every metric of Weir, behind one method for each event.
//!
//! Label values are bounded: closed enums and `&'static str` by the compiler, backends and classes by the
//! configuration, tenants by [`Metrics::new`].

mod cached;
mod control;
mod fleet;
mod identity;
mod journal;
mod labels;
mod make;
mod rules;
mod top;

use std::time::Duration;

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use self::cached::Cached;
pub use self::{
    control::{ControlGauges, LaneGauges},
    labels::{Dimension, ProbeResult, Resource, SplitOutcome},
    top::TopNumber,
};
use super::tenants::TenantLabels;
use crate::base::{Confidence, ErrorKind, TenantId};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A metric as it is registered, whether it has a value yet or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name; that of a histogram without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// The names of its labels.
    pub labels: Vec<String>,
}

/// All metrics, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    tenants: TenantLabels,
    admissions: Cached<IntCounter>,
    refusals: IntCounterVec,
    /// In the order of [`Dimension::ALL`].
    estimated: [Histogram; 3],
    actual: Cached<Histogram>,
    ratio: Cached<Histogram>,
    queue_length: IntGaugeVec,
    queue_wait: Cached<Histogram>,
    budget_used: GaugeVec,
    budget_capacity: GaugeVec,
    control: control::Control,
    fleet: fleet::Fleet,
    probes: IntCounterVec,
    probe_bytes: IntCounterVec,
    probe_seconds: HistogramVec,
    probe_cache: IntCounterVec,
    split_queries: IntCounterVec,
    upstream: Cached<IntCounter>,
    upstream_seconds: Cached<Histogram>,
    answers: Cached<IntCounter>,
    answer_bytes: Cached<IntCounter>,
    learned_entries: IntGauge,
    pressure: GaugeVec,
    pressure_stale: IntGaugeVec,
    budget_share: GaugeVec,
    estimate_error: GaugeVec,
    label_table_time: IntGaugeVec,
    reloads: IntCounterVec,
    reload_ok: IntGauge,
    reload_time: IntGauge,
    overhead: Histogram,
    client_connections: IntGauge,
    client_connections_max: IntGauge,
    client_connections_lost: IntCounterVec,
    requests: Cached<IntCounter>,
    request_seconds: Cached<Histogram>,
    request_bodies: IntGauge,
    request_bodies_max: IntGauge,
    tls_handshakes: IntCounterVec,
    backend_connections: IntGaugeVec,
    backend_connections_max: IntGaugeVec,
    spans: IntCounterVec,
    rule_hits: IntCounterVec,
    soft_limits: IntCounterVec,
    label_enforcement: IntCounterVec,
    quota_used: GaugeVec,
    quota_limit: GaugeVec,
    identified: identity::Identified,
    jwks_fetches: IntCounterVec,
    journal_records: IntCounterVec,
    journal_bytes: IntGauge,
    top: top::TopGauges,
}

/// The ends of requests that dashboards and alerts look at: outcome and class of status.
const USUAL_ENDS: [(&str, &str); 6] = [
    ("complete", "2xx"),
    ("refused", "4xx"),
    ("refused", "5xx"),
    ("cut_off", "2xx"),
    ("failed", "5xx"),
    ("dropped", "none"),
];

impl Metrics {
    /// Shows counters of these backends, classes and endpoints as 0 before anything is counted: `increase()` of a
    /// counter that appears with its first event misses that event.
    pub fn start_at_zero<'a>(
        &self,
        backends: impl IntoIterator<Item = &'a str>,
        classes: impl IntoIterator<Item = &'a str>,
        endpoints: &[&'static str],
    ) {
        for endpoint in endpoints {
            for (outcome, status) in USUAL_ENDS {
                self.requests.show(&[*endpoint, outcome, status]);
            }
        }
        for class in classes {
            self.queue_wait.show(&[class]);
        }
        for backend in backends {
            for result in ProbeResult::ALL {
                self.probes.with_label_values(&[backend, result.label()]);
            }
            for outcome in SplitOutcome::ALL {
                self.split_queries.with_label_values(&[backend, outcome.label()]);
            }
            for status in ["2xx", "4xx", "5xx", "error"] {
                self.upstream.show(&[backend, status]);
            }
            for outcome in ["complete", "failed", "dropped", "late", "cut_off"] {
                self.answers.show(&[backend, outcome]);
            }
            self.probe_bytes.with_label_values(&[backend]);
            self.answer_bytes.show(&[backend]);
        }
        for result in ["hit", "miss"] {
            self.probe_cache.with_label_values(&[result]);
        }
        for result in ["success", "failure"] {
            self.reloads.with_label_values(&[result]);
        }
    }

    /// A query was admitted after waiting this long.
    pub fn admitted(&self, tenant: &TenantId, class: &str, waited: Duration) {
        self.admissions.with(&[self.tenants.label(tenant), class], IntCounter::inc);
        self.queue_wait.with(&[class], |wait| wait.observe(waited.as_secs_f64()));
    }

    /// A query was refused by a limit (its stable id) in a mode (`enforce` or `shadow`).
    pub fn refused(&self, tenant: &TenantId, limit: &'static str, mode: &'static str, reason: ErrorKind) {
        self.refusals.with_label_values(&[self.tenants.label(tenant), limit, mode, reason.label()]).inc();
    }

    /// A query runs in the slow lane, since it passed a soft limit (the stable id of the limit).
    pub fn over_soft_limit(&self, tenant: &TenantId, limit: &'static str, mode: &'static str) {
        self.soft_limits.with_label_values(&[self.tenants.label(tenant), limit, mode]).inc();
    }

    /// The age of the oldest query of a class that waits or runs (`state`).
    pub fn oldest_query(&self, state: &'static str, class: &str, age: Duration) {
        self.control.oldest.with_label_values(&[state, class]).set(age.as_secs_f64());
    }

    /// Weir took this long to decide, the wait for budget left out.
    pub fn decided(&self, took: Duration) {
        self.overhead.observe(took.as_secs_f64());
    }

    /// Connections of clients: open now, at most, and since the start those closed to make room and those refused.
    pub fn client_connections(&self, open: usize, max: usize, evicted: u64, refused: u64) {
        self.client_connections.set(signed(open as u64));
        self.client_connections_max.set(signed(max as u64));
        for (outcome, total) in [("evicted", evicted), ("refused", refused)] {
            let counter = self.client_connections_lost.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// A request ended in this way, for its client with this status, or with none, after this long.
    pub fn ended(&self, endpoint: &'static str, outcome: &'static str, status: Option<u16>, took: Duration) {
        self.requests.with(&[endpoint, outcome, class(status).unwrap_or("none")], IntCounter::inc);
        self.request_seconds.with(&[endpoint], |seconds| seconds.observe(took.as_secs_f64()));
    }

    /// Sets the bytes that large request bodies hold now, and their limit.
    pub fn request_bodies(&self, held: usize, max: usize) {
        self.request_bodies.set(signed(held as u64));
        self.request_bodies_max.set(signed(max as u64));
    }

    /// Sets the connections in use to a backend's replicas in this lane, and their limit.
    pub fn backend_connections(&self, backend: &str, lane: &'static str, used: usize, max: usize) {
        self.backend_connections.with_label_values(&[backend, lane]).set(signed(used as u64));
        self.backend_connections_max.with_label_values(&[backend, lane]).set(signed(max as u64));
    }

    /// A client shook hands with a listener, or did not.
    pub fn tls_handshake(&self, listener: &'static str, result: &'static str) {
        self.tls_handshakes.with_label_values(&[listener, result]).inc();
    }

    /// Counts spans by outcome: `sent` to the trace collector, `failed` there, or `dropped` before.
    pub fn spans(&self, result: &'static str, count: u64) {
        self.spans.with_label_values(&[result]).inc_by(count);
    }

    /// A query was expected to cost this much.
    pub fn estimated(&self, dimension: Dimension, expected: u64) {
        self.estimated[dimension as usize].observe(expected as f64);
    }

    /// Compares the estimate of a query (with its confidence) with its actual cost.
    pub fn settled(&self, dimension: Dimension, expected: u64, known: Confidence, actual: u64) {
        self.actual.with(&[dimension.label()], |cost| cost.observe(actual as f64));
        // Nothing expected and nothing found is right; one more on both sides keeps it so, and finite.
        let ratio = (expected as f64 + 1.0) / (actual as f64 + 1.0);
        self.ratio.with(&[dimension.label(), known.as_str()], |ratios| ratios.observe(ratio));
    }

    /// Sets the number of queries that wait for this backend.
    pub fn queue_length(&self, backend: &str, length: u64) {
        self.queue_length.with_label_values(&[backend]).set(signed(length));
    }

    /// This much of a backend's budget is held now, of this much.
    pub fn budget(&self, backend: &str, resource: Resource, used: u64, capacity: u64) {
        let labels = [backend, resource.label()];
        self.budget_used.with_label_values(&labels).set(used as f64);
        self.budget_capacity.with_label_values(&labels).set(capacity as f64);
    }

    /// A probe was made, or refused before it was sent.
    pub fn probed(&self, backend: &str, result: ProbeResult, took: Duration, bytes: u64) {
        self.probes.with_label_values(&[backend, result.label()]).inc();
        if result != ProbeResult::Refused {
            self.probe_bytes.with_label_values(&[backend]).inc_by(bytes);
            self.probe_seconds.with_label_values(&[backend]).observe(took.as_secs_f64());
        }
    }

    /// A probe's answer was looked for in the cache.
    pub fn probe_cache(&self, hit: bool) {
        self.probe_cache.with_label_values(&[if hit { "hit" } else { "miss" }]).inc();
    }

    /// A query was sent in parts, with this outcome.
    pub fn split(&self, backend: &str, outcome: SplitOutcome) {
        self.split_queries.with_label_values(&[backend, outcome.label()]).inc();
    }

    /// A backend answered with a status, or not at all (`None`), after this long.
    pub fn upstream(&self, backend: &str, status: Option<u16>, took: Duration) {
        self.upstream.with(&[backend, class(status).unwrap_or("error")], IntCounter::inc);
        self.upstream_seconds.with(&[backend], |seconds| seconds.observe(took.as_secs_f64()));
    }

    /// Counts an answer by its outcome, and its bytes.
    pub fn answered(&self, backend: &str, outcome: &'static str, bytes: u64) {
        self.answers.with(&[backend, outcome], IntCounter::inc);
        self.answer_bytes.with(&[backend], |counter| counter.inc_by(bytes));
    }

    /// Sets the number of queries in the history.
    pub fn learned_entries(&self, entries: u64) {
        self.learned_entries.set(signed(entries));
    }

    /// Clears the gauges of lanes, windows, reserves and queues, which are set anew.
    pub fn clear_control(&self) {
        self.control.clear();
    }

    /// Sets the gauges of admission for a backend.
    pub fn control(&self, of: &ControlGauges<'_>) {
        self.control.show(of);
    }

    /// Bytes of a backend's heavy lane that are free for one class only.
    pub fn reserve(&self, backend: &str, class: &str, free: u64) {
        self.control.reserve.with_label_values(&[backend, class]).set(free as f64);
    }

    /// Queries that wait at a backend for this reason.
    pub fn waiting(&self, backend: &str, reason: &'static str, queries: u64) {
        self.control.waiting.with_label_values(&[backend, reason]).set(queries as f64);
    }

    /// A backend is under this pressure, 0 to 1, says this signal; `None` when it says nothing any more.
    pub fn pressure(&self, backend: &str, signal: &'static str, pressure: Option<f64>) {
        match pressure {
            Some(pressure) => self.pressure.with_label_values(&[backend, signal]).set(pressure),
            // One that was never set is not there to be removed.
            None => drop(self.pressure.remove_label_values(&[backend, signal])),
        }
    }

    /// A signal that a backend should give has stayed away for too long, or came.
    pub fn pressure_stale(&self, backend: &str, signal: &'static str, stale: bool) {
        self.pressure_stale.with_label_values(&[backend, signal]).set(i64::from(stale));
    }

    /// Sets the factor by which queries hold more at a backend than estimated.
    pub fn estimate_error(&self, backend: &str, times: f64) {
        self.estimate_error.with_label_values(&[backend]).set(times);
    }

    /// Pressure and health leave this share of a backend's budget.
    pub fn budget_share(&self, backend: &str, share: f64) {
        self.budget_share.with_label_values(&[backend]).set(share);
    }

    /// A backend's label table was fetched at this time, in seconds since the epoch.
    pub fn label_table_fetched(&self, backend: &str, at_seconds: i64) {
        self.label_table_time.with_label_values(&[backend]).set(at_seconds);
    }

    /// The configuration was taken over, or not, at this time, in seconds since the epoch.
    pub fn reloaded(&self, success: bool, at_seconds: i64) {
        self.reloads.with_label_values(&[if success { "success" } else { "failure" }]).inc();
        self.reload_ok.set(i64::from(success));
        if success {
            self.reload_time.set(at_seconds);
        }
    }

    /// A backend left the configuration: its gauges, these lanes and signals of pressure too, are no longer shown. Its
    /// counters stay.
    pub fn forget_backend(
        &self,
        backend: &str,
        lanes: impl IntoIterator<Item = &'static str>,
        signals: impl IntoIterator<Item = &'static str>,
    ) {
        // One that was never set is not there to be removed.
        let _ = self.queue_length.remove_label_values(&[backend]);
        let _ = self.label_table_time.remove_label_values(&[backend]);
        let _ = self.budget_share.remove_label_values(&[backend]);
        let _ = self.estimate_error.remove_label_values(&[backend]);
        for lane in lanes {
            let _ = self.backend_connections.remove_label_values(&[backend, lane]);
            let _ = self.backend_connections_max.remove_label_values(&[backend, lane]);
        }
        for signal in signals {
            let _ = self.pressure.remove_label_values(&[backend, signal]);
            let _ = self.pressure_stale.remove_label_values(&[backend, signal]);
        }
        for resource in Resource::ALL {
            let _ = self.budget_used.remove_label_values(&[backend, resource.label()]);
            let _ = self.budget_capacity.remove_label_values(&[backend, resource.label()]);
        }
    }

    /// Somebody was identified by a source, or not.
    pub fn identified(&self, source: &'static str, is_known: bool) {
        if let Some((_, [known, refused])) = self.identified.iter().find(|(name, _)| *name == source) {
            if is_known { known } else { refused }.inc();
        }
    }

    /// The keys of an issuer of JWTs were fetched, or could not be.
    pub fn keys_fetched(&self, fetched: bool) {
        self.jwks_fetches.with_label_values(&[if fetched { "fetched" } else { "failed" }]).inc();
    }

    /// A request of a tenant that is confined to labels was `confined`, or `refused` since it could not be.
    pub fn label_enforcement(&self, tenant: &TenantId, outcome: &'static str) {
        self.label_enforcement.with_label_values(&[self.tenants.label(tenant), outcome]).inc();
    }

    /// Clears the use of quotas, which is set anew.
    pub fn clear_quotas(&self) {
        self.quota_used.reset();
        self.quota_limit.reset();
    }

    /// A tenant's quota and its used part; tenants beyond the bound add up.
    pub fn quota_used(&self, tenant: &TenantId, quota: &'static str, used: u64, limit: u64) {
        let labels = [self.tenants.label(tenant), quota];
        self.quota_used.with_label_values(&labels).add(used as f64);
        self.quota_limit.with_label_values(&labels).add(limit as f64);
    }

    /// The store answers or not, has just lost its memory or not, and knows this number of proxies.
    pub fn fleet(&self, up: bool, learning: bool, proxies: u64) {
        self.fleet.up.set(i64::from(up));
        self.fleet.learning.set(i64::from(learning));
        self.fleet.proxies.set(proxies as i64);
    }

    /// One round trip to the store, with an answer or without, in which this number of tenants took part.
    pub fn fleet_round(&self, answered: bool, tenants: usize, took: Duration) {
        self.fleet.tenants.set(tenants as i64);
        self.fleet.rounds.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
        self.fleet.seconds.observe(took.as_secs_f64());
    }

    /// Entries at the store, `posted` or `taken`, `unreadable` or `too_large` to be posted.
    pub fn fleet_entries(&self, topic: &'static str, outcome: &'static str, entries: usize) {
        self.fleet.entries.with_label_values(&[topic, outcome]).inc_by(entries as u64);
    }

    /// Leased of a backend's budget, beyond this proxy's fixed part.
    pub fn fleet_leased(&self, backend: &str, bytes: u64, queries: u64) {
        for (resource, leased) in [("memory_bytes", bytes), ("queries", queries)] {
            self.fleet.leased.with_label_values(&[backend, resource]).set(leased as f64);
        }
    }

    /// Every metric there is.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be written; the text would lie by leaving it out.
    pub fn encode(&self) -> prometheus::Result<String> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

/// The class of a status, such as `2xx`.
fn class(status: Option<u16>) -> Option<&'static str> {
    Some(match status? / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    })
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
