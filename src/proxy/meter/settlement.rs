//! The end of a query: its permit goes back, its cost is counted and learned. Once, whatever the end.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::proxy::{
    Proxy,
    log::record::Record,
    meter::{Actual, OnEnd, Outcome},
};
use crate::{
    cost::{Estimated, HistoryKey, SelectorEstimate},
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
    pub history_key: HistoryKey,
    /// The series of the answer are among the series that were touched.
    pub answer_tells: bool,
    /// They are all of them.
    pub answer_is_whole: bool,
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
            let is_whole = told.is_some() || (self.answer_is_whole && outcome == Outcome::Complete);
            self.learn(proxy, series, is_whole);
        }
    }

    fn learn(&self, proxy: &Proxy, series: u64, is_whole: bool) {
        let expected = self.estimate.cost.series;
        proxy.metrics.settled(Dimension::Series, expected.value, expected.confidence, series);
        proxy.history.observe(&self.history_key, series, is_whole, (proxy.clock)());
        proxy.metrics.learned_entries(proxy.history.len() as u64);
    }
}

/// `foo[5m]` as an instant query: the answer is what was read.
fn reads_raw_samples(estimate: &Estimated) -> bool {
    matches!(&estimate.selectors[..], [SelectorEstimate { evaluations: 1, output: Output::Same, .. }])
}

/// Whether the series of the answer are series that were touched: at most all of them.
pub(in crate::proxy) fn tells_series(shape: &Shape) -> bool {
    matches!(&shape.selectors[..], [one] if one.output == Output::Same)
}
