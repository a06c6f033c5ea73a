//! The interpretation of a query's tree: one function for each kind of node takes the bounds of its operands and gives
//! its own, with the bytes that are alive at the same time. The matches over nodes, functions and operators have no
//! wildcard: a construct without a rule does not compile.
//!
//! The formulas are those of Prometheus' engine, which evaluates bottom-up on the whole grid: an operand is complete
//! before its parent starts and alive until the parent's last step. [`Engine`] says in which respects the others
//! differ.

mod aggregate;
mod answer;
mod binary;
mod engine;
mod function;
mod metricsql;
mod text;
mod value;

use self::{
    engine::{Engine, Order},
    value::{Load, MadeLabels, Operands, Priced, Value, sum, times},
};
use super::{LabelTable, label_table::USUAL_SET_BYTES};
use crate::{
    base::{Kind, LabelSize},
    promql::{
        ast::{Ast, Expr, Node, NodeId, ValueType},
        function::FunctionId,
        shape::{NodeShape, Reads, Shape},
    },
};

/// Evaluator, buffers and goroutines of any request, bytes.
const REQUEST_BYTES: u64 = 64 << 10;
/// A node of the backend's own syntax tree, bytes; its strings are counted one by one.
const NODE_BYTES: u64 = 512;
/// Above this many points, Prometheus 3.x grows a row by append: earlier copies of one row are garbage meanwhile.
const WHOLE_ROW_POINTS: u64 = 5_000;
/// The garbage of a row that grew by append, in rows: each copy is a quarter larger than the one before.
const GROWTH_ROWS: u64 = 4;
/// Points of a window that a function looks at while a raw sample is read and decoded.
const WINDOW_POINTS_A_SAMPLE: u64 = 16;
/// A point of a window while a range function looks at it: a ring of 24 bytes an entry, up to twice as long as needed,
/// and a slice that grew by append.
const WINDOW_POINT_BYTES: u64 = 72;

/// A selector, as the interpretation needs it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaf {
    pub(super) series: u64,
    /// Storage blocks of one series.
    pub(super) blocks: u64,
    /// Raw samples of one series in all of its window.
    pub(super) samples: u64,
    /// The same in the window of one evaluation.
    pub(super) window_samples: u64,
    /// Buckets of its native histograms; 0 for floats.
    pub(super) buckets: u64,
    /// The sizes of its label sets, where they are known.
    pub(super) labels: Option<LabelSize>,
    /// Different values that `count_values` finds, where that is known.
    pub(super) values: Option<u64>,
}

impl Leaf {
    /// Bytes of a label set beyond those of a usual one.
    fn labels_beyond(&self) -> u64 {
        self.labels.map_or(0, |labels| labels.set.saturating_sub(USUAL_SET_BYTES))
    }
}

/// The memory of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestMemory {
    /// The most bytes alive at a time.
    pub(super) bytes: u64,
    /// The most points alive at a time, in an engine that keeps each operand complete.
    pub(super) points: u64,
    /// The work on windows of subqueries, in raw samples that take as long to read.
    pub(super) window_samples: u64,
}

/// How a node goes through its vector operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traversal {
    /// It is a selector, or a range function: windows of one series after the other.
    Windows,
    /// One series after the other.
    EachSeries,
    /// The same, into accumulators for each group.
    Groups,
    /// All series together.
    All,
}

/// Prices a request: `leaves` has one entry for each selector of the shape, and `entry_bytes` are those of an entry of its
/// list, where earlier answers told.
pub(super) fn price(
    shape: &Shape,
    leaves: &[Leaf],
    table: Option<&LabelTable>,
    entry_bytes: Option<u64>,
    kind: Kind,
) -> RequestMemory {
    let engine = Engine::of(kind);
    let selected = leaves.iter().map(|leaf| engine.selected(leaf)).fold(REQUEST_BYTES, u64::saturating_add);
    let ast = match &shape.reads {
        Reads::Query(ast) => ast,
        Reads::Listing(listed) => {
            return RequestMemory {
                bytes: answer::listing(engine, shape, (listed, entry_bytes), leaves, table),
                ..RequestMemory::default()
            };
        }
        Reads::RemoteRead { streamed } => return answer::remote_read(engine, leaves, *streamed),
    };
    let mut interpreter =
        Interpreter { shape, ast, engine, leaves, table, done: Vec::with_capacity(ast.nodes.len()) };
    let window_samples = interpreter.run();
    let root = interpreter.materialised(interpreter.get(ast.root));
    let answer = answer::json(engine, &root.value);
    let tree = times(ast.nodes.len() as u64, NODE_BYTES).saturating_add(ast.text.len() as u64);
    let evaluated = root.peak.bytes.max(root.held.bytes.saturating_add(answer));
    let points = root.peak.points.max(root.held.points);
    RequestMemory { bytes: sum([selected, tree, evaluated]), points, window_samples }
}

