//! Aggregations that make one value out of many: `sum`, `avg`, `quantile` and their like.

use super::node::{Groups, Node};
use crate::node::engine::{
    buffers::Numbers,
    error::{EvalError, execution},
    eval::{Eval, Sink, emit},
    meter::Held,
    quantile::check_quantile,
};

/// The accumulators of one group at all steps. It takes its series one after the other, in their order.
pub(super) trait Column {
    /// Whether the operator has a parameter.
    const PARAMETER: bool = false;
    /// Bytes that a step takes.
    const STEP_BYTES: usize;

    fn new(steps: usize) -> Self;
    /// Takes in a series; its values may be taken from it.
    fn add(&mut self, values: &mut Numbers, held: &mut Held<'_>) -> Result<(), EvalError>;
    /// Fills in the steps at which any series had a value.
    fn finish(self, parameters: &[f64], out: &mut [f64]);
}

pub(super) fn stream<C: Column>(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let steps = eval.grid.count;
    let parameters = match node.param {
        Some(id) if C::PARAMETER => {
            let values = eval.scalars(id)?;
            for q in values.iter() {
                check_quantile(eval, *q, id);
            }
            values
        }
        None if C::PARAMETER => return execution("the aggregation needs a parameter"),
        _ => eval.cx.meter.column_of(0.0, steps)?,
    };
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::by(node.grouping);
    // By number: whether the name is to be dropped, and the accumulator.
    let mut columns: Vec<(bool, C)> = Vec::new();
    eval.stream_ahead(node.expr, &mut |series| {
        let (number, new) = groups.number(&series.labels, &mut held)?;
        if new {
            // A point is a float.
            held.grow(C::STEP_BYTES.div_ceil(8).saturating_mul(steps) as u64)?;
            held.push(&mut columns, (false, C::new(steps)))?;
        }
        if let Some((drop_name, column)) = columns.get_mut(number) {
            *drop_name |= series.drop_name;
            column.add(&mut series.values, &mut held)?;
        }
        Ok(())
    })?;
    for (labels, (drop_name, column)) in groups.into_labels().into_iter().zip(columns) {
        let mut out = eval.empty_row(labels, drop_name)?;
        column.finish(&parameters, &mut out.values);
        emit(&mut out, sink)?;
    }
    Ok(())
}
