//! From a shape and what is known of its selectors to a demand.

use std::collections::HashMap;

use super::{Model, SeriesKnowledge, Source, model::Load};
use crate::{
    base::{Demand, EstimateClass, Known, TimeRange},
    promql::{
        ast::Span,
        shape::{Output, SelectorShape, Shape},
    },
};

/// What a query is expected to cost, in all and selector by selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The sum, for limits.
    pub demand: Demand,
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
    pub series: Known,
    /// How that is known.
    pub source: Source,
    /// Series × storage blocks.
    pub blocks: Known,
    /// Raw samples read.
    pub samples: Known,
    /// Series × evaluations.
    pub points: Known,
    /// Bytes the backend holds for it.
    pub memory: Known,
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
pub fn estimate(shape: &Shape, known: &[SeriesKnowledge], model: &Model) -> Estimate {
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
pub fn estimate_listing(shape: &Shape, known: &[SeriesKnowledge], model: &Model) -> Estimate {
    let mut selectors = estimate(shape, known, model).selectors;
    for selector in &mut selectors {
        let series = selector.series.value;
        let load = Load { series, blocks: selector.blocks.value, output_series: series, ..Load::default() };
        selector.samples = Known::exact(0);
        selector.points = Known::exact(0);
        selector.memory = Known::new(model.kind.memory(load), selector.memory.class);
    }
    sum_up(shape, selectors)
}

fn sum_up(shape: &Shape, selectors: Vec<SelectorEstimate>) -> Estimate {
    let sum = |field: fn(&SelectorEstimate) -> Known| {
        selectors.iter().map(field).fold(Known::exact(0), Known::plus)
    };
    let demand = Demand {
        series: distinct_series(shape, &selectors),
        blocks: sum(|s| s.blocks),
        samples: sum(|s| s.samples),
        points: sum(|s| s.points),
        memory: sum(|s| s.memory),
        range_seconds: shape.range_seconds,
        steps: shape.steps,
        selectors: shape.selectors.len() as u64,
        pieces: 1,
    };
    Estimate { demand, selectors }
}

/// Selectors with the same matchers read the same series, in different windows perhaps: they count once, at their
/// largest.
fn distinct_series(shape: &Shape, selectors: &[SelectorEstimate]) -> Known {
    let mut largest: HashMap<_, Known> = HashMap::new();
    for (shape, estimate) in shape.selectors.iter().zip(selectors) {
        let known = largest.entry(&shape.matchers).or_insert(Known::exact(0));
        known.value = known.value.max(estimate.series.value);
        known.class = known.class.max(estimate.series.class);
    }
    largest.into_values().fold(Known::exact(0), Known::plus)
}

fn one(shape: &Shape, selector: &SelectorShape, known: SeriesKnowledge, model: &Model) -> SelectorEstimate {
    let series = known.series;
    // What is computed from a count still rests on an even scrape interval and on series that never pause.
    let class = series.class.max(EstimateClass::UpperBound);
    let each = |n: u64| Known::new(series.value.saturating_mul(n), class);
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
        memory: Known::new(model.kind.memory(load), class),
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