/// A node, as [`nodes`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodePrice {
    /// Series that it makes.
    pub(super) series: u64,
    /// Points of all of them.
    pub(super) points: u64,
    /// The most bytes alive at a time until it is done, with the samples read for it.
    pub(super) bytes: u64,
}

/// The nodes of a query, each as [`price`] prices it, in the order of its tree.
pub(super) fn nodes(
    shape: &Shape,
    ast: &Ast,
    leaves: &[Leaf],
    table: Option<&LabelTable>,
    kind: Kind,
) -> Vec<NodePrice> {
    let engine = Engine::of(kind);
    let mut interpreter =
        Interpreter { shape, ast, engine, leaves, table, done: Vec::with_capacity(ast.nodes.len()) };
    interpreter.run();
    // Selectors stand in the order of the text: those of a node are the ones between its ends.
    let mut read = vec![0_u128];
    read.extend(leaves.iter().scan(0, |sum, leaf| {
        *sum += u128::from(engine.selected(leaf));
        Some(*sum)
    }));
    let read_before = |end: u32| {
        let place = shape.selectors.partition_point(|selector| selector.span.start < end);
        read.get(place).copied().unwrap_or(0)
    };
    let price = |(priced, node): (&Priced, &Node)| NodePrice {
        series: priced.value.series,
        points: priced.value.all_points(),
        bytes: u64::try_from(read_before(node.span.end) - read_before(node.span.start))
            .unwrap_or(u64::MAX)
            .saturating_add(priced.peak.bytes.max(priced.held.bytes)),
    };
    interpreter.done.iter().zip(&ast.nodes).map(price).collect()
}

/// Bytes of one selector and its points, without derived values.
pub(super) fn alone(leaf: &Leaf, evaluations: u64, kind: Kind) -> u64 {
    let engine = Engine::of(kind);
    let row = engine.row.saturating_add(engine.slice(evaluations));
    engine.selected(leaf).saturating_add(times(leaf.series, row))
}

struct Interpreter<'a> {
    shape: &'a Shape,
    ast: &'a Ast,
    engine: &'static Engine,
    leaves: &'a [Leaf],
    table: Option<&'a LabelTable>,
    /// The nodes so far: operands come before their operators.
    done: Vec<Priced>,
}

