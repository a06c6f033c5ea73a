//! The walk over the tree.

use parking_lot::{Mutex, MutexGuard};

use super::{
    annotations::Annotations,
    buffers::Numbers,
    error::{EvalError, execution},
    grid::Grid,
    meter::{Held, Meter},
    options::Options,
    plan::{Plan, Planned, unparen},
    value::{Matrix, Merged, Point, Points, Row, Series, Value},
    workers::{Part, Workers},
};
use crate::{
    base::time::EvalTimes,
    node::pool::Loan,
    node::storage::Storage,
    promql::ast::{Ast, Expr, NodeId, Span, ValueType},
    series::Labels,
};

/// Takes the series of a stream one by one. A series that arrives has a value at one step at least; the sink may take
/// its buffers.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&mut Series) -> Result<(), EvalError>;

/// The operators, which the walk calls and which call it: as values, so that neither file imports the other.
#[derive(Clone, Copy)]
pub(super) struct Operators {
    /// The series of a node that is an instant vector, at each step on its own.
    pub(super) stream: fn(&Eval<'_>, NodeId, Sink<'_>) -> Result<(), EvalError>,
    /// The values of a node that is a scalar.
    pub(super) scalars: fn(&Eval<'_>, NodeId) -> Result<Numbers, EvalError>,
}

/// The state that all evaluators of one query share.
pub(super) struct Context<'a> {
    pub(super) ast: &'a Ast,
    pub(super) plan: Plan,
    pub(super) times: EvalTimes,
    pub(super) storage: &'a dyn Storage,
    pub(super) lookback_ms: i64,
    pub(super) meter: Meter<'a>,
    pub(super) workers: Workers,
    operators: Operators,
    annotations: Mutex<Annotations>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        ast: &'a Ast,
        times: EvalTimes,
        storage: &'a dyn Storage,
        options: &Options,
        cancel: &'a std::sync::atomic::AtomicBool,
        operators: Operators,
    ) -> Result<Self, EvalError> {
        Ok(Self {
            ast,
            plan: Plan::new(ast, times, options.subquery_step_ms)?,
            times,
            storage,
            lookback_ms: options.lookback_ms as i64,
            meter: Meter::new(options, cancel),
            workers: options.workers.clone(),
            operators,
            annotations: Mutex::default(),
        })
    }

    pub(super) fn annotations(&self) -> MutexGuard<'_, Annotations> {
        self.annotations.lock()
    }
}

/// Evaluates nodes at the steps of one grid; a subquery has a grid of its own.
#[derive(Clone)]
pub(super) struct Eval<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) grid: Grid,
    /// The part of the only selector below that is read; without it, every selector is read whole.
    pub(super) part: Option<Part<'a>>,
    /// The weight of a step's samples in [`Usage::queryable`](super::Usage): one for each step at which the value is
    /// repeated, and 0 inside a subquery, whose windows count.
    pub(super) weight: u64,
}

impl<'a> Eval<'a> {
    pub(super) fn new(cx: &'a Context<'a>) -> Self {
        Self { cx, grid: Grid::of(cx.times), part: None, weight: 1 }
    }

    pub(super) fn with_grid(&self, grid: Grid) -> Self {
        Self { grid, ..self.clone() }
    }

