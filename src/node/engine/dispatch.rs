//! From the kind of a node to the operator that evaluates it.

use super::{
    aggregate, binary,
    buffers::Numbers,
    error::{EvalError, execution},
    eval::{Eval, Operators, Sink},
    functions::{self, Call},
};
use crate::promql::ast::{Expr, NodeId};

/// All operators.
pub(super) const OPERATORS: Operators = Operators { stream, scalars };

fn stream(eval: &Eval<'_>, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
    match eval.expr(id) {
        Expr::Selector(selector) => eval.select_instant(id, selector, sink),
        Expr::Paren(inner) => eval.stream(*inner, sink),
        Expr::Unary { negative, expr } => eval.stream(*expr, &mut |series| {
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
                span: eval.cx.ast.node(id).span,
            };
            binary::stream(eval, &node, sink)
        }
        Expr::Aggregate { op, param, expr, grouping } => {
            let node = aggregate::Node { op: *op, param: *param, expr: *expr, grouping };
            aggregate::stream(eval, &node, sink)
        }
        Expr::Call { func, args } => functions::stream(eval, &Call { id, func: func.id, args }, sink),
        _ => execution("unexpected expression where an instant vector is needed"),
    }
}

fn scalars(eval: &Eval<'_>, id: NodeId) -> Result<Numbers, EvalError> {
    match eval.expr(id) {
        Expr::Number(value) => eval.cx.meter.column_of(*value, eval.grid.count),
        Expr::Paren(inner) => eval.scalars(*inner),
        Expr::Unary { negative, expr } => {
            let mut values = eval.scalars(*expr)?;
            if *negative {
                values.iter_mut().for_each(|value| *value = -*value);
            }
            Ok(values)
        }
        Expr::Binary { op, lhs, rhs, .. } => {
            let mut left = eval.scalars(*lhs)?;
            let right = eval.scalars(*rhs)?;
            for (l, r) in left.iter_mut().zip(right.iter()) {
                *l = binary::scalar(*op, *l, *r)?;
            }
            Ok(left)
        }
        Expr::Call { func, args } => functions::scalars(eval, &Call { id, func: func.id, args }),
        _ => execution("unexpected expression where a scalar is needed"),
    }
}
