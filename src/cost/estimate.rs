//! From a shape and the knowledge of its selectors to a cost.

use super::{
    LabelTable, Model, SampleType, SeriesKnowledge, Source,
    interpret::{self, Leaf},
};
use crate::{
    base::{Confidence, Estimate, Kind, LabelSize, QueryCost, TimeRange},
    promql::{
        ast::Span,
        shape::{Output, Reads, SelectorShape, Shape},
    },
};
use std::sync::Arc;

/// A query without selectors and subqueries that holds at most this much, its strings and its answer included, is not
/// worth an account: `1+1`, `vector(1)`, `time()` of a graph.
const FREE_BYTES: u64 = 256 << 10;

/// Knowledge about the data that a request reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knowledge<'a> {
    /// One entry for each selector of the shape, in its order; a selector without one counts as
    /// [`SeriesKnowledge::assumed`].
    pub series: &'a [SeriesKnowledge],
    /// The values of labels, which bound the groups of `sum by (job)`.
    pub table: Option<&'a LabelTable>,
    /// Bytes of an entry in earlier answers, where it is a listing.
    pub entry_bytes: Option<u64>,
}

impl<'a> From<&'a [SeriesKnowledge]> for Knowledge<'a> {
    fn from(series: &'a [SeriesKnowledge]) -> Self {
        Self { series, table: None, entry_bytes: None }
    }
}

/// The expected cost of a request, in all and selector by selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimated {
    /// The sum, for limits.
    pub cost: QueryCost,
    /// In the order of the shape.
    pub selectors: Vec<SelectorEstimate>,
    /// The number of requests that it is split into, each for a part of its time; 1 for a whole query.
    pub parts: u64,
    /// Bytes that it holds when it is not split.
    pub whole_memory: Estimate,
}

impl Estimated {
    /// Prices it as a query that is not split.
    pub fn make_whole(&mut self) {
        self.parts = 1;
        self.cost.memory = self.whole_memory;
    }
}

/// The expected cost of one selector.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectorEstimate {
    /// The selector, for people.
    pub text: Arc<str>,
    /// Where it stands in the query.
    pub span: Span,
    /// Series it matches in its window.
    pub series: Estimate,
    /// The source of that number.
    pub source: Source,
    /// The type of its samples.
    pub sample_type: SampleType,
    /// Series × storage blocks.
    pub blocks: Estimate,
    /// Raw samples read.
    pub samples: Estimate,
    /// Series × evaluations.
    pub points: Estimate,
    /// Bytes of these series and points alone.
    pub memory: Estimate,
    /// Its reads.
    pub window: TimeRange,
    /// How often it is evaluated.
    pub evaluations: u64,
    /// Nothing narrows it down.
    pub match_all: bool,
    /// How much of it can reach the answer.
    pub output: Output,
}

impl SelectorEstimate {
    /// The knowledge of its series that it was priced with.
    pub(super) const fn knowledge(&self) -> SeriesKnowledge {
        SeriesKnowledge::new(self.series, self.source).holding(self.sample_type)
    }
}

/// Estimates a request: linear in the nodes of its tree and in its selectors, and monotone in all that is known.
pub fn estimate(shape: &Shape, known: &Knowledge<'_>, model: &Model) -> Estimated {
    let knowledge =
        |i: usize| known.series.get(i).copied().unwrap_or_else(|| SeriesKnowledge::assumed(model));
    let table = known.table;
    let entries = known.entry_bytes.map(|bytes| LabelSize { set: bytes, longest: bytes });
    let mut selectors = Vec::with_capacity(shape.selectors.len());
    let mut leaves = Vec::with_capacity(shape.selectors.len());
    for (i, one) in shape.selectors.iter().enumerate() {
        let known = knowledge(i);
        let labels = known.labels.or(entries).or_else(|| Some(table?.label_size(known.series.value)));
        let leaf = Leaf { labels, ..leaf(one, known, model) };
        let bytes = interpret::alone(&leaf, one.evaluations, model.kind);
        selectors.push(selector(shape, one, known, bytes, model));
        leaves.push(leaf);
    }
    let taken = interpret::price(shape, &leaves, table, known.entry_bytes, model.kind);
    let confidence = match selectors.iter().map(|s| s.samples.confidence).max() {
        Some(worst) => worst,
        None if taken.points == 0 => Confidence::Exact,
        None => Confidence::UpperBound,
    };
    let sum = |field: fn(&SelectorEstimate) -> Estimate| {
        selectors.iter().map(field).fold(Estimate::exact(0), Estimate::plus)
    };
    let is_observed = known.series.iter().any(|known| known.values.is_some());
    let of_memory = if is_observed { confidence.max(Confidence::Learned) } else { confidence };
    let memory = Estimate::new(taken.bytes, of_memory);
    let of_windows = if taken.window_samples == 0 { Confidence::Exact } else { confidence };
    let cost = QueryCost {
        series: distinct_series(shape, &selectors),
        blocks: sum(|s| s.blocks),
        samples: sum(|s| s.samples).plus(Estimate::new(taken.window_samples, of_windows)),
        points: Estimate::new(taken.points, confidence),
        memory,
        range_seconds: shape.range_seconds,
        listing_seconds: 0,
        steps: shape.steps,
        selectors: shape.selectors.len() as u64,
        text: shape.size,
    };
    let cost = match shape.reads {
        Reads::Listing(_) => QueryCost { range_seconds: 0, listing_seconds: shape.range_seconds, ..cost },
        Reads::Query(_) | Reads::RemoteRead { .. } => cost,
    };
    Estimated { cost, selectors, parts: 1, whole_memory: memory }
}

