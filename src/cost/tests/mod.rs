mod estimator;
mod explain;
mod history;
mod hostile;
mod label_table;
mod listings;
mod pricing;
mod properties;
mod split;

use std::sync::Arc;

use crate::{
    base::{Confidence, Estimate, Kind, time::EvalTimes},
    cost::{
        Estimated, Knowledge, LabelTable, MetricTypes, Model, SampleType, SeriesKnowledge, Source, Subject,
        estimate, is_free,
    },
    promql::{
        Limits, parse_with,
        shape::{DEFAULT_LOOKBACK_MS, Shape},
    },
};

/// 2023-11-14T22:00:00Z
const NOW: i64 = 1_700_000_000_000 - 800_000;
const HOUR: i64 = 3_600_000;

fn shape(query: &str, times: EvalTimes) -> Shape {
    // Larger than any that is let in, to see the bound of its explanation.
    let limits = Limits { bytes: 1 << 20, nodes: 100_000, ..Limits::default() };
    Shape::of(&Arc::new(parse_with(query, &limits).unwrap()), times, DEFAULT_LOOKBACK_MS)
}

/// The six hours up to now.
fn six_hours(step_seconds: u64) -> EvalTimes {
    EvalTimes { start: NOW - 6 * HOUR, end: NOW, step: step_seconds * 1000 }
}

/// A query of a backend that has no label table and is not asked for types.
fn subject<'a>(shape: &'a Shape, model: &'a Model) -> Subject<'a> {
    Subject {
        shape,
        listing: false,
        opaque: false,
        split: None,
        model,
        table: None,
        entry_bytes: None,
        asks_types: false,
        enforced: None,
    }
}

fn counted(n: u64) -> SeriesKnowledge {
    SeriesKnowledge::new(Estimate::exact(n), Source::Probe)
}

fn at_most(n: u64) -> SeriesKnowledge {
    SeriesKnowledge::new(Estimate::new(n, Confidence::UpperBound), Source::LabelTable)
}

fn model(kind: Kind) -> Model {
    Model { kind, ..Model::default() }
}

fn priced(query: &str, times: EvalTimes, series: u64, kind: Kind) -> Estimated {
    let shape = shape(query, times);
    let known = vec![counted(series); shape.selectors.len()];
    estimate(&shape, &Knowledge::from(&*known), &model(kind))
}
