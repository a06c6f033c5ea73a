//! The estimate stage: asks what is known of the selectors, from the cheapest source to the dearest, and stops as soon
//! as no limit is in doubt. It never fails: what cannot be known is assumed, as the configuration says.

use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;

use super::{query::Call, upstream::Upstream};
use crate::{
    backend::probe::{ProbeError, ProbeOutcome, Question},
    base::{Confidence, Estimate, QueryCost, TenantId},
    cost::{
        self, Estimated, LabelTable, LearnKey, Learned, Model, Observed, QuerySplit, SeriesKnowledge, Source,
        UNKNOWN_SERIES, Unknown,
    },
    limit::PerQuery,
    promql::shape::{SelectorShape, Shape},
    telemetry::metrics::{Metrics, ProbeResult},
};

/// Selectors of one query that are asked about; a query of more is judged by what is known without.
const PROBES_MAX: usize = 8;
/// Where a probe stops counting when no limit refuses the query however many there are.
const PROBE_SERIES: u64 = 100_000;
/// What is only bounded weighs at most this part of what a query may: it may be many times the truth, and would keep
/// others waiting. A count is cheaper then.
const LOOSE_PART: u64 = 16;
/// Series beyond which two numbers are not told apart when it is worked out which of them would pass a limit.
const SERIES_BITS: u32 = 40;
/// What a selector is taken for that may not be refused and of which nothing is known, when no limit on series says.
const HEAVY_SERIES: u64 = 50_000;

/// Everything the estimate of one query rests on.
#[derive(Debug)]
pub(super) struct Weighing<'a> {
    /// Who asks.
    pub tenant: &'a TenantId,
    /// What is read.
    pub call: &'a Call,
    /// Where it will run.
    pub upstream: &'a Upstream,
    /// What earlier runs cost.
    pub learned: &'a Learned,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The limits on one query: a probe may stop counting at them, and what is only assumed is not refused by them.
    pub limits: &'a PerQuery,
    /// The largest share of a budget that a query of unknown size takes, bytes.
    pub memory_max: u64,
    /// How it may be divided.
    pub division: Option<&'a QuerySplit>,
    /// Bytes beyond which it is, where the backend gets pieces.
    pub piece_max: Option<u64>,
    /// The request's own headers, for backends that tell tenants apart by them.
    pub headers: &'a HeaderMap,
    /// Where probes are counted.
    pub metrics: &'a Metrics,
}

/// What the limits say of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// No limit is near.
    Clear,
    /// It passes one that is only watched, or takes more than its share of a budget.
    Doubtful,
    /// It passes one that refuses it.
    Refused,
}

/// An estimate and how it came about.
#[derive(Debug)]
pub(super) struct Weighed {
    /// What the query will cost.
    pub estimate: Estimated,
    /// How long that took.
    pub probing: Duration,
    /// Why the backend could not say more, when it was asked and did not answer.
    pub unanswered: Option<String>,
}

impl Weighed {
    /// Known without asking the backend.
    const fn unasked(estimate: Estimated) -> Self {
        Self { estimate, probing: Duration::ZERO, unanswered: None }
    }
}

