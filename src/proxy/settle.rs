//! The end of a query: its permit goes back, its cost is counted, learned and written down. Once, whatever the end.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Proxy,
    meter::{Actual, OnEnd, Outcome},
    route::Endpoint,
};
use crate::{
    base::{Known, TenantId},
    cost::{Estimate, LearnKey, Observed, SelectorEstimate},
    limit::{self, Permit},
    promql::shape::{Output, Shape},
    telemetry::metrics::Dimension,
};

/// Characters of a query in a log line.
const QUERY_LOGGED_MAX: usize = 1_000;

/// What is known of a query when it goes out, kept until its end.
#[derive(Debug)]
pub(super) struct Account {
    /// Who paid.
    pub tenant: TenantId,
    /// Who inside the tenant.
    pub actor: Arc<str>,
    /// Name of the class.
    pub class: Arc<str>,
    /// Name of the backend.
    pub backend: String,
    /// What was asked for.
    pub endpoint: Endpoint,
    /// The query's text.
    pub query: String,
    /// The same for the same query again.
    pub fingerprint: u64,
    /// What it was expected to cost.
    pub estimate: Estimate,
    /// Where what it did cost is remembered.
    pub learn: LearnKey,
    /// The series of the answer are the series that were touched.
    pub answer_tells: bool,
    /// How long it waited for budget.
    pub waited: Duration,
    /// When it came.
    pub began: Instant,
}

impl Account {
    /// The record before dispatch, so that the query behind a crash is known.
    pub(super) fn log_dispatch(&self) {
        let d = &self.estimate.demand;
        tracing::info!(
            target: "weir::dispatch",
            tenant = %self.tenant, actor = &*self.actor, class = &*self.class, backend = self.backend,
            endpoint = self.endpoint.as_str(), fingerprint = format_args!("{:016x}", self.fingerprint),
            series = logged(d.series), samples = logged(d.samples), memory_bytes = logged(d.memory),
            known = d.memory.class.as_str(), query = short(&self.query), "dear query goes out"
        );
    }

    /// What happens at the end of the answer; `status` is the backend's, `told` the series that it says it touched.
    pub(super) fn on_end(self, proxy: Arc<Proxy>, permit: Permit, status: u16, told: Option<u64>) -> OnEnd {
        Box::new(move |outcome, actual| self.end(&proxy, permit, (status, told), outcome, actual))
    }

    fn end(
        self,
        proxy: &Proxy,
        permit: Permit,
        (status, told): (u16, Option<u64>),
        outcome: Outcome,
        actual: Actual,
    ) {
        let success = (200..300).contains(&status);
        if actual.counted && success && reads_raw_samples(&self.estimate) {
            permit.settle(limit::Actual { samples: actual.samples });
        } else {
            // What it read is not told by its answer: the estimate stands.
            drop(permit);
        }
        let metrics = &proxy.metrics;
        metrics.answered(&self.backend, outcome.label(), actual.bytes_wire);
        let counted = (actual.counted && self.answer_tells).then_some(actual.series);
        if let Some(series) = told.or(counted).filter(|_| success) {
            self.learn(proxy, series, actual.bytes_decoded);
        }
        self.log_end(status, outcome, actual);
    }

    fn learn(&self, proxy: &Proxy, series: u64, bytes: u64) {
        let expected = self.estimate.demand.series;
        proxy.metrics.settled(Dimension::Series, expected.value, expected.class, series);
        let samples = scaled(self.estimate.demand.samples, series, expected);
        let observed = Observed { series, samples, bytes, memory: None };
        proxy.learned.observe(self.learn.clone(), observed, (proxy.clock)().max(0) as u64);
        proxy.metrics.learned_entries(proxy.learned.len() as u64);
    }

    fn log_end(&self, status: u16, outcome: Outcome, actual: Actual) {
        let d = &self.estimate.demand;
        tracing::info!(
            target: "weir::query",
            tenant = %self.tenant, actor = &*self.actor, class = &*self.class, backend = self.backend,
            endpoint = self.endpoint.as_str(), fingerprint = format_args!("{:016x}", self.fingerprint),
            verdict = "admitted", status, outcome = outcome.label(),
            wait_ms = self.waited.as_millis() as u64, took_ms = self.began.elapsed().as_millis() as u64,
            est_series = logged(d.series), est_samples = logged(d.samples), est_memory_bytes = logged(d.memory),
            known = d.series.class.as_str(), answer_series = actual.series, answer_samples = actual.samples,
            answer_bytes = actual.bytes_decoded, query = short(&self.query), "query"
        );
    }
}

/// Samples that so many series make, at what one was expected to have.
fn scaled(samples: Known, series: u64, expected: Known) -> u64 {
    match expected.value {
        0 => samples.value,
        n => (u128::from(samples.value) * u128::from(series) / u128::from(n)).try_into().unwrap_or(u64::MAX),
    }
}

/// `foo[5m]` as an instant query: the answer is what was read.
fn reads_raw_samples(estimate: &Estimate) -> bool {
    matches!(&estimate.selectors[..], [SelectorEstimate { evaluations: 1, output: Output::Same, .. }])
}

/// Whether the series of the answer are the series that were touched.
pub(super) fn tells_series(shape: &Shape) -> bool {
    matches!(&shape.selectors[..], [one] if one.output == Output::Same)
}

/// A number for a log line; -1 where it is unknown, since fields that are sometimes words cannot be charted.
pub(super) fn logged(number: Known) -> i64 {
    i64::try_from(number.value).unwrap_or(-1)
}

/// A query's text for a log line.
pub(super) fn short(text: &str) -> &str {
    match text.char_indices().nth(QUERY_LOGGED_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
