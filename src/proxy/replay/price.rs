//! The price of a recorded query and the verdict of the limits on one query, under another configuration.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Owner, Replay, Replayed, Verdict};
use crate::{
    base::{Confidence, ErrorKind, Estimate, Kind, QueryCost, time::EvalTimes},
    cost::{
        self, Estimated, Estimator, Knowledge, Need, QuerySplit, Remembered, SampleType, SeriesKnowledge,
        Source, Subject,
    },
    journal::{Actual, COUNTS_MAX, Priced, Record, SplitMode},
    limit::{AdmissionRequest, Charged, Limit, LimitName, Refusal, Scope},
    promql::{
        metricsql,
        shape::{DEFAULT_LOOKBACK_MS, Shape},
        templates,
    },
    proxy::estimate::{cost_limits, verdict},
};

/// A query that was read again.
pub(super) struct Reading {
    pub(super) shape: Shape,
    split: Option<QuerySplit>,
}

impl Replay {
    /// The verdict of the limits on one query.
    pub(super) fn judged(&self, record: &Record, owner: &Owner) -> Replayed {
        let priced = record.priced.as_ref().filter(|priced| is_complete(priced));
        let same = priced.filter(|priced| priced.basis.model == owner.model && !is_of_a_cut(record, priced));
        let Some(priced) = same else { return self.priced_anew(record, owner) };
        let cost = self.split_anew(record, priced, owner).unwrap_or(priced.cost);
        match self.judge(owner, &cost) {
            Err(refusal) if is_loose(record, priced, &refusal) && record.actual.series_read.is_some() => {
                self.priced_anew(record, owner)
            }
            Err(refusal) if is_loose(record, priced, &refusal) => {
                let verdict = Verdict::Unknown(Some(refusal));
                Replayed { cost: Some(cost), ..Replayed::of(verdict) }
            }
            Ok(_) if is_cut_short(record, priced) => {
                Replayed { cost: Some(cost), ..Replayed::of(Verdict::Unknown(None)) }
            }
            judged => replayed(record, owner, judged, cost),
        }
    }

    /// The limits on one query, and whether it is more than a whole budget.
    fn judge(&self, owner: &Owner, cost: &QueryCost) -> Result<Vec<Refusal>, Refusal> {
        self.admission.dry_run(&AdmissionRequest {
            payers: owner.payers.clone(),
            actor: Arc::clone(&owner.backend),
            class: owner.class.clone(),
            backend: Arc::clone(&owner.backend),
            cost: *cost,
            deadline: Instant::now(),
            charged: Charged::All,
            slow: false,
            tag: 0,
        })
    }

    /// The recorded cost, in the parts that this budget asks for; `None` where these are the recorded ones.
    fn split_anew(&self, record: &Record, priced: &Priced, owner: &Owner) -> Option<QueryCost> {
        let most = owner.thresholds.split;
        if priced.basis.split_mode == SplitMode::No || priced.basis.split_above == most {
            return None;
        }
        let mut whole = Estimated {
            cost: QueryCost { memory: priced.whole_memory, ..priced.cost },
            selectors: Vec::new(),
            parts: 1,
            whole_memory: priced.whole_memory,
        };
        if let Some(most) = most {
            let reading = self.read(record, owner)?;
            let series = counts(priced, &reading.shape)?;
            let known = Knowledge::from(&*series);
            whole.selectors = cost::estimate(&reading.shape, &known, &owner.model).selectors;
            if let Some(split) = &reading.split {
                whole = split.split(whole, &known, &owner.model, most);
            }
        }
        Some(whole.cost)
    }

