//! An aggregation of the tree, and the groups that it makes.

use crate::{
    node::engine::{error::EvalError, meter::Held, places::Places},
    promql::ast::{AggregateOp, Grouping, NodeId},
    series::{Label, Labels, METRIC_NAME},
};

/// An aggregation of the tree.
#[derive(Clone, Copy, Debug)]
pub(in crate::node::engine) struct Node<'n> {
    pub(in crate::node::engine) op: AggregateOp,
    pub(in crate::node::engine) param: Option<NodeId>,
    pub(in crate::node::engine) expr: NodeId,
    pub(in crate::node::engine) grouping: &'n Grouping,
}

/// Numbers groups in the order in which they appear.
#[derive(Debug)]
pub(super) struct Groups<'n> {
    grouping: &'n Grouping,
    places: Places,
    labels: Vec<Labels>,
}

impl<'n> Groups<'n> {
    pub(super) fn by(grouping: &'n Grouping) -> Self {
        Self { grouping, places: Places::default(), labels: Vec::new() }
    }

    /// The number of the group of a series, and whether it is new. Labels are made only for a new one.
    pub(super) fn number(&mut self, of: &Labels, held: &mut Held<'_>) -> Result<(usize, bool), EvalError> {
        let own = || of.iter().filter(|label| tells(self.grouping, label));
        let hash = self.places.hash(own());
        let same = |number: usize| self.labels.get(number).is_some_and(|known| known.iter().eq(own()));
        if let Some(number) = self.places.find(hash, same) {
            return Ok((number, false));
        }
        let number = self.labels.len();
        let labels = labels_of(self.grouping, of);
        held.borrow(labels.bytes() as u64)?;
        self.places.insert(hash, number, held)?;
        held.push(&mut self.labels, labels)?;
        Ok((number, true))
    }

    /// The labels of all groups, by number.
    pub(super) fn into_labels(self) -> Vec<Labels> {
        self.labels
    }
}

/// Whether a label is part of the grouping key.
fn tells(grouping: &Grouping, label: &Label) -> bool {
    let named = grouping.labels.iter().any(|name| **name == *label.name);
    if grouping.without { !named && &*label.name != METRIC_NAME } else { named }
}

/// The labels of the group that a series belongs to.
pub(super) fn labels_of(grouping: &Grouping, of: &Labels) -> Labels {
    if grouping.without { of.except(&grouping.labels) } else { of.only(&grouping.labels) }
}
