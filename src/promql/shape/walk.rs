//! The walk from the root down: parents come after their children in the arena, so one pass in falling index order
//! hands every node its context without recursion.

use std::sync::Arc;

use super::{
    DEFAULT_SUBQUERY_STEP_MS, NodeShape, Output, Reads, Selection, SelectorShape, Shape, duration::Numbers,
    invariant, mark_same,
};
use crate::{
    base::{TimeRange, time::EvalTimes},
    promql::{
        ast::{
            AggregateOp, Ast, At, BinaryOp, DurationExpr, Edges, Expr, Function, Group, Grouping, MatchOp,
            Matcher, NodeId, Selector, ValueType, VectorMatching,
        },
        function::FunctionId,
        matchers::BUCKET,
    },
    series::METRIC_NAME,
};

/// The metric that `info()` reads when its data label selector names none.
const INFO_METRIC: &str = "target_info";

/// The times at which a node is evaluated.
#[derive(Clone, Copy)]
struct Context {
    /// Earliest evaluation, milliseconds.
    first: i64,
    /// Latest evaluation, milliseconds.
    last: i64,
    evaluations: u64,
    /// Steps of the query or subquery around, also where it is evaluated once.
    grid: u64,
    /// Part of something that is evaluated once, and copied as a whole.
    once: bool,
    output: Output,
    /// A function of native histograms stands above, and nothing between that would make floats of them.
    histograms: bool,
    /// Range of the `[…]` directly around, milliseconds.
    range: Option<u64>,
    /// Milliseconds that the subqueries around reach back.
    reach: u64,
    /// Index among the shapes of the `info()` read whose first argument this is part of.
    info: Option<usize>,
    /// The data label selector of `info()`: describes the implied read, is none of its own.
    info_data: bool,
}

struct Walk<'a> {
    ast: &'a Arc<Ast>,
    times: EvalTimes,
    lookback: u64,
    numbers: Numbers,
    invariants: Vec<bool>,
    contexts: Vec<Option<Context>>,
    nodes: Vec<NodeShape>,
    /// In falling order of nodes.
    selectors: Vec<SelectorShape>,
    /// First and last evaluation of the whole query as each selector sees them, after `@` and `offset`.
    evaluated: Option<TimeRange>,
    /// The longest that one evaluation reaches back, milliseconds.
    reach: u64,
    functions: Vec<&'static str>,
}

pub(super) fn shape(ast: &Arc<Ast>, times: EvalTimes, lookback: u64) -> Shape {
    let mut walk = Walk {
        ast,
        times,
        lookback,
        numbers: Numbers::of(ast, times),
        invariants: invariant::invariants(ast),
        contexts: vec![None; ast.nodes.len()],
        nodes: vec![NodeShape::NEVER; ast.nodes.len()],
        selectors: Vec::new(),
        evaluated: None,
        reach: 0,
        functions: Vec::new(),
    };
    let root = Context {
        first: times.start,
        last: times.end.max(times.start),
        evaluations: times.steps(),
        grid: times.steps(),
        once: false,
        output: Output::Same,
        histograms: false,
        range: None,
        reach: 0,
        info: None,
        info_data: false,
    };
    if let Some(slot) = walk.contexts.get_mut(ast.root.0 as usize) {
        *slot = Some(root);
    }
    for index in (0..ast.nodes.len()).rev() {
        if let Some(context) = walk.contexts[index] {
            walk.visit(NodeId(index as u32), context);
        }
    }
    walk.finish()
}

