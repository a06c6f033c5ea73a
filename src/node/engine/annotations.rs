//! Warnings and infos that accompany the answer of a query.

use std::collections::BTreeMap;

use super::{error::shortened, number};
use crate::promql::ast::Span;

/// Different annotations kept for one query; a hostile label set could make one for every series.
const ANNOTATIONS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Warning,
    Info,
}

/// Where, how often and how much a classic histogram had to be made monotonic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced {
    /// First and last time, in milliseconds.
    pub(super) times: (i64, i64),
    /// Smallest and largest bucket that was corrected.
    pub(super) buckets: (f64, f64),
    /// The largest correction.
    pub(super) most: f64,
    pub(super) samples: u64,
}

impl Forced {
    fn merge(&mut self, other: &Self) {
        self.times = (self.times.0.min(other.times.0), self.times.1.max(other.times.1));
        self.buckets = (self.buckets.0.min(other.buckets.0), self.buckets.1.max(other.buckets.1));
        self.most = self.most.max(other.most);
        self.samples += other.samples;
    }
}

/// The annotations of one query, each text once.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    notes: BTreeMap<(Kind, String), (Span, Option<Forced>)>,
    omitted: u64,
}

impl Annotations {
    pub(super) fn warn(&mut self, span: Span, text: impl Into<String>) {
        self.add(Kind::Warning, span, text.into(), None);
    }

    pub(super) fn info(&mut self, span: Span, text: impl Into<String>) {
        self.add(Kind::Info, span, text.into(), None);
    }

    pub(super) fn forced_monotonic(&mut self, span: Span, metric: &str, forced: Forced) {
        let text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        self.add(Kind::Info, span, for_metric(text, metric), Some(forced));
    }

    fn add(&mut self, kind: Kind, span: Span, text: String, forced: Option<Forced>) {
        let text = shortened(text);
        let full = self.notes.len() >= ANNOTATIONS_MAX;
        match (self.notes.get_mut(&(kind, text.clone())), forced) {
            (Some((_, Some(known))), Some(forced)) => known.merge(&forced),
            (Some(_), _) => {}
            (None, _) if full => self.omitted += 1,
            (None, forced) => {
                self.notes.insert((kind, text), (span, forced));
            }
        }
    }

    /// Warnings and infos with their positions in `query`.
    pub(super) fn render(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let (mut warnings, mut infos) = (Vec::new(), Vec::new());
        for ((kind, text), (span, forced)) in &self.notes {
            let detail = forced.as_ref().map(describe).unwrap_or_default();
            let position = position(query, *span);
            match kind {
                Kind::Warning => warnings.push(format!("PromQL warning: {text}{detail} ({position})")),
                Kind::Info => infos.push(format!("PromQL info: {text}{detail} ({position})")),
            }
        }
        if self.omitted > 0 {
            warnings.push(format!("{} more annotations omitted", self.omitted));
        }
        (warnings, infos)
    }
}

/// Adds the metric's name, if it has one.
pub(super) fn for_metric(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {metric:?}") }
}

fn describe(forced: &Forced) -> String {
    format!(
        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
        number::short(forced.buckets.0),
        number::short(forced.buckets.1),
        number::two_digits(forced.most),
        forced.samples,
        number::rfc3339(forced.times.0),
        number::rfc3339(forced.times.1),
    )
}

/// `line:column` of a span's start, both from 1, in bytes.
fn position(query: &str, span: Span) -> String {
    let before = query.as_bytes().get(..span.start as usize).unwrap_or_default();
    let line = before.split(|b| *b == b'\n').count();
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{column}")
}
