//! The windows and grids of a query: for every selector its matchers and the time that it truly touches, for every node
//! the number of steps on which it is evaluated.
//!
//! A [`Shape`] is arithmetic over the tree: it knows nothing of any database and never fails. Odd input
//! (durations that compute to NaN, times at the edge of `i64`) saturates.

mod duration;
pub(in crate::promql) use duration::arithmetic;
mod invariant;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    base::{TextSize, TimeRange, time::EvalTimes},
    promql::ast::{Ast, Expr, MatchOp, Matcher, NodeId, Span},
    series::METRIC_NAME,
};

pub use super::matchers::{Selection, is_match_all, normalise, selector_text};

/// Prometheus' default lookback: how far back an instant selector looks for the newest sample, milliseconds.
pub const DEFAULT_LOOKBACK_MS: u64 = 300_000;

/// The step of a subquery that names none: Prometheus' default evaluation interval, milliseconds.
pub const DEFAULT_SUBQUERY_STEP_MS: u64 = 60_000;

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

/// The use that a request makes of the series that its selectors match.
#[derive(Clone, Debug)]
pub enum Reads {
    /// It evaluates this query.
    Query(Arc<Ast>),
    /// It lists these and reads no samples.
    Listing(Listed),
    /// It returns raw samples.
    RemoteRead {
        /// As chunks, a frame at a time (`STREAMED_XOR_CHUNKS`), not as one message.
        streamed: bool,
    },
}

/// A list that a database makes of its index, or of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Label sets.
    Series,
    /// Names of labels.
    Names,
    /// Values of this label; empty where its name is written in a way that is not read here.
    Values(Box<str>),
    /// Exemplars of the series.
    Exemplars,
}

/// On which steps a node is evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeShape {
    /// Steps on which it is evaluated: those of the query, those of the subqueries around it, or 1 where its value is
    /// the same at each step; 0 for a node without a value (parts of durations).
    pub steps: u64,
    /// Steps to which the engine copies that value: more than `steps` at the highest node of a step-invariant part.
    pub copies: u64,
    /// Steps of the query or subquery around it, whether its value is the same at each or not.
    pub grid: u64,
    /// Place in [`Shape::selectors`] of its own selector.
    pub selector: Option<u32>,
    /// Its value, where that is a number known from the text.
    pub number: Option<f64>,
    /// Steps of its own grid in one window, where it is a subquery.
    pub window: u64,
}

impl NodeShape {
    /// A node that is no value.
    pub const NEVER: Self = Self { steps: 0, copies: 0, grid: 0, selector: None, number: None, window: 0 };
}

/// The reads of a whole request.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The use that it makes of them.
    pub reads: Reads,
    /// One for each node of the query, by [`NodeId`].
    pub nodes: Vec<NodeShape>,
    /// One for each vector selector, in the order of the text; the implied read of `info()` stands where its call
    /// starts.
    pub selectors: Vec<SelectorShape>,
    /// Evaluation steps (1 for an instant query).
    pub steps: u64,
    /// Seconds that the query spans, rounded up; 0 without selectors: the time between its first and its last
    /// evaluation, offsets included, or the longest that one evaluation reaches back over ranges and subqueries,
    /// the longer one. So a graph of 31 days spans 31 days, with any ranges in it.
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

/// The reads of one vector selector.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectorShape {
    /// The selector's node; the call's node for the implied read of `info()`.
    pub node: NodeId,
    /// Where it stands in the text.
    pub span: Span,
    /// Sorted, without duplicates; a pattern that is a plain string has become `=` or `!=`.
    pub matchers: Arc<[Matcher]>,
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
    /// The query takes its points for native histograms: `histogram_quantile(0.9, sum(rate(x[5m])))` without a `le`.
    pub histograms: bool,
    /// Place of the first selector with the same matchers: its own, or an earlier one.
    pub same_as: usize,
    /// The selector alone, without range, offset and `@`: for probes and messages.
    pub text: Arc<str>,
}

impl Shape {
    /// Reads the shape off a tree, for these evaluation times and this lookback.
    pub fn of(ast: &Arc<Ast>, times: EvalTimes, lookback_ms: u64) -> Self {
        walk::shape(ast, times, lookback_ms)
    }

    /// A request that reads these selectors without evaluating a query.
    pub fn unevaluated(reads: Reads, selectors: Vec<SelectorShape>) -> Self {
        let mut shape = Self {
            reads,
            nodes: Vec::new(),
            selectors,
            steps: 1,
            range_seconds: 0,
            functions: Vec::new(),
            aggregates: false,
            returns_matrix: false,
            size: TextSize::default(),
        };
        mark_same(&mut shape.selectors);
        shape
    }

    /// The tree, where it is a query.
    pub fn ast(&self) -> Option<&Ast> {
        match &self.reads {
            Reads::Query(ast) => Some(ast),
            Reads::Listing(_) | Reads::RemoteRead { .. } => None,
        }
    }

    /// A part of it is evaluated on a grid of its own, which may have any number of steps.
    pub fn has_subquery(&self) -> bool {
        let is_subquery = |node: &crate::promql::ast::Node| matches!(node.expr, Expr::Subquery { .. });
        self.ast().is_some_and(|ast| ast.nodes.iter().any(is_subquery))
    }

    /// From the start of the earliest window to the end of the latest; `None` without selectors.
    pub fn window(&self) -> Option<TimeRange> {
        self.selectors.iter().map(|s| s.window).reduce(TimeRange::union)
    }
}

/// Finds the selectors with equal matchers.
fn mark_same(selectors: &mut [SelectorShape]) {
    if selectors.len() < 2 {
        return;
    }
    let mut first = std::collections::HashMap::with_capacity(selectors.len());
    let same: Vec<usize> =
        selectors.iter().enumerate().map(|(i, s)| *first.entry(&s.matchers).or_insert(i)).collect();
    for (selector, same_as) in selectors.iter_mut().zip(same) {
        selector.same_as = same_as;
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
