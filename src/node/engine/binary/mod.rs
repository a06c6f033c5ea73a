//! Binary operators.

mod node;
mod set;
mod vector;

use super::{
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
};
use crate::promql::ast::{BinaryOp, NodeId, ValueType, VectorMatching};
pub(super) use node::{Node, scalar};
use node::{Outcome, apply, is_comparison, note_types};

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