    pub(super) fn expr(&self, id: NodeId) -> &'a Expr {
        self.cx.ast.expr(id)
    }

    pub(super) fn planned(&self, id: NodeId) -> Planned {
        self.cx.plan.get(id)
    }

    pub(super) fn unparen(&self, id: NodeId) -> NodeId {
        unparen(self.cx.ast, id)
    }

    /// Where an argument stands, without its parentheses.
    pub(super) fn span(&self, id: NodeId) -> Span {
        self.cx.ast.node(self.unparen(id)).span
    }

    pub(super) fn ty(&self, id: NodeId) -> ValueType {
        self.cx.ast.node(id).ty
    }

    pub(super) fn string(&self, id: NodeId) -> Result<&'a str, EvalError> {
        match self.expr(self.unparen(id)) {
            Expr::String(text) => Ok(text),
            _ => execution("expected a string literal"),
        }
    }

    pub(super) fn warn(&self, span: Span, text: impl Into<String>) {
        self.cx.annotations().warn(span, text);
    }

    pub(super) fn info(&self, span: Span, text: impl Into<String>) {
        self.cx.annotations().info(span, text);
    }

    /// The row of values that every operator works on; counted before anything as long as the grid is leased.
    fn frame(&self) -> Result<Held<'a>, EvalError> {
        self.cx.meter.check()?;
        let mut held = self.cx.meter.hold();
        held.count(self.grid.count as u64)?;
        Ok(held)
    }

    /// Counts values that steps saw.
    pub(super) fn saw(&self, values: u64) {
        self.cx.meter.saw(values.saturating_mul(self.weight));
    }

    /// The same at the first step only, whose values stand for those of all.
    fn once(&self) -> Self {
        Self {
            weight: self.weight.saturating_mul(self.grid.count as u64),
            ..self.with_grid(self.grid.first())
        }
    }

    /// A series without a value at any step.
    pub(super) fn empty_row(&self, labels: Labels, drop_name: bool) -> Result<Series, EvalError> {
        Series::empty_row(labels, drop_name, self.grid.count, &self.cx.meter)
    }

    /// Whether a node is worth evaluating once and repeating.
    pub(super) fn repeats(&self, id: NodeId) -> bool {
        self.grid.count > 1 && self.planned(id).invariant
    }

    /// The series of an instant vector (or the one of a scalar).
    pub(super) fn stream(&self, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
        if self.grid.count == 0 {
            return Ok(());
        }
        let _frame = self.frame()?;
        if self.ty(id) == ValueType::Scalar {
            let values = self.scalars(id)?;
            return sink(&mut Series { labels: Labels::default(), drop_name: false, values });
        }
        if self.repeats(id) {
            return self.repeat(id, sink);
        }
        (self.cx.operators.stream)(self, id, sink)
    }

    fn repeat(&self, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
        self.once().stream(id, &mut |series| {
            if let Some(value) = series.at(0) {
                self.cx.meter.renew(&mut series.values, self.grid.count)?;
                series.values.resize(self.grid.count, value);
                sink(series)?;
            }
            Ok(())
        })
    }

    /// All series of an instant vector.
    pub(super) fn collect(&self, id: NodeId) -> Result<Matrix<'a>, EvalError> {
        let mut matrix = Matrix { series: Vec::new(), held: self.cx.meter.hold() };
        self.stream_ahead(id, &mut |series| matrix.push(series))?;
        Ok(matrix)
    }

    /// The values of a scalar, one a step.
    pub(super) fn scalars(&self, id: NodeId) -> Result<Numbers, EvalError> {
        let steps = self.grid.count;
        // Counted while it is worked out.
        let _frame = self.frame()?;
        let meter = &self.cx.meter;
        if self.repeats(id) {
            let once = self.once().scalars(id)?;
            return meter.column_of(once.first().copied().unwrap_or(f64::NAN), steps);
        }
        (self.cx.operators.scalars)(self, id)
    }

    /// The value of the whole query, and the memory that it takes beside its rows' own.
    pub(super) fn value(&self, root: NodeId, instant: bool) -> Result<(Value, Option<Loan>), EvalError> {
        let inner = self.unparen(root);
        match self.ty(inner) {
            ValueType::String => Ok((Value::String(self.string(inner)?.into()), None)),
            ValueType::Scalar if instant => {
                let value = self.scalars(inner)?.first().copied().unwrap_or(f64::NAN);
                Ok((Value::Scalar(value), None))
            }
            ValueType::Matrix => {
                let (rows, held) = self.range_vector(inner)?;
                Ok((Value::Matrix(rows), held.into_loan()))
            }
            ValueType::Scalar | ValueType::Vector => {
                let Matrix { series, mut held } = self.named(inner)?;
                // The answer's list takes the place of the series', and a set of labels far larger than others is
                // written in one piece, with every byte escaped at the worst.
                let largest = series.iter().map(|series| series.labels.bytes()).max().unwrap_or_default();
                let list = series.len() * size_of::<Row>().max(size_of::<Point>());
                held.borrow((list + if largest > LABELS_LARGE { largest * ESCAPED } else { 0 }) as u64)?;
                let value = if instant { instant_vector(series) } else { self.matrix(series) };
                Ok((value, held.into_loan()))
            }
            ValueType::Duration => execution("a duration is not a query"),
        }
    }

    /// The series of the whole query with the names dropped that are to be dropped.
    fn named(&self, root: NodeId) -> Result<Matrix<'a>, EvalError> {
        let matrix = self.collect(root)?;
        if matrix.series.iter().all(|series| !series.drop_name) {
            return Ok(matrix);
        }
        let Matrix { series, mut held } = matrix;
        let mut merged = Merged::new(self.cx.meter.hold(), self.grid.count);
        for mut series in series {
            self.cx.meter.check()?;
            held.let_go(&series);
            if series.drop_name {
                series.labels = series.labels.without_metadata();
                series.drop_name = false;
            }
            merged.add(&mut series)?;
        }
        drop(held);
        Ok(merged.matrix)
    }

    fn matrix(&self, series: Vec<Series>) -> Value {
        let row = |series: Series| Row {
            labels: series.labels,
            points: Points::of_steps(self.grid, series.values),
        };
        let mut rows: Vec<Row> = series.into_iter().map(row).collect();
        rows.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Value::Matrix(rows)
    }
}

/// Labels of more bytes than this are more than a piece of an answer has room for.
const LABELS_LARGE: usize = 16 << 10;
/// Bytes that a byte of text takes in JSON at the worst: `\u0001`.
const ESCAPED: usize = 6;

fn instant_vector(series: Vec<Series>) -> Value {
    let mut points = Vec::with_capacity(series.len());
    points.extend(series.into_iter().filter_map(|series| {
        let value = series.at(0)?;
        Some(Point { labels: series.labels, value })
    }));
    Value::Vector(points)
}

/// Sends a series on, if it has a value at any step.
pub(super) fn emit(series: &mut Series, sink: Sink<'_>) -> Result<(), EvalError> {
    if series.is_empty() { Ok(()) } else { sink(series) }
}

/// Sends collected series on, without those that have no value left.
pub(super) fn emit_all(mut matrix: Matrix<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    matrix.series.iter_mut().try_for_each(|series| emit(series, sink))
}