    /// Prices a query anew, with the counts that are recorded.
    pub(super) fn priced_anew(&self, record: &Record, owner: &Owner) -> Replayed {
        let unknown = Replayed::of(Verdict::Unknown(None));
        let Some(reading) = self.read(record, owner) else {
            let Some(priced) = &record.priced else { return unknown };
            return match self.judge(owner, &priced.cost) {
                // A limit on the shape alone refuses it, for any series.
                Ok(_) if !is_complete(priced) => unknown,
                judged => replayed(record, owner, judged, priced.cost),
            };
        };
        let recorded = record.priced.as_ref().and_then(|priced| counts(priced, &reading.shape));
        if recorded.is_some() || record.actual.series_read.is_some() {
            let known = recorded.unwrap_or_else(|| floats(&reading, SeriesKnowledge::assumed(&owner.model)));
            let cost = price(record, owner, &reading, known);
            return replayed(record, owner, self.judge(owner, &cost), cost);
        }
        // Nobody counted: the truth lies between no series and all there can be.
        let [fewest, most] = [0, cost::UNKNOWN_SERIES].map(|series| {
            let known = SeriesKnowledge::new(Estimate::exact(series), Source::Assumed);
            price(record, owner, &reading, floats(&reading, known))
        });
        match (self.judge(owner, &fewest), self.judge(owner, &most)) {
            (Ok(_), Err(refusal)) => Replayed { verdict: Verdict::Unknown(Some(refusal)), ..unknown },
            (judged, _) => replayed(record, owner, judged, fewest),
        }
    }

    /// Reads the text of a query again; `None` where it is not known, or no PromQL.
    pub(super) fn read(&self, record: &Record, owner: &Owner) -> Option<Reading> {
        let times = record.times.filter(|_| !record.query_is_cut)?;
        let text = record.query.known()?;
        if !matches!(&*record.endpoint, "query" | "query_range" | "") {
            return None;
        }
        let is_metricsql = owner.model.kind == Kind::VictoriaMetrics;
        let plain = if is_metricsql { metricsql::plain(text).ok()? } else { text.into() };
        let expanded = if is_metricsql { templates::expand(&plain).ok()? } else { plain.as_ref().into() };
        let mut ast = self.cache.parse(&expanded).ok()?;
        if let Some(labels) = &owner.enforced {
            ast = self.cache.parse(&labels.confine(&ast).ok()?).ok()?;
        }
        let basis = record.priced.as_ref().map(|priced| &priced.basis);
        let lookback = basis.map_or(DEFAULT_LOOKBACK_MS, |basis| basis.lookback_ms);
        let split_mode = basis.map_or(SplitMode::Yes, |basis| basis.split_mode);
        let EvalTimes { start, end, step } = times;
        let shape = Shape::of(&ast, EvalTimes { start, end, step }, lookback);
        let split = || QuerySplit::of(&ast, times, lookback);
        let split = match split_mode {
            SplitMode::No => None,
            SplitMode::Yes => split(),
            SplitMode::AllReplicas => split().map(QuerySplit::of_all_replicas),
        };
        Some(Reading { shape, split })
    }
}

/// One entry for each selector of a query of which nobody recorded the series: floats, since few are anything else.
fn floats(reading: &Reading, series: SeriesKnowledge) -> Vec<SeriesKnowledge> {
    vec![SeriesKnowledge { samples: SampleType::Float, ..series }; reading.shape.selectors.len()]
}

/// The recorded counts, where they are those of these selectors.
fn counts(priced: &Priced, shape: &Shape) -> Option<Vec<SeriesKnowledge>> {
    let is_same = priced.counts.len() == shape.selectors.len() && priced.cost.text == shape.size;
    let known = priced.counts.iter().map(|count| count.known());
    is_same.then(|| known.collect())
}

/// The estimate of the live path, with recorded counts in place of history and probes.
fn price(record: &Record, owner: &Owner, reading: &Reading, known: Vec<SeriesKnowledge>) -> QueryCost {
    let subject = Subject {
        shape: &reading.shape,
        listing: false,
        opaque: false,
        split: reading.split.as_ref().zip(owner.thresholds.split),
        model: &owner.model,
        table: None,
        entry_bytes: None,
        asks_types: false,
        enforced: None,
    };
    let limits = cost_limits(owner.limits(), owner.thresholds.query);
    let class = owner.class.as_deref();
    let verdict = |cost: &QueryCost| verdict(&owner.policy, &owner.tenant, class, &owner.thresholds, cost);
    let mut estimator = Estimator::new(subject, known, limits, verdict);
    let mut cost = loop {
        match estimator.need() {
            Need::History => {
                let read = record.actual.series_read;
                estimator.supply_history(read.map(|series| Remembered { here: Some(series), peak: series }));
            }
            // Nobody is there to be asked.
            Need::Probes(_) | Need::Types(_) | Need::Values(_) => {}
            Need::Done(estimated) => break estimated.cost,
        }
    };
    if let Some(samples) = record.actual.samples_read {
        cost.samples = Estimate::new(samples, Confidence::Learned);
    }
    cost
}

