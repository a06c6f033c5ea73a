//! Range vectors: out of the storage or of a subquery, cut into one window a step.

use super::{
    error::{EvalError, execution},
    eval::Eval,
    extended,
    grid::Grid,
    meter::Held,
    samples_window::Window,
    selector::{Lookup, drop_stale},
    value::{Points, Row, present},
};
use crate::{
    base::TimeRange,
    promql::ast::{Edges, Expr, NodeId},
    series::{Labels, Samples, is_stale},
};

/// Steps of a subquery that there is room for before it is known how many have a value.
const STEPS_FIRST: usize = 1_024;

/// An argument that is a range vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct RangeArg {
    /// The matrix or subquery node.
    pub(super) id: NodeId,
    lookup: Lookup,
    range: i64,
    pub(super) edges: Edges,
    /// It is the whole query, not an argument of a function.
    whole: bool,
}

/// Takes a series of a range vector: its labels, whether its name is to be dropped, its samples.
pub(super) type RangeSink<'s> = &'s mut dyn FnMut(&Labels, bool, &mut Samples) -> Result<(), EvalError>;

impl Eval<'_> {
    /// The range vector behind an argument, if it is one.
    pub(super) fn range_arg(&self, id: NodeId) -> Option<RangeArg> {
        let id = self.unparen(id);
        let edges = match self.expr(id) {
            Expr::Matrix { selector, .. } => match self.expr(self.unparen(*selector)) {
                Expr::Selector(selector) => selector.edges,
                _ => Edges::Plain,
            },
            Expr::Subquery { .. } => Edges::Plain,
            _ => return None,
        };
        let planned = self.planned(id);
        let lookup = Lookup { at: planned.at, offset: planned.offset };
        Some(RangeArg { id, lookup, range: planned.range, edges, whole: false })
    }

    /// The series of a range vector, each with all samples that any step needs.
    pub(super) fn stream_ranges(&self, arg: &RangeArg, sink: RangeSink<'_>) -> Result<(), EvalError> {
        if self.grid.count == 0 {
            return Ok(());
        }
        match self.expr(arg.id) {
            Expr::Matrix { selector, .. } => {
                let Expr::Selector(selector) = self.expr(self.unparen(*selector)) else {
                    return execution("a range needs a vector selector");
                };
                let window = self.range_window(arg);
                self.read(&selector.matchers, window, &mut |labels, samples| {
                    drop_stale(samples);
                    sink(labels, false, samples)
                })
            }
            Expr::Subquery { expr, .. } => {
                let grid = self.subquery_grid(arg);
                let mut samples = self.cx.meter.samples(grid.count.min(STEPS_FIRST))?;
                // The samples in the windows of a function count; without a function, those that the subquery read.
                let weight = if arg.whole { self.weight } else { 0 };
                let inner = Eval { weight, ..self.with_grid(grid) };
                inner.stream(*expr, &mut |series| {
                    let steps = series.values.iter().filter(|value| !is_stale(**value)).count();
                    self.cx.meter.reserve(&mut samples, steps)?;
                    for (time, value) in grid.times().zip(series.values.iter()) {
                        if let Some(value) = present(*value) {
                            samples.push(time, value);
                        }
                    }
                    sink(&series.labels, series.drop_name, &mut samples)
                })
            }
            _ => execution("expected a range vector"),
        }
    }

    fn ends(&self, arg: &RangeArg) -> (i64, i64) {
        (arg.lookup.time(self.grid.start), arg.lookup.time(self.grid.last_time()))
    }

    /// The times of all samples that any step may see.
    pub(super) fn range_window(&self, arg: &RangeArg) -> TimeRange {
        let (before, after) = self.reach(arg.edges);
        let (first_end, last_end) = self.ends(arg);
        TimeRange::new(
            first_end.saturating_sub(arg.range).saturating_sub(before).saturating_add(1),
            last_end.saturating_add(after),
        )
    }

    /// The steps of a subquery.
    pub(super) fn subquery_grid(&self, arg: &RangeArg) -> Grid {
        let (first_end, last_end) = self.ends(arg);
        Grid::aligned(first_end.saturating_sub(arg.range), last_end, self.planned(arg.id).step)
    }

    /// How far before and after a window its edges look.
    fn reach(&self, edges: Edges) -> (i64, i64) {
        match edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (self.cx.lookback_ms, 0),
            Edges::Smoothed => (self.cx.lookback_ms, self.cx.lookback_ms),
        }
    }

    /// Calls `each` with the window of every step that has samples.
    pub(super) fn windows(
        &self,
        arg: &RangeArg,
        samples: &Samples,
        mut each: impl FnMut(usize, &Window<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let (before, after) = self.reach(arg.edges);
        let (mut from, mut upto, mut seen) = (0, 0, 0);
        for (step, at) in self.grid.times().enumerate() {
            self.cx.meter.check()?;
            let end = arg.lookup.time(at);
            let start = end.saturating_sub(arg.range);
            let (low, high) = (start.saturating_sub(before), end.saturating_add(after));
            while samples.times.get(from).is_some_and(|t| *t <= low) {
                from += 1;
            }
            while samples.times.get(upto).is_some_and(|t| *t <= high) {
                upto += 1;
            }
            let (Some(times), Some(values)) = (samples.times.get(from..upto), samples.values.get(from..upto))
            else {
                continue;
            };
            let starts = samples.starts.get(from..upto).unwrap_or_default();
            if !times.is_empty() {
                seen += times.len() as u64;
                each(step, &Window { times, values, from, starts, start, end, at, edges: arg.edges })?;
            }
        }
        if !(arg.whole && matches!(self.expr(arg.id), Expr::Subquery { .. })) {
            self.saw(seen);
        }
        Ok(())
    }

    /// A range vector as the result of the whole query.
    pub(super) fn range_vector(&self, id: NodeId) -> Result<(Vec<Row>, Held<'_>), EvalError> {
        let Some(arg) = self.range_arg(id) else {
            return execution("expected a range vector");
        };
        let arg = RangeArg { whole: true, ..arg };
        let mut held = self.cx.meter.hold();
        let mut rows: Vec<Row> = Vec::new();
        self.stream_ranges(&arg, &mut |labels, drop_name, samples| {
            let labels = if drop_name { labels.without_metadata() } else { labels.clone() };
            // An instant query has one step, and so one window.
            self.windows(&arg, samples, |_, window| {
                held.count(window.times.len() as u64 + 2)?;
                let mut points = self.cx.meter.samples(window.times.len() + 2)?;
                if arg.edges == Edges::Plain {
                    points.times.extend_from_slice(window.times);
                    points.values.extend_from_slice(window.values);
                } else {
                    extended::points(window, |time, value| points.push(time, value));
                }
                if !points.is_empty() {
                    held.borrow(labels.bytes() as u64)?;
                    held.push(&mut rows, Row { labels: labels.clone(), points: Points::of_samples(points) })?;
                }
                Ok(())
            })
        })?;
        rows.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        if rows.windows(2).any(|pair| matches!(pair, [a, b] if a.labels == b.labels)) {
            return execution("vector cannot contain metrics with the same labelset");
        }
        Ok((rows, held))
    }
}
