//! A binary operation of the tree, and its operator on two numbers.

use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::Eval,
    },
    promql::ast::{BinaryOp, NodeId, Span, VectorMatching},
};

/// A binary operation of the tree.
#[derive(Clone, Copy, Debug)]
pub(in crate::node::engine) struct Node<'n> {
    pub(in crate::node::engine) op: BinaryOp,
    pub(in crate::node::engine) lhs: NodeId,
    pub(in crate::node::engine) rhs: NodeId,
    pub(in crate::node::engine) return_bool: bool,
    pub(in crate::node::engine) matching: Option<&'n VectorMatching>,
    pub(in crate::node::engine) span: Span,
}

pub(super) fn note_types(eval: &Eval<'_>, node: &Node<'_>) {
    let op = if node.op == BinaryOp::TrimUpper { "</" } else { ">/" };
    let text = "incompatible sample types encountered for binary operator";
    eval.info(node.span, format!("{text} {op:?}: float {op} float"));
}

pub(super) fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(op, Eq | Ne | Gt | Lt | Ge | Le)
}

/// The result of an operator on two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Value(f64),
    Holds(bool),
    /// The operator is not about floats.
    Untyped,
}

pub(super) fn apply(op: BinaryOp, l: f64, r: f64) -> Outcome {
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
pub(in crate::node::engine) fn scalar(op: BinaryOp, l: f64, r: f64) -> Result<f64, EvalError> {
    match apply(op, l, r) {
        Outcome::Value(value) => Ok(value),
        Outcome::Holds(holds) => Ok(f64::from(u8::from(holds))),
        Outcome::Untyped => execution("the operator is not allowed for scalars"),
    }
}