/// Whether its selectors were counted: a query refused for its shape is not priced.
fn is_complete(priced: &Priced) -> bool {
    !priced.counts.is_empty() || !(1..=COUNTS_MAX as u64).contains(&priced.cost.selectors)
}

/// Whether a rule cut the query: the record has its own times and the price of the others.
fn is_of_a_cut(record: &Record, priced: &Priced) -> bool {
    let is_graph = &*record.endpoint == "query_range";
    record.times.is_some_and(|times| is_graph && times.steps() != priced.cost.steps)
}

/// Whether it was refused before everything was counted: another limit would have had Weir count on.
fn is_cut_short(record: &Record, priced: &Priced) -> bool {
    let is_open = |known: Confidence| matches!(known, Confidence::AtLeast | Confidence::Assumed);
    &*record.verdict != "admitted" && priced.counts.iter().any(|count| is_open(count.series.confidence))
}

/// Whether the live path would have counted before it refused: the number is a bound that no limit was near then.
fn is_loose(record: &Record, priced: &Priced, refusal: &Refusal) -> bool {
    let grows_with_series = matches!(
        refusal.limit,
        LimitName::MaxSeries
            | LimitName::MaxBlocks
            | LimitName::MaxSamples
            | LimitName::MaxPoints
            | LimitName::MaxMemory
            | LimitName::BudgetNever
    );
    let is_bound = priced.counts.iter().any(|count| count.source == Source::LabelTable);
    grows_with_series && is_bound && matches!(&*record.verdict, "admitted")
}

fn replayed(
    record: &Record,
    owner: &Owner,
    judged: Result<Vec<Refusal>, Refusal>,
    cost: QueryCost,
) -> Replayed {
    let (verdict, shadowed) = match judged {
        Err(refusal) => (Verdict::Refused(refusal), Vec::new()),
        Ok(shadowed) => match cut_off(record, owner) {
            Some(refusal) => (Verdict::Refused(refusal), shadowed),
            // A limit stopped its answer, and its length is not recorded.
            None if record.limit.known().is_some() && record.actual == Actual::default() => {
                (Verdict::Unknown(None), shadowed)
            }
            None => (Verdict::Admitted, shadowed),
        },
    };
    Replayed { shadowed, cost: Some(cost), ..Replayed::of(verdict) }
}

/// The limit that stops its answer.
fn cut_off(record: &Record, owner: &Owner) -> Option<Refusal> {
    let limits = owner.limits();
    // Names and values of labels are no series.
    let are_series = !matches!(&*record.endpoint, "labels" | "label_values");
    let (series, points) = (record.actual.answer_series, record.actual.answer_samples);
    let checks: [(LimitName, Option<u64>, Limit); 3] = [
        (LimitName::MaxResponse, record.actual.answer_bytes, limits.response_bytes),
        (LimitName::MaxSeries, series.filter(|_| are_series), limits.series),
        (LimitName::MaxPoints, points, limits.points),
    ];
    checks.into_iter().find_map(|(limit, seen, max)| {
        let (seen, max) = seen.zip(max.enforced()).filter(|(seen, max)| seen > max)?;
        Some(Refusal {
            kind: ErrorKind::LimitExceeded,
            limit,
            observed: Estimate::exact(seen),
            max,
            scope: Scope::Tenant(owner.tenant.clone()),
            retry_after: None,
            waiting_for: None,
        })
    })
}
