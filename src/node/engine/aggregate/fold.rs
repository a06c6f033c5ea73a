//! Aggregations that make one value out of many: `sum`, `avg`, `quantile` and their like.

use super::{Groups, Node};
use crate::node::engine::{
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
    functions,
    meter::Held,
};

/// What an aggregation knows of one group at all steps.
pub(super) trait Column: Send {
    /// Whether the operator has a parameter.
    const PARAMETER: bool = false;
    /// Points that one more series makes a step hold.
    const GROWS: u64 = 0;
    /// Bytes that a step takes.
    const STEP_BYTES: usize;

    fn new(steps: usize) -> Self;
    /// Takes in a series.
    fn add(&mut self, values: &[f64]);
    /// Takes in what is known of series that come later.
    fn merge(&mut self, later: Self);
    /// Fills in the steps at which any series had a value.
    fn finish(self, parameters: &[f64], out: &mut [f64]);
}

/// The groups of some series.
struct Folded<'a, C> {
    groups: Groups,
    /// By number: whether the name is to be dropped, and what is known.
    columns: Vec<(bool, C)>,
    held: Held<'a>,
}

pub(super) fn stream<C: Column>(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let parameters = match node.param {
        Some(id) if C::PARAMETER => {
            let values = eval.scalars(id)?;
            for q in &values {
                functions::check_quantile(eval, *q, id);
            }
            values
        }
        None if C::PARAMETER => return execution("the aggregation needs a parameter"),
        _ => vec![0.0; eval.grid.count],
    };
    let mut parts = eval.in_parts(node.expr, |eval| fold::<C>(eval, node))?.into_iter();
    let Some(mut folded) = parts.next() else { return Ok(()) };
    for later in parts {
        folded.merge(later, node);
    }
    for (labels, (drop_name, column)) in folded.groups.labels.into_iter().zip(folded.columns) {
        let mut out = eval.holes(labels, drop_name)?;
        column.finish(&parameters, &mut out.values);
        emit(&mut out, sink)?;
    }
    Ok(())
}

fn fold<'a, C: Column>(eval: &Eval<'a>, node: &Node<'_>) -> Result<Folded<'a, C>, EvalError> {
    let steps = eval.grid.count;
    // A point is a float.
    let width = C::STEP_BYTES.div_ceil(8) as u64;
    let mut folded = Folded { groups: Groups::default(), columns: Vec::new(), held: eval.cx.meter.hold() };
    eval.stream(node.expr, &mut |series| {
        let (number, new) = folded.groups.number(node.grouping, &series.labels);
        if new {
            folded.held.grow(width.saturating_mul(steps as u64))?;
            folded.columns.push((false, C::new(steps)));
        }
        folded.held.grow(C::GROWS * steps as u64)?;
        if let Some((drop_name, column)) = folded.columns.get_mut(number) {
            *drop_name |= series.drop_name;
            column.add(&series.values);
        }
        Ok(())
    })?;
    Ok(folded)
}

impl<C: Column> Folded<'_, C> {
    fn merge(&mut self, later: Self, node: &Node<'_>) {
        self.held.absorb(later.held);
        for (labels, (drop_name, column)) in later.groups.labels.into_iter().zip(later.columns) {
            // The labels of a group are those that tell it from others.
            let (number, new) = self.groups.number(node.grouping, &labels);
            if new {
                self.columns.push((drop_name, column));
            } else if let Some((known_drop, known)) = self.columns.get_mut(number) {
                *known_drop |= drop_name;
                known.merge(column);
            }
        }
    }
}
