//! The end of a query: its permit goes back, its cost is counted and learned. Once, at any end.

use std::sync::Arc;

use http::HeaderMap;

use super::{Actual, OnEnd, Outcome};
use crate::{
    backend::feedback,
    base::Estimate,
    cost::{Estimated, SelectorEstimate},
    limit::{self, End, Permit},
    promql::shape::{Output, Shape},
    proxy::{
        query::ParsedQuery,
        shared::{Settler, Shared},
        upstream::Upstream,
    },
    telemetry::metrics::Dimension,
};

/// The facts about a query when its answer begins, kept until its end.
#[derive(Debug)]
pub(super) struct Settlement {
    pub shared: Arc<Shared>,
    pub upstream: Arc<Upstream>,
    pub query: Box<ParsedQuery>,
    /// The series that it was expected to touch.
    pub expected: Estimate,
    /// Its answer holds every sample that was read.
    pub reads_raw_samples: bool,
    /// The series of the answer are the series that were touched.
    pub answer_tells: bool,
    /// The series that the backend says it touched.
    pub reported: Option<u64>,
    /// The backend's status; `None` if it gave no answer.
    pub status: Option<u16>,
    /// It gave none in time, and may still work on it.
    pub is_late: bool,
    /// When the answer began, milliseconds since the epoch.
    pub asked_ms: i64,
}

impl Settlement {
    /// Settles the permit when the answer ends.
    pub(super) fn on_end(self, permit: Permit) -> OnEnd {
        Box::new(move |outcome, actual| self.settle(permit, outcome, actual))
    }

    fn settle(self, permit: Permit, outcome: Outcome, actual: Actual) {
        let success = self.status.is_some_and(|status| (200..300).contains(&status));
        // Without the samples read in its answer, the estimate stands.
        let tells = actual.counted && success && self.reads_raw_samples;
        permit.settle(limit::Actual {
            samples: tells.then_some(actual.samples),
            end: match outcome {
                Outcome::Complete if success => End::Answered,
                Outcome::Failed if self.is_late => End::Abandoned,
                Outcome::Complete | Outcome::Failed => End::Failed,
                Outcome::Dropped | Outcome::Late | Outcome::CutOff(_) => End::Abandoned,
            },
        });
        let backend = self.upstream.backend.name();
        self.shared.settler.metrics.answered(backend, outcome.label(), actual.bytes_wire);
        if actual.counted && success && outcome == Outcome::Complete {
            self.learn_entries(&actual);
        }
        let counted = (actual.counted && self.answer_tells).then_some(actual.series);
        if let Some(series) = self.reported.or(actual.series_fetched).or(counted).filter(|_| success) {
            // VictoriaMetrics counts no series that it took from its cache.
            let is_answer = actual.series_fetched.is_none() && self.query.answer_is_whole;
            let is_whole = self.reported.is_some() || (is_answer && outcome == Outcome::Complete);
            self.learn(series, is_whole);
        }
    }

    /// Remembers how long the entries of a list are.
    fn learn_entries(&self, actual: &Actual) {
        let Self { query, upstream, .. } = self;
        let Settler { history, clock, .. } = &self.shared.settler;
        let Some(key) = upstream.entry_key(&query.scope, query.fingerprint, &query.shape) else { return };
        if let Some(bytes) = actual.bytes_decoded.checked_div(actual.items.max(actual.series)) {
            history.observe(&key, bytes, false, clock());
        }
    }

    fn learn(&self, series: u64, is_whole: bool) {
        let Self { query, expected, .. } = self;
        let Settler { metrics, history, in_fleet, clock } = &self.shared.settler;
        metrics.settled(Dimension::Series, expected.value, expected.confidence, series);
        let key = self.upstream.history_key(&query.scope, query.fingerprint, &query.shape, self.asked_ms);
        history.observe(&key, series, is_whole, clock());
        if *in_fleet && self.upstream.is_known_elsewhere {
            history.offer(&key);
        }
    }
}

/// `foo[5m]` as an instant query: the answer holds every sample that was read.
pub(super) fn reads_raw_samples(estimate: &Estimated) -> bool {
    matches!(&estimate.selectors[..], [SelectorEstimate { evaluations: 1, output: Output::Same, .. }])
}

/// Whether the series of the answer are series that were touched: at most all of them.
pub(super) fn tells_series(shape: &Shape) -> bool {
    matches!(&shape.selectors[..], [one] if one.output == Output::Same)
}

/// The series that a backend says it touched, unless it stopped at a limit.
pub(super) fn reported_series(upstream: &Upstream, headers: &HeaderMap) -> Option<u64> {
    let reported = feedback::from_headers(headers, upstream.backend.kind());
    reported.series.filter(|_| !reported.limited)
}
