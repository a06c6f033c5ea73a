//! From a shape and what is known of its selectors to a cost.

use std::collections::HashMap;

use super::{Model, SeriesKnowledge, Source, model::Load};
use crate::{
    base::{Confidence, Estimate, QueryCost, TimeRange},
    promql::{
        ast::Span,
        shape::{Output, SelectorShape, Shape},
    },
};

/// What a query is expected to cost, in all and selector by selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimated {
    /// The sum, for limits.
    pub cost: QueryCost,
    /// In the order of the shape.
    pub selectors: Vec<SelectorEstimate>,
}

/// What one selector is expected to cost.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectorEstimate {
    /// The selector, for people.
    pub text: String,
    /// Where it stands in the query.
    pub span: Span,
    /// Series it matches in its window.
    pub series: Estimate,
    /// How that is known.
    pub source: Source,
    /// Series × storage blocks.
    pub blocks: Estimate,
    /// Raw samples read.
    pub samples: Estimate,
    /// Series × evaluations.
    pub points: Estimate,
    /// Bytes the backend holds for it.
    pub memory: Estimate,
    /// What it reads.
    pub window: TimeRange,
    /// How often it is evaluated.
    pub evaluations: u64,
    /// Nothing narrows it down.
    pub match_all: bool,
    /// How much of it can reach the answer.
    pub output: Output,
}

/// Estimates a query. `known` holds one entry for each selector of the shape, in its order; a selector without one
/// counts as [`SeriesKnowledge::assumed`].
pub fn estimate(shape: &Shape, known: &[SeriesKnowledge], model: &Model) -> Estimated {
    let selectors: Vec<SelectorEstimate> = shape
        .selectors
        .iter()
        .enumerate()
        .map(|(i, selector)| {
            let known = known.get(i).copied().unwrap_or_else(|| SeriesKnowledge::assumed(model));
            one(shape, selector, known, model)
        })
        .collect();
    sum_up(shape, selectors)
}

/// Estimates a listing of label sets (`series`, `labels`): it touches series and blocks, and reads no samples.
pub fn estimate_listing(shape: &Shape, known: &[SeriesKnowledge], model: &Model) -> Estimated {
    let mut selectors = estimate(shape, known, model).selectors;
    for selector in &mut selectors {
        let series = selector.series.value;
        // Labels are read from the index, where blocks are merged with age: the span of time says nothing of them.
        selector.blocks = selector.series;
        let load = Load { series, blocks: selector.blocks.value, output_series: series, ..Load::default() };
        selector.samples = Estimate::exact(0);
        selector.points = Estimate::exact(0);
        selector.memory = Estimate::new(model.kind.memory(load), selector.memory.confidence);
    }
    let mut estimate = sum_up(shape, selectors);
    let cost = &mut estimate.cost;
    (cost.range_seconds, cost.listing_seconds) = (0, cost.range_seconds);
    estimate
}

fn sum_up(shape: &Shape, selectors: Vec<SelectorEstimate>) -> Estimated {
    let sum = |field: fn(&SelectorEstimate) -> Estimate| {
        selectors.iter().map(field).fold(Estimate::exact(0), Estimate::plus)
    };
    let cost = QueryCost {
        series: distinct_series(shape, &selectors),
        blocks: sum(|s| s.blocks),
        samples: sum(|s| s.samples),
        points: sum(|s| s.points),
        memory: sum(|s| s.memory),
        range_seconds: shape.range_seconds,
        listing_seconds: 0,
        steps: shape.steps,
        selectors: shape.selectors.len() as u64,
        text: shape.size,
        pieces: 1,
    };
    Estimated { cost, selectors }
}

/// Selectors with the same matchers read the same series, in different windows perhaps: they count once, at their
/// largest.
fn distinct_series(shape: &Shape, selectors: &[SelectorEstimate]) -> Estimate {
    let mut largest: HashMap<_, Estimate> = HashMap::new();
    for (shape, estimate) in shape.selectors.iter().zip(selectors) {
        let known = largest.entry(&shape.matchers).or_insert(Estimate::exact(0));
        known.value = known.value.max(estimate.series.value);
        known.confidence = known.confidence.max(estimate.series.confidence);
    }
    largest.into_values().fold(Estimate::exact(0), Estimate::plus)
}

fn one(shape: &Shape, selector: &SelectorShape, known: SeriesKnowledge, model: &Model) -> SelectorEstimate {
    let series = known.series;
    // What is computed from a count still rests on an even scrape interval and on series that never pause.
    let class = series.confidence.max(Confidence::UpperBound);
    let each = |n: u64| Estimate::new(series.value.saturating_mul(n), class);
    let (blocks, samples) = (each(model.blocks(selector.window)), each(model.samples(selector.window)));
    let points = each(selector.evaluations);
    let (output_series, output_points) = output(shape, selector, series.value, model);
    let load = Load {
        series: series.value,
        blocks: blocks.value,
        samples: samples.value,
        points: points.value.max(if shape.returns_matrix { output_points } else { 0 }),
        output_series,
        output_points,
        streams: selector.streams,
        matrix: shape.returns_matrix,
    };
    SelectorEstimate {
        text: selector.text.clone(),
        span: selector.span,
        series,
        source: known.source,
        blocks,
        samples,
        points,
        memory: Estimate::new(model.kind.memory(load), class),
        window: selector.window,
        evaluations: selector.evaluations,
        match_all: selector.match_all,
        output: selector.output,
    }
}

/// Series and points that the answer takes from a selector.
fn output(shape: &Shape, selector: &SelectorShape, series: u64, model: &Model) -> (u64, u64) {
    // Points of one series of the answer.
    let points = match (shape.returns_matrix, selector.ranged) {
        (false, _) => shape.steps,
        (true, true) => model.samples(selector.window),
        (true, false) => selector.evaluations,
    };
    let (at_once, in_all) = match selector.output {
        Output::Nothing => (0, 0),
        Output::One => (series.min(1), series.min(1)),
        // Another k may lead at every step.
        Output::Top(k) => (series.min(k), series.min(k.saturating_mul(points))),
        // Nobody knows; groups grow more slowly than what they group, and the square root errs by less than an
        // order of magnitude on the dashboards at hand.
        Output::Grouped => (root(series), root(series)),
        Output::Same => (series, series),
    };
    (in_all, at_once.saturating_mul(points))
}

fn root(n: u64) -> u64 {
    let floor = n.isqrt();
    if floor.saturating_mul(floor) < n { floor + 1 } else { floor }
}
