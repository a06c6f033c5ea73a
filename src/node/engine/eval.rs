//! The walk over the tree.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Options, aggregate,
    annotations::Annotations,
    binary,
    error::{EvalError, execution},
    functions,
    grid::Grid,
    labels::Labels,
    meter::{Held, Meter},
    parallel::{Part, Workers},
    plan::{Plan, Planned, unparen},
    storage::Storage,
    value::{Matrix, Merged, Point, Row, Series, Value, present},
};
use crate::{
    base::time::EvalTimes,
    promql::ast::{Ast, Expr, NodeId, Span, ValueType},
};

/// Takes the series of a stream one by one. A series that arrives has a value at one step at least; the sink may take
/// its buffers.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&mut Series) -> Result<(), EvalError>;

/// What all evaluators of one query share.
pub(super) struct Context<'a> {
    pub(super) ast: &'a Ast,
    pub(super) plan: Plan,
    pub(super) times: EvalTimes,
    pub(super) storage: &'a dyn Storage,
    pub(super) lookback_ms: i64,
    pub(super) meter: Meter<'a>,
    pub(super) workers: Workers,
    annotations: Mutex<Annotations>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        ast: &'a Ast,
        times: EvalTimes,
        storage: &'a dyn Storage,
        options: &Options,
        cancel: &'a std::sync::atomic::AtomicBool,
    ) -> Result<Self, EvalError> {
        Ok(Self {
            ast,
            plan: Plan::new(ast, times, options.subquery_step_ms)?,
            times,
            storage,
            lookback_ms: options.lookback_ms as i64,
            meter: Meter::new(options.limits, cancel),
            workers: options.workers.clone(),
            annotations: Mutex::default(),
        })
    }

    pub(super) fn annotations(&self) -> MutexGuard<'_, Annotations> {
        // Each note is added whole or not at all.
        self.annotations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evaluates nodes at the steps of one grid; a subquery has a grid of its own.
#[derive(Clone)]
pub(super) struct Eval<'a> {
    pub(super) cx: &'a Context<'a>,
    pub(super) grid: Grid,
    /// What of the only selector below is read; all of every one if there is none.
    pub(super) part: Option<Part<'a>>,
}

impl<'a> Eval<'a> {
    pub(super) fn new(cx: &'a Context<'a>) -> Self {
        Self { cx, grid: Grid::of(cx.times), part: None }
    }

    pub(super) fn with_grid(&self, grid: Grid) -> Self {
        Self { cx: self.cx, grid, part: self.part.clone() }
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

    /// The row of values that every operator works on; asked for before anything as long as the grid is allocated.
    fn frame(&self) -> Result<Held<'a>, EvalError> {
        self.cx.meter.check()?;
        let mut held = self.cx.meter.hold();
        held.grow(self.grid.count as u64)?;
        Ok(held)
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
        match self.expr(id) {
            Expr::Selector(selector) => self.select_instant(id, selector, sink),
            Expr::Paren(inner) => self.stream(*inner, sink),
            Expr::Unary { negative, expr } => self.stream(*expr, &mut |series| {
                if *negative {
                    series.drop_name = true;
                    series.map(|_, value| Some(-value));
                }
                sink(series)
            }),
            Expr::Binary { op, lhs, rhs, return_bool, matching } => {
                let node = binary::Node {
                    op: *op,
                    lhs: *lhs,
                    rhs: *rhs,
                    return_bool: *return_bool,
                    matching: matching.as_deref(),
                    span: self.cx.ast.node(id).span,
                };
                binary::stream(self, &node, sink)
            }
            Expr::Aggregate { op, param, expr, grouping } => aggregate::stream(
                self,
                &aggregate::Node { op: *op, param: *param, expr: *expr, grouping },
                sink,
            ),
            Expr::Call { func, args } => functions::stream(self, id, func.name, args, sink),
            _ => execution("unexpected expression where an instant vector is needed"),
        }
    }

    fn repeat(&self, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
        self.with_grid(self.grid.first()).stream(id, &mut |series| {
            if let Some(value) = series.at(0) {
                series.values.clear();
                series.values.resize(self.grid.count, value);
                sink(series)?;
            }
            Ok(())
        })
    }

