//! The types of metrics, as their backend names them: a native histogram takes many times the memory of a float.

use std::collections::HashMap;

use serde::Deserialize;

use super::SampleType;
use crate::{
    promql::ast::{MatchOp, Matcher},
    series::METRIC_NAME,
};

/// Series that end like this are floats, in a metric of any type: counters, and the parts of a classic histogram.
const FLOAT_SUFFIXES: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
/// The label of a classic histogram's buckets.
const BUCKET: &str = "le";

/// The types of a backend's metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricTypes {
    /// By name; a histogram's own name belongs to a native one.
    histograms: HashMap<Box<str>, bool>,
}

/// The body of `/api/v1/metadata`.
#[derive(Deserialize)]
struct Metadata {
    data: HashMap<Box<str>, Vec<MetricType>>,
}

#[derive(Deserialize)]
struct MetricType {
    #[serde(rename = "type")]
    name: String,
}

impl MetricTypes {
    /// Reads the body of `/api/v1/metadata`, of which at most `max_entries` are kept; `None` where it cannot be read.
    pub fn from_metadata(json: &[u8], max_entries: usize) -> Option<Self> {
        let Metadata { data } = serde_json::from_slice(json).ok()?;
        let is_histogram = |types: &[MetricType]| types.iter().any(|one| one.name.ends_with("histogram"));
        let named = data.into_iter().map(|(name, types)| (name, is_histogram(&types)));
        Some(Self { histograms: named.take(max_entries).collect() })
    }

    /// The samples of a selector.
    pub fn of(&self, matchers: &[Matcher]) -> SampleType {
        let equal = |label: &str| {
            let found = matchers.iter().find(|m| m.op == MatchOp::Equal && &*m.name == label);
            found.map(|m| &*m.value).filter(|value| !value.is_empty())
        };
        if equal(BUCKET).is_some() {
            return SampleType::Float;
        }
        let Some(name) = equal(METRIC_NAME) else { return SampleType::Unknown };
        match self.histograms.get(name) {
            Some(true) => SampleType::HISTOGRAM,
            Some(false) => SampleType::Float,
            None if FLOAT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) => SampleType::Float,
            None => SampleType::Unknown,
        }
    }
}
