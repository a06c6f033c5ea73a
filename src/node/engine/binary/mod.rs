//! Binary operators.

mod set;
mod vector;

use super::{
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
};
use crate::promql::ast::{BinaryOp, NodeId, Span, ValueType, VectorMatching};

/// A binary operation of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'n> {
    pub(super) op: BinaryOp,
    pub(super) lhs: NodeId,
    pub(super) rhs: NodeId,
    pub(super) return_bool: bool,
    pub(super) matching: Option<&'n VectorMatching>,
    pub(super) span: Span,
}

/// An operation of which one side at least is an instant vector.
pub(super) fn stream(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    match (eval.ty(node.lhs), eval.ty(node.rhs)) {
        (ValueType::Vector, ValueType::Vector) => {
            let default = VectorMatching::default();
            let matching = node.matching.unwrap_or(&default);
            match node.op {
                BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => set::stream(eval, node, matching, sink),
                _ => vector::stream(eval, node, matching, sink),
            }
        }
        (ValueType::Vector, ValueType::Scalar) => with_scalar(eval, node, node.lhs, node.rhs, false, sink),
        (ValueType::Scalar, ValueType::Vector) => with_scalar(eval, node, node.rhs, node.lhs, true, sink),
        _ => execution("a binary operator needs instant vectors or scalars"),
    }
}

/// `swapped`: the scalar stands on the left.
fn with_scalar(
    eval: &Eval<'_>,
    node: &Node<'_>,
    vector: NodeId,
    scalar: NodeId,
    swapped: bool,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let scalars = eval.scalars(scalar)?;
    eval.stream(vector, &mut |series| {
        series.drop_name |= node.return_bool || !is_comparison(node.op);
        let mut untyped = false;
        series.map(|step, value| {
            let scalar = *scalars.get(step)?;
            let (l, r) = if swapped { (scalar, value) } else { (value, scalar) };
            match apply(node.op, l, r) {
                Outcome::Value(v) => Some(v),
                Outcome::Holds(holds) if node.return_bool => Some(f64::from(u8::from(holds))),
                // The vector's value passes the filter, whichever side it is on.
                Outcome::Holds(holds) => holds.then_some(value),
                Outcome::Untyped => {
                    untyped = true;
                    None
                }
            }
        });
        if untyped {
            note_types(eval, node);
        }
        emit(series, sink)
    })
}

fn note_types(eval: &Eval<'_>, node: &Node<'_>) {
    let op = if node.op == BinaryOp::TrimUpper { "</" } else { ">/" };
    let text = "incompatible sample types encountered for binary operator";
    eval.info(node.span, format!("{text} {op:?}: float {op} float"));
}

fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(op, Eq | Ne | Gt | Lt | Ge | Le)
}

/// What an operator says about two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Value(f64),
    Holds(bool),
    /// The operator is not about floats.
    Untyped,
}

fn apply(op: BinaryOp, l: f64, r: f64) -> Outcome {
    match op {
        BinaryOp::Add => Outcome::Value(l + r),
        BinaryOp::Sub => Outcome::Value(l - r),
        BinaryOp::Mul => Outcome::Value(l * r),
        BinaryOp::Div => Outcome::Value(l / r),
        BinaryOp::Mod => Outcome::Value(l % r),
        BinaryOp::Pow => Outcome::Value(l.powf(r)),
        BinaryOp::Atan2 => Outcome::Value(l.atan2(r)),
        BinaryOp::Eq => Outcome::Holds(l == r),
        BinaryOp::Ne => Outcome::Holds(l != r),
        BinaryOp::Gt => Outcome::Holds(l > r),
        BinaryOp::Lt => Outcome::Holds(l < r),
        BinaryOp::Ge => Outcome::Holds(l >= r),
        BinaryOp::Le => Outcome::Holds(l <= r),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => Outcome::Untyped,
        BinaryOp::TrimUpper | BinaryOp::TrimLower => Outcome::Untyped,
    }
}

/// An operation on two scalars.
pub(super) fn scalar(op: BinaryOp, l: f64, r: f64) -> Result<f64, EvalError> {
    match apply(op, l, r) {
        Outcome::Value(value) => Ok(value),
        Outcome::Holds(holds) => Ok(f64::from(u8::from(holds))),
        Outcome::Untyped => execution("the operator is not allowed for scalars"),
    }
}
