//! What a query reads: for every selector its matchers and the time it truly touches.
//!
//! A [`Shape`] is arithmetic over the tree: it knows nothing of any database and never fails. Odd input
//! (durations that compute to NaN, times at the edge of `i64`) saturates.

mod duration;
mod matchers;
mod walk;

#[cfg(test)]
mod tests;

use crate::{
    base::{TextSize, TimeRange, time::EvalTimes},
    promql::ast::{Ast, MatchOp, Matcher, NodeId, Span},
};

pub use matchers::{is_match_all, normalise, selector_text};

/// Prometheus' default lookback: how far back an instant selector looks for the newest sample, milliseconds.
pub const DEFAULT_LOOKBACK_MS: u64 = 300_000;

/// The step of a subquery that names none: Prometheus' default evaluation interval, milliseconds.
pub const DEFAULT_SUBQUERY_STEP_MS: u64 = 60_000;

/// The label that holds a series' metric name.
pub const METRIC_NAME: &str = "__name__";

/// How many of the series that a selector reads can reach the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// None: the right side of `and`, the "one" side of a join.
    Nothing,
    /// One: `sum(…)` without grouping, `scalar(…)`, `absent(…)`.
    One,
    /// At most this many at each step: `topk(k, …)` without grouping.
    Top(u64),
    /// Fewer, nobody knows how many: `sum by (job) (…)`.
    Grouped,
    /// All of them.
    Same,
}

/// What a whole query reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// One for each vector selector, in the order of the text; the implied read of `info()` stands where its call
    /// starts.
    pub selectors: Vec<SelectorShape>,
    /// Evaluation steps (1 for an instant query).
    pub steps: u64,
    /// Seconds that the query spans, rounded up; 0 without selectors: the time between its first and its last evaluation,
    /// offsets included, or the longest that one evaluation reaches back over ranges and subqueries, whichever is more. So
    /// a graph of 31 days spans 31 days, whatever ranges it reads.
    pub range_seconds: u64,
    /// Names of the functions called, sorted, each once.
    pub functions: Vec<&'static str>,
    /// Every selector stands under something that leaves fewer series than were read; true without selectors.
    pub aggregates: bool,
    /// The answer is a matrix of raw samples or subquery points (`foo[5m]` as an instant query).
    pub returns_matrix: bool,
    /// How large the text is.
    pub size: TextSize,
}

/// What one vector selector reads.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectorShape {
    /// The selector's node; the call's node for the implied read of `info()`.
    pub node: NodeId,
    /// Where it stands in the text.
    pub span: Span,
    /// Sorted, without duplicates; a pattern that is a plain string has become `=` or `!=`.
    pub matchers: Vec<Matcher>,
    /// Everything read, over all steps, with lookback, range, offset, `@` and subqueries around it. The backend
    /// selects up to the query's end even when no step falls on it, so the window reaches there too.
    pub window: TimeRange,
    /// Times at which it is evaluated: the query's steps, or the inner grid of the subqueries around it (walked
    /// once over their whole span, as the engines do, not once a step), or 1 under `@`.
    pub evaluations: u64,
    /// Milliseconds read for one evaluation: the range of `[…]`, or the lookback.
    pub window_per_eval_ms: u64,
    /// It stands in a `[range]`.
    pub ranged: bool,
    /// Nothing narrows it down: no matcher that a series without the label would fail and that asks for more
    /// than "any value".
    pub match_all: bool,
    /// How much of it can reach the answer.
    pub output: Output,
    /// An aggregation that needs one series at a time stands directly over it (`sum(rate(x[5m]))`), so that a
    /// streaming engine never holds series × steps.
    pub streams: bool,
    /// The selector alone, without range, offset and `@`: for probes and messages.
    pub text: String,
}

impl Shape {
    /// Reads the shape off a tree, for these evaluation times and this lookback.
    pub fn of(ast: &Ast, times: EvalTimes, lookback_ms: u64) -> Self {
        walk::shape(ast, times, lookback_ms)
    }

    /// From the start of the earliest window to the end of the latest; `None` without selectors.
    pub fn window(&self) -> Option<TimeRange> {
        self.selectors.iter().map(|s| s.window).reduce(TimeRange::union)
    }
}

impl SelectorShape {
    /// The metric name, when the selector fixes it.
    pub fn metric_name(&self) -> Option<&str> {
        self.matchers
            .iter()
            .find(|m| &*m.name == METRIC_NAME && m.op == MatchOp::Equal && !m.value.is_empty())
            .map(|m| &*m.value)
    }
}