#[cfg(test)]
thread_local! {
    /// Operands that pricing looked up on this thread: its work, without a clock.
    pub(super) static LOOKUPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Interpreter<'_> {
    /// Prices every node; the work on windows of subqueries, in samples.
    fn run(&mut self) -> u64 {
        let mut window_samples = 0_u64;
        for (index, node) in self.ast.nodes.iter().enumerate() {
            let priced = self.node(NodeId(index as u32));
            self.done.push(priced);
            if let Expr::Call { func, args } = &node.expr {
                window_samples = window_samples.saturating_add(self.window_samples(func.id, args));
            }
        }
        window_samples
    }

    fn get(&self, id: NodeId) -> Priced {
        #[cfg(test)]
        LOOKUPS.with(|lookups| lookups.set(lookups.get() + 1));
        self.done.get(id.0 as usize).copied().unwrap_or_default()
    }

    fn value(&self, id: NodeId) -> Value {
        self.get(id).value
    }

    fn shape_of(&self, id: NodeId) -> NodeShape {
        let at = self.shape.nodes.get(id.0 as usize).copied().unwrap_or(NodeShape::NEVER);
        if self.engine.order != Order::InPlace || at.steps == 0 {
            return at;
        }
        // VictoriaMetrics copies the samples of a selector with `@`, and evaluates all that stands above at each step.
        let steps = if at.selector.is_some() { at.steps } else { at.grid };
        NodeShape { steps, copies: at.grid, ..at }
    }

    fn leaf(&self, at: NodeShape) -> Option<Leaf> {
        self.leaves.get(at.selector? as usize).copied()
    }

    fn ty(&self, id: NodeId) -> ValueType {
        self.ast.nodes.get(id.0 as usize).map_or(ValueType::Duration, |node| node.ty)
    }

    /// The literal behind a string argument.
    fn string(&self, id: NodeId) -> &str {
        match self.ast.nodes.get(self.unwrapped(id).0 as usize).map(|node| &node.expr) {
            Some(Expr::String(text)) => text,
            _ => "",
        }
    }

    /// The expression in brackets.
    fn unwrapped(&self, mut id: NodeId) -> NodeId {
        // Operands come first: the index falls.
        while let Some(Expr::Paren(inner)) = self.ast.nodes.get(id.0 as usize).map(|node| &node.expr)
            && *inner < id
        {
            id = *inner;
        }
        id
    }

    fn node(&self, id: NodeId) -> Priced {
        let at = self.shape_of(id);
        if at.steps == 0 {
            return Priced::default();
        }
        let priced = match self.ast.expr(id) {
            Expr::Number(_) => self.produce(Traversal::Windows, Operands::default(), Value::one(at.steps), 0),
            Expr::String(text) => Priced::string(text),
            Expr::Selector(_) => self.selector(at),
            Expr::Matrix { selector, .. } => self.window(*selector),
            Expr::Subquery { expr, .. } => self.subquery(*expr),
            Expr::Call { func, args } if func.id == FunctionId::Unknown => {
                self.unknown(self.ast.text_of(id), args, at.steps)
            }
            Expr::Call { func, args } => self.call(func.id, args, at),
            Expr::Aggregate { op, param, expr, grouping } => {
                self.aggregate(*op, *param, *expr, grouping, at.steps)
            }
            Expr::Binary { op, lhs, rhs, return_bool, matching } => {
                self.binary(*op, (*lhs, *rhs), *return_bool, matching.as_deref(), at.steps)
            }
            Expr::Unary { negative, expr } => self.unary(*negative, *expr),
            Expr::Paren(inner) => self.get(*inner),
            // Parts of durations have no value; the shape never evaluates them.
            Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => Priced::default(),
        };
        self.copied(priced, at)
    }

    fn selector(&self, at: NodeShape) -> Priced {
        // The data labels of `info()` are read by the call.
        let Some(leaf) = self.leaf(at) else { return Priced::default() };
        self.rows_of(leaf, at.steps)
    }

    /// The points of a selector on a grid.
    fn rows_of(&self, leaf: Leaf, steps: u64) -> Priced {
        let value = Value {
            distinct: steps.min(leaf.samples),
            // A hit and the sample before it are objects of their own; repeats share them.
            objects: if leaf.buckets > 0 { steps.min(leaf.samples.saturating_mul(2)) } else { 0 },
            ..self.stored(leaf, steps)
        };
        let unread = Operands { lazy: self.engine.order != Order::Eager, ..Operands::default() };
        self.produce(Traversal::Windows, unread, value, 0)
    }

    fn stored(&self, leaf: Leaf, points: u64) -> Value {
        Value {
            series: leaf.series,
            churn: 1,
            points,
            present: u64::MAX,
            distinct: points,
            domain: leaf.values.unwrap_or(u64::MAX),
            stamped: false,
            labels: self.engine.labels.saturating_add(leaf.labels_beyond()),
            longest: leaf.labels.map_or(self.engine.longest, |labels| labels.longest),
            fresh: self.engine.copies_labels,
            made: MadeLabels::None,
            buckets: leaf.buckets,
            objects: points,
        }
    }

    /// `selector[range]`: its windows are read one by one, by whatever stands above.
    fn window(&self, selector: NodeId) -> Priced {
        let Some(leaf) = self.leaf(self.shape_of(selector)) else { return Priced::default() };
        let value = Value { stamped: true, distinct: leaf.samples, ..self.stored(leaf, leaf.window_samples) };
        let one = times(leaf.window_samples, WINDOW_POINT_BYTES)
            .saturating_add(self.histograms(&Value { series: 2, ..value }));
        Priced { value, held: Load::bytes(one), peak: Load::bytes(one), lazy: true }
    }

    /// `expr[range:step]`: the whole of it, and a counter for each step of its own grid.
    fn subquery(&self, expr: NodeId) -> Priced {
        let inner = self.get(expr);
        let inner = if self.engine.order == Order::Streaming { inner } else { self.materialised(inner) };
        let steps = self.shape_of(expr).copies;
        let own = Load::bytes(match self.engine.order {
            Order::Streaming => times(2, self.engine.slice(steps)),
            Order::Eager | Order::InPlace => times(16, steps),
        });
        let peak = match self.engine.order {
            // The row that the samples are copied from.
            Order::Streaming => inner.peak.plus(own),
            Order::Eager | Order::InPlace => inner.peak.max(inner.held.plus(own)),
        };
        Priced { held: inner.held.plus(own), peak, ..inner }
    }

    /// The work of a function on the windows of subqueries, each of which it looks through as a whole: memory of nested
    /// ones adds up, work multiplies. Measured on Prometheus 3.14: 50 ns for a raw sample, 2 to 8 for a point of a
    /// window, 39 where the window is sorted.
    fn window_samples(&self, id: FunctionId, args: &[NodeId]) -> u64 {
        let points_a_sample = match id {
            FunctionId::QuantileOverTime | FunctionId::MadOverTime => 1,
            _ => WINDOW_POINTS_A_SAMPLE,
        };
        let of = |arg: &NodeId| {
            let at = self.shape_of(self.unwrapped(*arg));
            times(times(self.value(*arg).series, at.steps), at.window) / points_a_sample
        };
        args.iter().map(of).fold(0, u64::saturating_add)
    }

    /// `-expr` works in place, and makes histograms anew.
    fn unary(&self, negative: bool, expr: NodeId) -> Priced {
        let inner = self.get(expr);
        if !negative {
            return inner;
        }
        // VictoriaMetrics reads `0 - expr`, which it does not fold.
        let inner = if self.engine.order == Order::InPlace { self.materialised(inner) } else { inner };
        let Value { points, .. } = inner.value;
        let value = Value { fresh: true, objects: points.min(inner.value.objects), ..inner.value };
        let labels = if inner.value.fresh { 0 } else { value.all_labels() };
        let own =
            Load::bytes(sum([labels, self.histograms(&value), times(value.series, self.engine.taken / 3)]));
        let own = if inner.lazy { Load::default() } else { own };
        Priced { value, held: inner.held.plus(own), peak: inner.peak.max(inner.held.plus(own)), ..inner }
    }

    /// A value that is the same at every step is copied to each of them; its labels and histograms are not.
    fn copied(&self, once: Priced, at: NodeShape) -> Priced {
        if at.copies <= at.steps || once.value.series == 0 {
            return once;
        }
        let present = times(once.value.all_points(), at.copies);
        let value = Value { points: at.copies, present, ..once.value };
        let points = value.all_points();
        if once.lazy {
            let held = Load { points, ..once.held };
            let one_row = Load::bytes(times(2, self.engine.slice(at.copies)));
            return Priced { value, held, peak: once.peak.max(held.plus(one_row)), lazy: true };
        }
        // Grown by append, from one point.
        let row = self.engine.slice(at.copies.saturating_mul(5) / 4).saturating_add(self.engine.row);
        let held = Load { bytes: times(value.series, row), points }
            .plus(Load::bytes(value.own_labels().saturating_add(self.histograms(&value))));
        let garbage = Load::bytes(times(GROWTH_ROWS, self.engine.slice(at.copies)));
        Priced { value, held, peak: once.peak.max(once.held.plus(held).plus(garbage)), lazy: false }
    }

    /// The operands of a node in their order, each as complete as the node needs it.
    fn operands(&self, ids: &[NodeId], traversal: Traversal) -> Operands {
        let as_needed = |id: &NodeId| {
            let operand = self.get(*id);
            match (self.engine.order, traversal) {
                (_, Traversal::Windows) | (Order::InPlace, Traversal::Groups) => operand,
                (Order::Streaming, Traversal::EachSeries | Traversal::Groups) => operand,
                (Order::Eager | Order::InPlace | Order::Streaming, _) => self.materialised(operand),
            }
        };
        ids.iter().fold(Operands::default(), |all, id| all.then(&as_needed(id)))
    }

    /// The same with all of its rows in memory.
    fn materialised(&self, of: Priced) -> Priced {
        if !of.lazy {
            return of;
        }
        let points = of.held.points.max(of.value.all_points());
        let held = Load { bytes: self.rows(&of.value).saturating_add(of.value.own_labels()), points };
        let both = Load { bytes: held.bytes.saturating_add(of.held.bytes), points };
        Priced { held, peak: of.peak.max(both), lazy: false, ..of }
    }

    /// The memory of a node with these operands. `work` is bytes that are alive only while it runs.
    fn produce(&self, traversal: Traversal, operands: Operands, value: Value, work: u64) -> Priced {
        let engine = self.engine;
        let labels = value.own_labels();
        let rows = self.rows(&value).saturating_add(labels);
        let entries = times(engine.taken, operands.series).saturating_add(times(engine.made, value.series));
        let one_row = times(2, engine.slice(value.points));
        // Bytes that stay, bytes beside the operands while it runs, and whether rows are still to be made.
        let (held, running, lazy) = match (engine.order, traversal) {
            (Order::Eager, Traversal::Windows) => (rows, sum([rows, work, self.growth(&value)]), false),
            (Order::Eager, _) => (rows, sum([rows, work, entries, self.growth(&value)]), false),
            (Order::InPlace, Traversal::Windows) if operands.lazy => (operands.held.bytes, one_row, true),
            (Order::InPlace, Traversal::Windows | Traversal::EachSeries) => {
                (rows.max(operands.held.bytes), sum([rows.saturating_sub(operands.held.bytes), work]), false)
            }
            (Order::InPlace, Traversal::Groups) if operands.lazy => {
                // A series goes to one worker: together they hold no more groups than there are series.
                let groups =
                    times(value.series, engine.accumulated / 16).min(operands.series.max(value.series));
                let rows16 = times(groups, times(value.points, 16).saturating_add(engine.row));
                (rows, sum([rows16, labels, rows]), false)
            }
            (Order::InPlace, Traversal::Groups | Traversal::All) => (rows, sum([rows, work, entries]), false),
            (Order::Streaming, Traversal::Windows | Traversal::EachSeries) => {
                (operands.held.bytes, one_row.saturating_add(work), true)
            }
            (Order::Streaming, Traversal::Groups) => {
                let row = times(value.points, engine.accumulated).saturating_add(engine.row);
                let accumulators = sum([times(value.series, row), labels]);
                (accumulators, sum([accumulators, work, entries]), true)
            }
            (Order::Streaming, Traversal::All) => (operands.held.bytes, sum([one_row, work, entries]), true),
        };
        let points = value.all_points();
        let running = Load { bytes: running, points };
        let peak = operands.peak.max(operands.held.plus(running));
        Priced { value, held: Load { bytes: held, points }, peak, lazy }
    }

    /// Rows without their labels.
    fn rows(&self, value: &Value) -> u64 {
        let stamps = if value.stamped { Engine::block_of(times(self.engine.stamp, value.points)) } else { 0 };
        let row = sum([self.engine.row, self.engine.slice(value.points), stamps]);
        times(value.series, row).saturating_add(self.histograms(value))
    }

    fn histograms(&self, value: &Value) -> u64 {
        if value.buckets == 0 {
            return 0;
        }
        times(times(value.series, value.objects), self.engine.object(value.buckets))
    }

    /// Garbage of the one row that is growing.
    const fn growth(&self, value: &Value) -> u64 {
        if value.points > WHOLE_ROW_POINTS { times(GROWTH_ROWS, self.engine.slice(value.points)) } else { 0 }
    }
}
