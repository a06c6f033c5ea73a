//! Aggregations. All of them take their input series by series; what they hold is one accumulator a group and step.

mod choose;
mod count_values;
mod fold;

use std::collections::HashMap;

use super::{
    error::EvalError,
    eval::{Eval, Sink},
    labels::Labels,
};
use crate::promql::ast::{AggregateOp, Grouping, NodeId};

/// An aggregation of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'n> {
    pub(super) op: AggregateOp,
    pub(super) param: Option<NodeId>,
    pub(super) expr: NodeId,
    pub(super) grouping: &'n Grouping,
}

pub(super) fn stream(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    match node.op {
        AggregateOp::Sum => fold::stream::<fold::Sum>(eval, node, sink),
        AggregateOp::Avg => fold::stream::<fold::Avg>(eval, node, sink),
        AggregateOp::Count => fold::stream::<fold::Count>(eval, node, sink),
        AggregateOp::Min => fold::stream::<fold::Min>(eval, node, sink),
        AggregateOp::Max => fold::stream::<fold::Max>(eval, node, sink),
        AggregateOp::Group => fold::stream::<fold::Group>(eval, node, sink),
        AggregateOp::Stddev => fold::stream::<fold::Stddev>(eval, node, sink),
        AggregateOp::Stdvar => fold::stream::<fold::Stdvar>(eval, node, sink),
        AggregateOp::Quantile => fold::stream::<fold::Quantile>(eval, node, sink),
        AggregateOp::Topk => choose::extremes(eval, node, true, sink),
        AggregateOp::Bottomk => choose::extremes(eval, node, false, sink),
        AggregateOp::Limitk => choose::first(eval, node, sink),
        AggregateOp::LimitRatio => choose::share(eval, node, sink),
        AggregateOp::CountValues => count_values::stream(eval, node, sink),
    }
}

/// The labels of the group that a series belongs to.
fn group_of(grouping: &Grouping, labels: &Labels) -> Labels {
    if grouping.without { labels.except(&grouping.labels) } else { labels.only(&grouping.labels) }
}

/// Numbers groups in the order in which they appear.
#[derive(Debug, Default)]
struct Groups {
    index: HashMap<Labels, usize>,
}

impl Groups {
    /// The number of a group, and whether it is new.
    fn number(&mut self, labels: Labels) -> (usize, bool) {
        let next = self.index.len();
        let number = *self.index.entry(labels).or_insert(next);
        (number, number == next)
    }
}