    /// All series of an instant vector.
    pub(super) fn collect(&self, id: NodeId) -> Result<Matrix<'a>, EvalError> {
        let parts = self.in_parts(id, |eval| {
            let mut matrix = Matrix { series: Vec::new(), held: eval.cx.meter.hold() };
            eval.stream(id, &mut |series| {
                matrix.held.grow(series.values.len() as u64)?;
                matrix.series.push(Series {
                    labels: series.labels.clone(),
                    drop_name: series.drop_name,
                    values: std::mem::take(&mut series.values),
                });
                Ok(())
            })?;
            Ok(matrix)
        })?;
        let empty = Matrix { series: Vec::new(), held: self.cx.meter.hold() };
        Ok(parts.into_iter().reduce(Matrix::and).unwrap_or(empty))
    }

    /// The values of a scalar, one a step.
    pub(super) fn scalars(&self, id: NodeId) -> Result<Vec<f64>, EvalError> {
        let _frame = self.frame()?;
        if self.repeats(id) {
            let once = self.with_grid(self.grid.first()).scalars(id)?;
            return Ok(vec![once.first().copied().unwrap_or(f64::NAN); self.grid.count]);
        }
        match self.expr(id) {
            Expr::Number(value) => Ok(vec![*value; self.grid.count]),
            Expr::Paren(inner) => self.scalars(*inner),
            Expr::Unary { negative, expr } => {
                let mut values = self.scalars(*expr)?;
                if *negative {
                    for value in &mut values {
                        *value = -*value;
                    }
                }
                Ok(values)
            }
            Expr::Binary { op, lhs, rhs, .. } => {
                let mut left = self.scalars(*lhs)?;
                let right = self.scalars(*rhs)?;
                for (l, r) in left.iter_mut().zip(right) {
                    *l = binary::scalar(*op, *l, r)?;
                }
                Ok(left)
            }
            Expr::Call { func, args } => functions::scalars(self, func.name, args),
            _ => execution("unexpected expression where a scalar is needed"),
        }
    }

    /// The value of the whole query.
    pub(super) fn value(&self, root: NodeId, instant: bool) -> Result<Value, EvalError> {
        let inner = self.unparen(root);
        match self.ty(inner) {
            ValueType::String => Ok(Value::String(self.string(inner)?.into())),
            ValueType::Scalar if instant => {
                Ok(Value::Scalar(self.scalars(inner)?.first().copied().unwrap_or(f64::NAN)))
            }
            ValueType::Matrix => self.range_vector(inner).map(Value::Matrix),
            ValueType::Scalar | ValueType::Vector => {
                let matrix = self.named(inner)?;
                if instant { Ok(instant_vector(matrix)) } else { Ok(self.matrix(matrix)) }
            }
            ValueType::Duration => execution("a duration is not a query"),
        }
    }

    /// The series of the whole query with the names dropped that are to be dropped.
    fn named(&self, root: NodeId) -> Result<Matrix<'a>, EvalError> {
        let matrix = self.collect(root)?;
        let mut merged = Merged::new(matrix.held, self.grid.count);
        for mut series in matrix.series {
            self.cx.meter.check()?;
            if series.drop_name {
                series.labels = series.labels.without_metadata();
                series.drop_name = false;
            }
            merged.add_held(&mut series)?;
        }
        Ok(merged.matrix)
    }

    fn matrix(&self, matrix: Matrix<'_>) -> Value {
        let rows = matrix.series.into_iter().map(|series| {
            let points = self.grid.times().zip(series.values);
            let points = points.filter_map(|(time, value)| Some((time, present(value)?)));
            Row { labels: series.labels, points: points.collect() }
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Value::Matrix(rows)
    }
}

fn instant_vector(matrix: Matrix<'_>) -> Value {
    let points = matrix.series.into_iter().filter_map(|series| {
        let value = series.at(0)?;
        Some(Point { labels: series.labels, value })
    });
    Value::Vector(points.collect())
}

/// Sends a series on, if it has a value at any step.
pub(super) fn emit(series: &mut Series, sink: Sink<'_>) -> Result<(), EvalError> {
    if series.is_empty() { Ok(()) } else { sink(series) }
}

/// Sends collected series on, without those that have no value left.
pub(super) fn emit_all(mut matrix: Matrix<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    matrix.series.iter_mut().try_for_each(|series| emit(series, sink))
}
