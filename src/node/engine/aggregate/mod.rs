//! Aggregations. All of them take their input series by series, and hold one accumulator for each group and step.

mod cells;
mod choose;
mod columns;
mod count_values;
mod fold;
mod heap;
mod node;

use super::{
    error::EvalError,
    eval::{Eval, Sink},
};
use crate::promql::ast::AggregateOp;
use cells::{Avg, Cells, Group, Max, Min, Stddev, Stdvar};
use columns::{Counts, Rows, Sums};
pub(super) use node::Node;

pub(super) fn stream(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    match node.op {
        AggregateOp::Sum => fold::stream::<Sums>(eval, node, sink),
        AggregateOp::Avg => fold::stream::<Cells<Avg>>(eval, node, sink),
        AggregateOp::Count => fold::stream::<Counts>(eval, node, sink),
        AggregateOp::Min => fold::stream::<Cells<Min>>(eval, node, sink),
        AggregateOp::Max => fold::stream::<Cells<Max>>(eval, node, sink),
        AggregateOp::Group => fold::stream::<Cells<Group>>(eval, node, sink),
        AggregateOp::Stddev => fold::stream::<Cells<Stddev>>(eval, node, sink),
        AggregateOp::Stdvar => fold::stream::<Cells<Stdvar>>(eval, node, sink),
        AggregateOp::Quantile => fold::stream::<Rows>(eval, node, sink),
        AggregateOp::Topk => choose::extremes(eval, node, true, sink),
        AggregateOp::Bottomk => choose::extremes(eval, node, false, sink),
        AggregateOp::Limitk => choose::first(eval, node, sink),
        AggregateOp::LimitRatio => choose::share(eval, node, sink),
        AggregateOp::CountValues => count_values::stream(eval, node, sink),
    }
}
