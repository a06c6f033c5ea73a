//! The end of a query: its permit goes back, its cost is counted and learned. Once, whatever the end.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::proxy::{
    Proxy,
    log::record::Record,
    meter::{Actual, OnEnd, Outcome},
};
use crate::{
    base::Estimate,
    cost::{Estimated, LearnKey, Observed, SelectorEstimate},
    limit::{self, Permit},
    promql::shape::{Output, Shape},
    telemetry::metrics::Dimension,
};

/// What is known of a query when it goes out, kept until its end.
#[derive(Debug)]
pub(in crate::proxy) struct Account {
    /// Name of the backend.
    pub backend: String,
    /// What it was expected to cost.
    pub estimate: Estimated,
    /// Where what it did cost is remembered.
    pub learn: LearnKey,
    /// The series of the answer are the series that were touched.
    pub answer_tells: bool,
}

impl Account {
    /// What happens at the end of the answer; `status` is the backend's, `told` the series that it says it touched, and
    /// `record` comes once the first byte of the answer may go out.
    pub(in crate::proxy) fn on_end(
        self,
        proxy: Arc<Proxy>,
        permit: Permit,
        status: u16,
        told: Option<u64>,
        mut record: oneshot::Receiver<Record>,
    ) -> OnEnd {
        Box::new(move |outcome, actual| {
            self.end(&proxy, permit, (status, told), outcome, actual);
            if let Ok(mut record) = record.try_recv() {
                record.ended(status, outcome, actual);
            }
        })
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
        // Where its answer does not tell what it read, the estimate stands.
        let tells = actual.counted && success && reads_raw_samples(&self.estimate);
        permit.settle(limit::Actual {
            samples: tells.then_some(actual.samples),
            whole: success && outcome == Outcome::Complete,
        });
        let metrics = &proxy.metrics;
        metrics.answered(&self.backend, outcome.label(), actual.bytes_wire);
        let counted = (actual.counted && self.answer_tells).then_some(actual.series);
        if let Some(series) = told.or(counted).filter(|_| success) {
            self.learn(proxy, series, actual.bytes_decoded);
        }
    }

    fn learn(&self, proxy: &Proxy, series: u64, bytes: u64) {
        let expected = self.estimate.cost.series;
        proxy.metrics.settled(Dimension::Series, expected.value, expected.confidence, series);
        let samples = scaled(self.estimate.cost.samples, series, expected);
        let observed = Observed { series, samples, bytes, memory: None };
        proxy.learned.observe(self.learn.clone(), observed, (proxy.clock)().max(0) as u64);
        proxy.metrics.learned_entries(proxy.learned.len() as u64);
    }
}

/// Samples that so many series make, at what one was expected to have.
fn scaled(samples: Estimate, series: u64, expected: Estimate) -> u64 {
    match expected.value {
        0 => samples.value,
        n => (u128::from(samples.value) * u128::from(series) / u128::from(n)).try_into().unwrap_or(u64::MAX),
    }
}

/// `foo[5m]` as an instant query: the answer is what was read.
fn reads_raw_samples(estimate: &Estimated) -> bool {
    matches!(&estimate.selectors[..], [SelectorEstimate { evaluations: 1, output: Output::Same, .. }])
}

/// Whether the series of the answer are the series that were touched.
pub(in crate::proxy) fn tells_series(shape: &Shape) -> bool {
    matches!(&shape.selectors[..], [one] if one.output == Output::Same)
}