impl Weighing<'_> {
    /// Estimates; `stand` says whether a limit stands in the way of a cost.
    pub(super) async fn weigh(&self, stand: impl Fn(&QueryCost) -> Stand) -> Weighed {
        let shape = &self.call.shape;
        if self.call.opaque {
            let known = vec![SeriesKnowledge::assumed(&self.upstream.model); shape.selectors.len()];
            return Weighed::unasked(self.price(&known));
        }
        let mut known = self.told_by_table();
        let mut estimate = self.price(&known);
        let settled = |known: &[SeriesKnowledge], estimate: &Estimated| {
            let is_loose = known.iter().any(|known| known.source == Source::LabelTable)
                && estimate.cost.memory.value > self.memory_max / LOOSE_PART;
            !known.iter().any(is_guess) && !is_loose && stand(&estimate.cost) == Stand::Clear
        };
        if settled(&known, &estimate) {
            return Weighed::unasked(estimate);
        }
        let key = LearnKey::new(self.tenant.clone(), self.call.fingerprint, shape);
        if let Some(observed) = self.learned.get(&key, self.now_ms.max(0) as u64) {
            known = SeriesKnowledge::from_observed(shape, &observed, &known);
            estimate = self.price(&known);
            if settled(&known, &estimate) {
                return Weighed::unasked(estimate);
            }
        }
        let started = tokio::time::Instant::now();
        let (counted, unanswered) = self.probe(&mut known, stand).await;
        if counted && !known.iter().any(is_guess) {
            self.remember(key, &known);
        }
        Weighed { estimate: self.cautious(known), probing: started.elapsed(), unanswered }
    }

    /// One entry for each selector, from the label table.
    fn told_by_table(&self) -> Vec<SeriesKnowledge> {
        let table = self.upstream.table();
        let gone = |since_ms| self.upstream.gone_since(since_ms, self.now_ms);
        from_table(&self.call.shape, table.as_deref(), gone, &self.upstream.model, self.call.listing)
    }

    /// The most series that each of these selectors may have, at once or alone, for the limits to say so.
    fn most_series(
        &self,
        known: &[SeriesKnowledge],
        of: &[usize],
        is_so: impl Fn(&QueryCost) -> bool,
    ) -> u64 {
        let mut tried = known.to_vec();
        let mut holds = |series: u64| {
            for &i in of {
                if let Some(known) = tried.get_mut(i) {
                    *known = SeriesKnowledge::new(Estimate::exact(series), Source::Probe);
                }
            }
            is_so(&self.price(&tried).cost)
        };
        if holds(u64::MAX) {
            return u64::MAX;
        }
        // Every number grows with the series: the largest that still holds is found bit by bit.
        (0..SERIES_BITS)
            .rev()
            .map(|bit| 1 << bit)
            .fold(0, |most, bit| if holds(most | bit) { most | bit } else { most })
    }

    /// The estimate when there was nobody left to ask. What may run although nothing is known of it weighs as much as
    /// the heaviest query that may run: a database too busy to count is the last that should get heavy queries as
    /// light ones.
    fn cautious(&self, mut known: Vec<SeriesKnowledge>) -> Estimated {
        let selectors = self.call.shape.selectors.iter();
        let matches_all =
            selectors.zip(&known).any(|(selector, known)| selector.match_all && is_guess(known));
        if self.call.listing || matches_all || self.upstream.model.unknown != Unknown::Allow {
            return self.price(&known);
        }
        let heavy = self.limits.series.watched().unwrap_or(HEAVY_SERIES);
        for guess in known.iter_mut().filter(|known| is_guess(known)) {
            guess.series.value = guess.series.value.max(heavy);
        }
        let mut estimate = self.price(&known);
        let (cost, limits) = (&mut estimate.cost, self.limits);
        for (number, limit) in [
            (&mut cost.series, limits.series.enforced()),
            (&mut cost.blocks, limits.blocks.enforced()),
            (&mut cost.samples, limits.samples.enforced()),
            (&mut cost.points, limits.points.enforced()),
            (&mut cost.memory, Some(self.memory_max)),
        ] {
            if number.confidence == Confidence::Assumed {
                number.value = number.value.min(limit.unwrap_or(u64::MAX));
            }
        }
        estimate
    }

    /// The same query is not asked about again while no limit is near, longer than a probe's answer is kept.
    fn remember(&self, key: LearnKey, known: &[SeriesKnowledge]) {
        let series = known.iter().fold(0u64, |sum, one| sum.saturating_add(one.series.value));
        let samples = self.price(known).cost.samples.value;
        let observed = Observed { series, samples, ..Observed::default() };
        self.learned.observe(key, observed, self.now_ms.max(0) as u64);
    }

    fn price(&self, known: &[SeriesKnowledge]) -> Estimated {
        let (shape, model) = (&self.call.shape, &self.upstream.model);
        if self.call.listing {
            return cost::estimate_listing(shape, known, model);
        }
        let whole = cost::estimate(shape, known, model);
        match self.division.zip(self.piece_max) {
            Some((division, most)) => division.divide(whole, known, model, most),
            None => whole,
        }
    }

    /// Asks the backend about the selectors in doubt, the largest first, all at once: whether it counted each, and why
    /// one got no answer.
    async fn probe(
        &self,
        known: &mut [SeriesKnowledge],
        stand: impl Fn(&QueryCost) -> Stand,
    ) -> (bool, Option<String>) {
        let selectors = &self.call.shape.selectors;
        let mut doubtful: Vec<usize> = (0..selectors.len().min(known.len()))
            // A probe that matches everything would itself be the attack.
            .filter(|&i| !selectors[i].match_all && known[i].series.confidence != Confidence::Exact)
            .collect();
        doubtful.sort_by_key(|&i| std::cmp::Reverse((is_guess(&known[i]), known[i].series.value)));
        doubtful.truncate(PROBES_MAX);
        let enough = self.most_series(known, &doubtful, |cost| stand(cost) == Stand::Clear);
        let none = vec![SeriesKnowledge::new(Estimate::exact(0), Source::Probe); known.len()];
        let limits: Vec<Option<u64>> = (doubtful.iter())
            .map(|&i| self.most_series(&none, &[i], |cost| stand(cost) != Stand::Refused))
            .map(|most| match most {
                // It is refused whatever it reads: the number is for the message.
                0 => self.limits.series.enforced(),
                u64::MAX => None,
                most => Some(most),
            })
            .collect();
        let ask = |(i, limit): (usize, Option<u64>)| async move {
            let SelectorShape { text, window, match_all, .. } = &selectors[i];
            let (tenant, headers) = (self.tenant.as_str(), self.headers);
            let question = Question {
                selector: text,
                window: *window,
                limit: limit.unwrap_or(PROBE_SERIES),
                enough,
                match_all: *match_all,
                tenant,
                headers,
            };
            (i, limit, self.upstream.backend.probe(&question).await)
        };
        let (mut counted, mut unanswered) = (true, None);
        for (i, limit, answer) in join_all(doubtful.into_iter().zip(limits).map(ask)).await {
            self.count_probe(&answer);
            counted &= answer.as_ref().is_ok_and(|outcome| !outcome.truncated);
            match answer {
                Ok(outcome) => {
                    known[i] = after_probe(known[i], outcome);
                    // More than a number that nothing is refused for: still nobody knows how many.
                    if outcome.truncated && limit.is_none() {
                        known[i].series.confidence = Confidence::Assumed;
                    }
                }
                Err(error) => unanswered = Some(error.to_string()),
            }
        }
        (counted, unanswered)
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

/// What is assumed, and what a table says of times that it does not cover.
fn is_guess(known: &SeriesKnowledge) -> bool {
    known.series.confidence == Confidence::Assumed
}

/// What a backend's answer adds to what was known.
fn after_probe(known: SeriesKnowledge, outcome: ProbeOutcome) -> SeriesKnowledge {
    let counted = SeriesKnowledge::new(outcome.series, Source::Probe);
    if !outcome.truncated {
        return if is_guess(&known) { counted } else { known.better(counted) };
    }
    // More than the probe counted. An upper bound that says so too is the better number.
    let bound = known.series;
    if bound.confidence == Confidence::UpperBound && bound.value > outcome.series.value {
        known
    } else {
        SeriesKnowledge::new(Estimate::new(outcome.series.value, Confidence::AtLeast), Source::Probe)
    }
}

/// One entry for each selector, from the label table and the series that left it since the window's start.
fn from_table(
    shape: &Shape,
    table: Option<&LabelTable>,
    gone_since: impl Fn(i64) -> Option<u64>,
    model: &Model,
    listing: bool,
) -> Vec<SeriesKnowledge> {
    let one = |selector: &SelectorShape| {
        if let Some(bound) = table.and_then(|table| table.bound(&selector.matchers, selector.window)) {
            return SeriesKnowledge::new(bound, Source::LabelTable);
        }
        let assumed = SeriesKnowledge::assumed(model);
        let guess = table.and_then(|table| table.guess(&selector.matchers));
        // A listing of everything is what label browsers ask for; a query of everything is an attack.
        if selector.match_all && !listing {
            return SeriesKnowledge::new(Estimate::new(UNKNOWN_SERIES, Confidence::Assumed), Source::Assumed);
        }
        let gone = gone_since(selector.window.start);
        let observed = table
            .zip(gone)
            .and_then(|(table, gone)| table.observed(&selector.matchers, selector.window, gone));
        if let Some(observed) = observed {
            return SeriesKnowledge::new(observed, Source::LabelTable);
        }
        match guess {
            Some(guess) if guess > assumed.series.value => {
                SeriesKnowledge::new(Estimate::new(guess, Confidence::Assumed), Source::LabelTable)
            }
            _ => assumed,
        }
    };
    shape.selectors.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_probe_never_lowers_a_bound() {
        let known = |n, class, source| SeriesKnowledge::new(Estimate::new(n, class), source);
        let bound = known(900, Confidence::UpperBound, Source::LabelTable);
        let guess = known(10, Confidence::Assumed, Source::Assumed);
        let outcome = |n, truncated| ProbeOutcome {
            series: Estimate::exact(n),
            truncated,
            cached: false,
            took: Duration::ZERO,
            bytes: 0,
        };
        assert_eq!(after_probe(bound, outcome(101, true)), bound);
        let at_least = Estimate::new(101, Confidence::AtLeast);
        assert_eq!(after_probe(guess, outcome(101, true)).series, at_least);
        assert_eq!(after_probe(bound, outcome(7, false)).series, Estimate::exact(7));
        assert_eq!(after_probe(guess, outcome(70, false)).series, Estimate::exact(70));
    }
}
