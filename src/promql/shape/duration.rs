//! Durations that the query computes from its own step and range.

use crate::{
    base::time::EvalTimes,
    promql::ast::{Ast, BinaryOp, DurationExpr, Expr, NodeId},
};

/// The values of a tree's number-like nodes, in seconds where they are durations; NaN for everything else.
pub(super) struct Numbers(Vec<f64>);

impl Numbers {
    /// One pass in index order: operands come before their operators.
    pub(super) fn of(ast: &Ast, times: EvalTimes) -> Self {
        let step = times.step as f64 / 1e3;
        let range = times.end.saturating_sub(times.start).max(0) as f64 / 1e3;
        let mut values: Vec<f64> = Vec::with_capacity(ast.nodes.len());
        for node in &ast.nodes {
            let get = |id: &NodeId| values.get(id.0 as usize).copied().unwrap_or(f64::NAN);
            values.push(match &node.expr {
                Expr::Number(n) => *n,
                Expr::DurationStep => step,
                Expr::DurationRange => range,
                Expr::DurationMinMax { max, a, b } => {
                    let (a, b) = (get(a), get(b));
                    if *max { a.max(b) } else { a.min(b) }
                }
                Expr::Paren(inner) | Expr::Unary { negative: false, expr: inner } => get(inner),
                Expr::Unary { negative: true, expr } => -get(expr),
                Expr::Binary { op, lhs, rhs, .. } => arithmetic(*op, get(lhs), get(rhs)),
                _ => f64::NAN,
            });
        }
        Self(values)
    }

    /// The value of a node, when it is a number.
    pub(super) fn get(&self, id: NodeId) -> Option<f64> {
        self.0.get(id.0 as usize).copied().filter(|n| !n.is_nan())
    }

    /// Milliseconds of a duration, possibly negative; 0 when it does not compute.
    pub(super) fn millis(&self, duration: &DurationExpr) -> i64 {
        match duration {
            DurationExpr::Literal(ms) => *ms,
            // A cast from float saturates, and NaN was sorted out by `get`.
            DurationExpr::Computed(id) => self.get(*id).map_or(0, |seconds| (seconds * 1e3).round() as i64),
        }
    }

    /// Milliseconds of a range or a step: never negative.
    pub(super) fn span(&self, duration: &DurationExpr) -> u64 {
        self.millis(duration).max(0) as u64
    }
}

/// The value of an operator over two numbers in a duration; NaN for one that is none of arithmetic.
pub(in crate::promql) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        _ => f64::NAN,
    }
}
