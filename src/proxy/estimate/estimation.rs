//! The estimate stage: does the I/O that the estimator asks for.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    backend::{DataScope, ProbeError, ProbeOutcome, ProbeRequest},
    base::{QueryCost, TenantId},
    cost::{
        CostLimit, CostLimits, Count, Estimated, Estimator, History, Need, ProbeNeed, QuerySplit, SampleType,
        Subject, TypeNeed, ValuesNeed, Verdict,
    },
    limit::{Limit, PerQuery},
    promql::enforce::LabelEnforcement,
    proxy::{fleet::SharedCounts, query::ParsedQuery, upstream::Upstream},
    telemetry::metrics::{Metrics, ProbeResult},
};

/// Everything the estimate of one query rests on.
pub(super) struct Estimation<'a> {
    pub query: &'a ParsedQuery,
    /// The tenant that asks.
    pub tenant: &'a TenantId,
    /// Where it will run.
    pub upstream: &'a Upstream,
    /// The observed cost of earlier runs.
    pub history: &'a History,
    /// Counts of other proxies, in a fleet.
    pub counts: Option<&'a SharedCounts>,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The limits on one query: a probe may stop counting at them, and they refuse no assumed number.
    pub limits: &'a PerQuery,
    /// The largest share of a budget that a query of unknown size takes, bytes.
    pub memory_max: u64,
    /// How it may be split.
    pub split: Option<&'a QuerySplit>,
    /// Bytes beyond which it is split, where the backend takes parts.
    pub split_above: Option<u64>,
    /// The labels that it is confined to.
    pub enforced: Option<&'a LabelEnforcement>,
    /// The data scope of the query.
    pub scope: &'a DataScope,
    /// How long the query may wait for probes.
    pub deadline: Instant,
    /// Where probes are counted.
    pub metrics: &'a Metrics,
}

/// An estimate and how it came about.
#[derive(Debug)]
pub(super) struct EstimationResult {
    /// The estimated cost.
    pub estimate: Estimated,
    /// How long the backend was asked.
    pub probing: Duration,
    /// Why the backend could not say more, when it was asked and did not answer.
    pub unanswered: Option<ProbeError>,
}