impl Walk<'_> {
    fn finish(mut self) -> Shape {
        self.selectors.sort_by_key(|s| (s.span.start, s.node));
        mark_same(&mut self.selectors);
        for (place, selector) in self.selectors.iter().enumerate() {
            if let Some(node) = self.nodes.get_mut(selector.node.0 as usize) {
                node.selector = u32::try_from(place).ok();
            }
        }
        self.functions.sort_unstable();
        self.functions.dedup();
        let range_ms = self.evaluated.map_or(0, TimeRange::len_ms).max(self.reach);
        let root = self.ast.nodes.get(self.ast.root.0 as usize);
        Shape {
            reads: Reads::Query(Arc::clone(self.ast)),
            nodes: self.nodes,
            steps: self.times.steps(),
            range_seconds: range_ms.div_ceil(1_000),
            functions: self.functions,
            aggregates: self.selectors.iter().all(|s| s.output < Output::Same),
            returns_matrix: root.is_some_and(|n| n.ty == ValueType::Matrix),
            size: self.ast.size,
            selectors: self.selectors,
        }
    }

    /// Gives a child its context. A child that does not come before its parent would be a defect of the tree; it
    /// is left out rather than walked in circles.
    fn give(&mut self, parent: NodeId, child: NodeId, context: Context) {
        if child < parent
            && let Some(slot) = self.contexts.get_mut(child.0 as usize)
        {
            *slot = Some(context);
        }
    }

    /// Writes down the steps on which a node is evaluated, and returns the context of its operands.
    fn enter(&mut self, id: NodeId, context: Context) -> Context {
        let index = id.0 as usize;
        let copied = context.evaluations > 1
            && !context.once
            && self.invariants.get(index).copied().unwrap_or(false)
            && invariant::is_copied(self.ast.expr(id));
        let inner = if copied { Context { evaluations: 1, once: true, ..context } } else { context };
        if let Some(node) = self.nodes.get_mut(index) {
            node.steps = inner.evaluations;
            node.copies = context.evaluations;
            node.grid = context.grid;
            node.number = self.numbers.get(id);
        }
        inner
    }

    fn visit(&mut self, id: NodeId, context: Context) {
        let ast = self.ast;
        let context = self.enter(id, context);
        let plain = Context { range: None, ..context };
        match &ast.node(id).expr {
            Expr::Selector(selector) if context.info_data => self.info_data(selector, context),
            Expr::Selector(selector) => self.selector(id, selector, context),
            Expr::Matrix { selector, range } => {
                let range = Some(self.numbers.span(range));
                self.give(id, *selector, Context { range, ..context });
            }
            Expr::Subquery { expr, range, step, at, offset } => {
                let (inner, window) = self.subquery(plain, range, step.as_ref(), *at, offset.as_ref());
                if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                    node.window = window;
                }
                self.give(id, *expr, inner);
            }
            Expr::Call { func, args } => {
                self.functions.push(func.name);
                self.call(id, func, args, plain);
            }
            Expr::Aggregate { op, param, expr, grouping } => {
                if let Some(param) = param {
                    self.give(id, *param, Context { output: Output::Nothing, histograms: false, ..plain });
                }
                let k = param.and_then(|p| self.numbers.get(p));
                let output = context.output.min(reduced(*op, grouping, k).unwrap_or(Output::Same));
                let by_le = !grouping.without && grouping.labels.iter().any(|label| &**label == BUCKET);
                self.give(id, *expr, Context { output, histograms: context.histograms && !by_le, ..plain });
            }
            Expr::Binary { op, lhs, rhs, matching, .. } => {
                let (left, right) = self.sides(*op, *lhs, *rhs, matching.as_deref());
                let side = |keeps| if keeps { plain.output } else { Output::Nothing };
                self.give(id, *lhs, Context { output: side(left), ..plain });
                self.give(id, *rhs, Context { output: side(right), ..plain });
            }
            Expr::Unary { expr, .. } => self.give(id, *expr, plain),
            Expr::Paren(inner) => self.give(id, *inner, context),
            Expr::Number(_)
            | Expr::String(_)
            | Expr::DurationStep
            | Expr::DurationRange
            | Expr::DurationMinMax { .. } => {}
        }
    }

    fn call(&mut self, id: NodeId, func: &Function, args: &[NodeId], context: Context) {
        use FunctionId::{
            Absent, AbsentOverTime, HistogramAvg, HistogramCount, HistogramFraction, HistogramQuantile,
            HistogramQuantiles, HistogramStddev, HistogramStdvar, HistogramSum, Scalar,
        };
        if func.id == FunctionId::Info {
            return self.info(id, args, context);
        }
        let one = matches!(func.id, Scalar | Absent | AbsentOverTime);
        let output = if one { context.output.min(Output::One) } else { context.output };
        let of_histograms = matches!(
            func.id,
            HistogramAvg
                | HistogramCount
                | HistogramFraction
                | HistogramQuantile
                | HistogramQuantiles
                | HistogramStddev
                | HistogramStdvar
                | HistogramSum
        );
        let histograms = of_histograms || context.histograms;
        for arg in args {
            self.give(id, *arg, Context { output, histograms, ..context });
        }
    }

    /// `info(v, data)` also reads the info metric, wherever and whenever `v` is read.
    fn info(&mut self, id: NodeId, args: &[NodeId], context: Context) {
        let index = self.selectors.len();
        let implied = Selector::new(Vec::new());
        let plain = Context { range: None, output: Output::Nothing, histograms: false, ..context };
        self.push(id, &implied, plain);
        self.info_matchers(index, &[]);
        if let Some(v) = args.first() {
            self.give(id, *v, Context { info: Some(index), range: None, ..context });
        }
        if let Some(data) = args.get(1) {
            self.give(id, *data, Context { info: Some(index), info_data: true, ..plain });
        }
    }

    fn info_data(&mut self, selector: &Selector, context: Context) {
        if let Some(index) = context.info {
            self.info_matchers(index, &selector.matchers);
        }
    }

    fn info_matchers(&mut self, index: usize, data: &[Matcher]) {
        let Some(shape) = self.selectors.get_mut(index) else { return };
        let mut all = data.to_vec();
        if !all.iter().any(|m| &*m.name == METRIC_NAME) {
            all.push(Matcher { name: METRIC_NAME.into(), op: MatchOp::Equal, value: INFO_METRIC.into() });
        }
        let Selection { matchers, match_all, text, .. } = Selection::of(&all);
        (shape.matchers, shape.match_all, shape.text) = (matchers, match_all, text);
    }

    fn selector(&mut self, id: NodeId, selector: &Selector, context: Context) {
        self.push(id, selector, context);
        // The engine reads the info metric with the `@` and the offset of the selector that it describes.
        let Some(index) = context.info else { return };
        let (first, last) = self.moved(context, selector.at, selector.offset.as_ref());
        let instant = window(first, last, self.lookback);
        if let Some(info) = self.selectors.get_mut(index) {
            info.window = info.window.union(instant);
        }
    }

    fn push(&mut self, id: NodeId, selector: &Selector, context: Context) {
        let (first, last) = self.moved(context, selector.at, selector.offset.as_ref());
        let span = context.range.unwrap_or(self.lookback);
        // A subquery begins a millisecond behind its open start.
        let began = if context.reach > 0 { first.saturating_add_unsigned(context.reach - 1) } else { first };
        let evaluated = TimeRange::new(began.min(last), last);
        self.evaluated = Some(self.evaluated.map_or(evaluated, |before| before.union(evaluated)));
        self.reach = self.reach.max(context.reach.saturating_add(context.range.unwrap_or(0)));
        let mut window = window(first, last, span);
        let edge = self.lookback.min(i64::MAX as u64) as i64;
        // Both may take their edge value from before the window, `smoothed` also from behind it.
        if selector.edges != Edges::Plain && context.range.is_some() {
            window.start = window.start.saturating_sub(edge);
        }
        if selector.edges == Edges::Smoothed {
            window.end = window.end.saturating_add(edge);
        }
        let Selection { matchers, match_all, is_classic, text } = selector.selection().clone();
        self.selectors.push(SelectorShape {
            node: id,
            span: self.ast.node(id).span,
            window,
            evaluations: if selector.at.is_some() { 1 } else { context.evaluations },
            window_per_eval_ms: span,
            ranged: context.range.is_some(),
            match_all,
            output: context.output,
            histograms: context.histograms && !is_classic,
            same_as: self.selectors.len(),
            text,
            matchers,
        });
    }

    /// The evaluation times of a context after `@` and `offset`.
    fn moved(&self, context: Context, at: Option<At>, offset: Option<&DurationExpr>) -> (i64, i64) {
        let offset = offset.map_or(0, |o| self.numbers.millis(o));
        let fixed = at.map(|at| match at {
            At::Timestamp(t) => t,
            At::Start => self.times.start,
            At::End => self.times.end,
        });
        let (first, last) = fixed.map_or((context.first, context.last), |t| (t, t));
        (first.saturating_sub(offset), last.saturating_sub(offset))
    }

    /// The grid on which a subquery evaluates its inner expression: absolute multiples of its step over the whole of
    /// `(first - range, last]`; and the steps in one range.
    fn subquery(
        &self,
        outer: Context,
        range: &DurationExpr,
        step: Option<&DurationExpr>,
        at: Option<At>,
        offset: Option<&DurationExpr>,
    ) -> (Context, u64) {
        let step = step.map(|s| self.numbers.span(s)).filter(|s| *s > 0).unwrap_or(DEFAULT_SUBQUERY_STEP_MS);
        let (first, last) = self.moved(outer, at, offset);
        let range = self.numbers.span(range);
        let open = first.saturating_sub_unsigned(range);
        let evaluations = grid(last, step).saturating_sub(grid(open, step)).max(1) as u64;
        let reach = outer.reach.saturating_add(range);
        let first = open.saturating_add(1).min(last);
        (
            Context { first, last, evaluations, grid: evaluations, once: false, reach, ..outer },
            range.div_ceil(step),
        )
    }

    /// Whether the left and the right operand's series can reach the result.
    fn sides(
        &self,
        op: BinaryOp,
        lhs: NodeId,
        rhs: NodeId,
        matching: Option<&VectorMatching>,
    ) -> (bool, bool) {
        let vector =
            |id: NodeId| self.ast.nodes.get(id.0 as usize).is_some_and(|n| n.ty != ValueType::Scalar);
        if !vector(lhs) || !vector(rhs) || op == BinaryOp::Or {
            return (true, true);
        }
        let filled = matching.is_some_and(|m| m.fill_left.is_some() || m.fill_right.is_some());
        if filled {
            return (true, true);
        }
        match matching.map_or(Group::OneToOne, |m| m.group) {
            Group::OneToMany => (false, true),
            // One to one, the result is no larger than either side.
            Group::OneToOne | Group::ManyToOne | Group::ManyToMany => (true, false),
        }
    }
}

/// `(first - span, last]`
fn window(first: i64, last: i64, span: u64) -> TimeRange {
    TimeRange::new(first.saturating_sub_unsigned(span.saturating_sub(1)), last)
}

/// Multiples of `step` up to `t`, counted from the epoch (the differences matter).
fn grid(t: i64, step: u64) -> i64 {
    t.div_euclid(i64::try_from(step).unwrap_or(i64::MAX).max(1))
}

/// The labels that an aggregation keeps; `None` is possibly all.
fn reduced(op: AggregateOp, grouping: &Grouping, param: Option<f64>) -> Option<Output> {
    let ungrouped = grouping.labels.is_empty() && !grouping.without;
    match op {
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
            param.filter(|_| ungrouped).map(|k| Output::Top(k.max(0.0) as u64))
        }
        AggregateOp::LimitRatio => None,
        AggregateOp::CountValues => Some(Output::Grouped),
        _ if ungrouped => Some(Output::One),
        // `without ()` drops nothing but the name.
        _ if grouping.labels.is_empty() => None,
        _ => Some(Output::Grouped),
    }
}
