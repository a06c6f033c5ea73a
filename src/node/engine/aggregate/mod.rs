//! Aggregations. All of them take their input series by series; what they hold is one accumulator a group and step.

mod cells;
mod choose;
mod columns;
mod count_values;
mod fold;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
};

use smallvec::SmallVec;

use super::{
    error::EvalError,
    eval::{Eval, Sink},
};
use crate::{
    promql::ast::{AggregateOp, Grouping, NodeId},
    series::{Labels, METRIC_NAME},
};
use cells::{Avg, Cells, Group, Max, Min, Quantile, Stddev, Stdvar};

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
        AggregateOp::Sum => fold::stream::<columns::Sums>(eval, node, sink),
        AggregateOp::Avg => fold::stream::<Cells<Avg>>(eval, node, sink),
        AggregateOp::Count => fold::stream::<columns::Counts>(eval, node, sink),
        AggregateOp::Min => fold::stream::<Cells<Min>>(eval, node, sink),
        AggregateOp::Max => fold::stream::<Cells<Max>>(eval, node, sink),
        AggregateOp::Group => fold::stream::<Cells<Group>>(eval, node, sink),
        AggregateOp::Stddev => fold::stream::<Cells<Stddev>>(eval, node, sink),
        AggregateOp::Stdvar => fold::stream::<Cells<Stdvar>>(eval, node, sink),
        AggregateOp::Quantile => fold::stream::<Cells<Quantile>>(eval, node, sink),
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

/// Whether a label tells groups apart.
fn tells(grouping: &Grouping, name: &str) -> bool {
    let named = grouping.labels.iter().any(|n| **n == *name);
    if grouping.without { !named && name != METRIC_NAME } else { named }
}

/// Numbers groups in the order in which they appear.
#[derive(Debug, Default)]
struct Groups {
    hasher: RandomState,
    by_hash: HashMap<u64, SmallVec<[usize; 1]>>,
    labels: Vec<Labels>,
}

impl Groups {
    /// The number of the group of a series, and whether it is new. Labels are made only for a new one.
    fn number(&mut self, grouping: &Grouping, of: &Labels) -> (usize, bool) {
        let own = || of.iter().filter(|label| tells(grouping, &label.name));
        let mut hash = self.hasher.build_hasher();
        own().for_each(|label| label.hash(&mut hash));
        let numbers = self.by_hash.entry(hash.finish()).or_default();
        let known =
            numbers.iter().find(|number| self.labels.get(**number).is_some_and(|g| g.iter().eq(own())));
        if let Some(number) = known {
            return (*number, false);
        }
        let number = self.labels.len();
        numbers.push(number);
        self.labels.push(group_of(grouping, of));
        (number, true)
    }
}