impl Estimation<'_> {
    /// Estimates; `verdict` says whether a limit stands in the way of a cost.
    pub(super) async fn run(&self, verdict: impl Fn(&QueryCost) -> Verdict) -> EstimationResult {
        let table = self.upstream.table();
        let entry_bytes = self.entry_bytes();
        let subject = Subject { table: table.as_deref(), entry_bytes, ..self.subject() };
        let gone = |since_ms| self.upstream.gone_since(since_ms, self.now_ms);
        let types = self.upstream.types();
        let known = subject.from_table(types.as_ref().map(|types| &***types), gone);
        let mut estimator =
            Estimator::new(subject, known, cost_limits(self.limits, self.memory_max), verdict);
        let (mut probing, mut unanswered) = (Duration::ZERO, None);
        loop {
            match estimator.need() {
                Need::Done(estimate) => return EstimationResult { estimate, probing, unanswered },
                Need::History => {
                    let ParsedQuery { fingerprint, shape, .. } = self.query;
                    let key = self.upstream.history_key(self.scope, *fingerprint, shape, self.now_ms);
                    estimator.supply_history(self.history.get(&key, self.now_ms));
                }
                // Nothing is asked of a backend that is down: admission refuses the query by that.
                Need::Probes(_) | Need::Types(_) | Need::Values(_) if self.upstream.backend.sick() => {}
                Need::Types(needs) => {
                    let began = Instant::now();
                    // In a box, since most queries ask for nothing.
                    let asking = Box::pin(join_all(needs.into_iter().map(|need| self.sample_type(need))));
                    let answers = asking.await;
                    probing += began.elapsed();
                    for (need, samples) in answers.into_iter().flatten() {
                        estimator.supply_type(need, samples);
                    }
                }
                Need::Values(needs) => {
                    let began = Instant::now();
                    let answers = join_all(needs.iter().map(|need| self.values_seen(need))).await;
                    probing += began.elapsed();
                    for (need, seen) in needs.iter().zip(answers) {
                        if let Some(seen) = seen {
                            estimator.supply_values(need, &seen);
                        }
                    }
                }
                Need::Probes(needs) => {
                    let began = Instant::now();
                    let asking = Box::pin(join_all(needs.into_iter().map(|need| self.probe(need))));
                    let answers = asking.await;
                    probing += began.elapsed();
                    for (need, answer) in answers {
                        let count = match answer {
                            Ok(ProbeOutcome { series, truncated, labels, .. }) => {
                                Count::Series { series, truncated, labels }
                            }
                            Err(error) => {
                                // A probe that was not sent outranks a backend that cannot answer it.
                                if unanswered.as_ref().is_none_or(|before: &ProbeError| !before.is_unasked())
                                {
                                    unanswered = Some(error);
                                }
                                Count::Unknown
                            }
                        };
                        estimator.supply_count(need, count);
                    }
                }
            }
        }
    }

    fn subject(&self) -> Subject<'_> {
        let since_ms = self.query.shape.window().map_or(self.now_ms, |window| window.start);
        Subject {
            shape: &self.query.shape,
            listing: self.query.listing,
            opaque: self.query.opaque,
            split: self.split.zip(self.split_above),
            model: &self.upstream.model,
            table: None,
            entry_bytes: None,
            asks_types: self.upstream.asks_types(since_ms),
            enforced: self.enforced,
        }
    }

    /// The bytes of an entry in earlier answers to the same listing.
    fn entry_bytes(&self) -> Option<u64> {
        let ParsedQuery { fingerprint, shape, .. } = self.query;
        let key = self.upstream.entry_key(self.scope, *fingerprint, shape)?;
        Some(self.history.get(&key, self.now_ms)?.peak)
    }

    fn request(&self, selector: usize, limit: u64, enough: u64) -> Option<ProbeRequest<'_>> {
        self.query.shape.selectors.get(selector).map(|selector| ProbeRequest {
            selector: &selector.text,
            metric: selector.metric_name(),
            window: selector.window,
            limit,
            enough,
            match_all: selector.match_all,
            scope: self.scope,
            tenant: self.tenant.as_str(),
            deadline: self.deadline,
        })
    }

    /// Asks the backend whether a selector's samples are native histograms.
    async fn sample_type(&self, need: TypeNeed) -> Option<(TypeNeed, SampleType)> {
        let request = self.request(need.selector, need.series, 0)?;
        let share = self.upstream.backend.histogram_share(&request).await?;
        Some((need, SampleType::of_share(share)))
    }

    /// Asks the backend for the values of an expression at a few instants.
    async fn values_seen(&self, need: &ValuesNeed) -> Option<Arc<[u64]>> {
        let request = self.request(need.selector, need.series, 0)?;
        let request = ProbeRequest { selector: &need.text, ..request };
        self.upstream.backend.values_seen(&request, &need.instants).await
    }

    /// Asks the backend about one selector.
    async fn probe(&self, need: ProbeNeed) -> (ProbeNeed, Result<ProbeOutcome, ProbeError>) {
        let Some(request) = self.request(need.selector, need.limit, need.enough) else {
            return (need, Err(ProbeError::MatchAll));
        };
        let shared = self.counts.and_then(|counts| Some((counts, self.upstream.count_key(&request)?)));
        if let Some(outcome) = shared.and_then(|(counts, key)| counts.get(key, &request)) {
            return (need, Ok(outcome));
        }
        let answer = self.upstream.backend.probe(&request).await;
        self.count_probe(&answer);
        if let (Some((counts, key)), Ok(outcome)) = (shared, &answer)
            && !outcome.cached
        {
            let open = request.asked_window().end >= self.now_ms;
            counts.offer(key, outcome, open, self.upstream.backend.counts_kept());
        }
        (need, answer)
    }

    fn count_probe(&self, answer: &Result<ProbeOutcome, ProbeError>) {
        let backend = self.upstream.backend.name();
        let cached = answer.as_ref().is_ok_and(|outcome| outcome.cached);
        self.metrics.probe_cache(cached);
        match answer {
            Ok(_) if cached => {}
            Ok(outcome) => {
                let result = if outcome.truncated { ProbeResult::AtLeast } else { ProbeResult::Counted };
                self.metrics.probed(backend, result, outcome.took, outcome.bytes);
            }
            Err(ProbeError::MatchAll) => {
                self.metrics.probed(backend, ProbeResult::Refused, Duration::ZERO, 0);
            }
            Err(_) => self.metrics.probed(backend, ProbeResult::Failed, Duration::ZERO, 0),
        }
    }
}

/// The limits on one query as the estimator takes them; `memory_max` is the largest share of a budget that a query of
/// unknown size takes, bytes.
pub(in crate::proxy) fn cost_limits(limits: &PerQuery, memory_max: u64) -> CostLimits {
    let of = |bound: fn(Limit) -> Option<u64>| CostLimit {
        series: bound(limits.series).unwrap_or(u64::MAX),
        blocks: bound(limits.blocks).unwrap_or(u64::MAX),
        samples: bound(limits.samples).unwrap_or(u64::MAX),
        points: bound(limits.points).unwrap_or(u64::MAX),
        memory: bound(limits.memory).unwrap_or(u64::MAX),
    };
    let (refuse, near) = (of(Limit::enforced), of(Limit::threshold));
    CostLimits { refuse, near: CostLimit { memory: near.memory.min(memory_max), ..near } }
}