/// Provably small: it reads no series, evaluates nothing on a grid of its own, and holds little on the most expensive
/// engine. Only such a request may run without an account.
pub fn is_free(shape: &Shape) -> bool {
    let reads_nothing = matches!(shape.reads, Reads::Query(_)) && shape.selectors.is_empty();
    reads_nothing
        && !shape.has_subquery()
        && interpret::price(shape, &[], None, None, Kind::Prometheus).bytes <= FREE_BYTES
}

/// Selectors with the same matchers read the same series, in different windows perhaps: they count once, at their
/// largest.
fn distinct_series(shape: &Shape, selectors: &[SelectorEstimate]) -> Estimate {
    let mut largest: Vec<Estimate> = vec![Estimate::exact(0); selectors.len()];
    for (shape, estimate) in shape.selectors.iter().zip(selectors) {
        if let Some(known) = largest.get_mut(shape.same_as) {
            known.value = known.value.max(estimate.series.value);
            known.confidence = known.confidence.max(estimate.series.confidence);
        }
    }
    largest.into_iter().fold(Estimate::exact(0), Estimate::plus)
}

fn selector(
    shape: &Shape,
    selector: &SelectorShape,
    known: SeriesKnowledge,
    bytes: u64,
    model: &Model,
) -> SelectorEstimate {
    let series = known.series;
    // A number computed from a count still rests on an even scrape interval and on series that never pause.
    let confidence = series.confidence.max(Confidence::UpperBound);
    let each = |n: u64| Estimate::new(series.value.saturating_mul(n), confidence);
    let lists = matches!(shape.reads, Reads::Listing(_));
    let (samples, points) = if lists {
        (Estimate::exact(0), Estimate::exact(0))
    } else {
        (each(model.samples(selector.window)), each(selector.evaluations))
    };
    SelectorEstimate {
        text: Arc::clone(&selector.text),
        span: selector.span,
        series,
        source: known.source,
        sample_type: known.samples,
        // Labels are read from the index, where blocks are merged with age: the span of a listing says nothing of them.
        blocks: if lists { series } else { each(model.blocks(selector.window)) },
        samples,
        points,
        memory: Estimate::new(bytes, confidence),
        window: selector.window,
        evaluations: selector.evaluations,
        match_all: selector.match_all,
        output: selector.output,
    }
}

/// A selector as it is priced.
pub(super) fn leaf(selector: &SelectorShape, known: SeriesKnowledge, model: &Model) -> Leaf {
    let sample_type = match known.samples {
        SampleType::Unknown if selector.histograms => SampleType::HISTOGRAM,
        known => known,
    };
    let window = TimeRange { start: 0, end: i64::try_from(selector.window_per_eval_ms).unwrap_or(i64::MAX) };
    let samples = model.samples(selector.window);
    Leaf {
        series: known.series.value,
        blocks: model.blocks(selector.window),
        samples,
        window_samples: model.samples(window).min(samples),
        labels: None,
        values: known.values,
        // Where there are no series, their type says nothing.
        buckets: if known.series.value == 0 { 0 } else { sample_type.buckets().into() },
    }
}
