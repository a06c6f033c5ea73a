//! `count_values`: how many series have each value.

use std::collections::HashMap;

use super::{Node, group_of};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        number,
        value::{Merged, present},
    },
    series::Labels,
};

pub(super) fn stream(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(id) = node.param else {
        return execution("the aggregation needs a parameter");
    };
    let label = eval.string(id)?;
    if label.is_empty() {
        return execution("invalid label name \"\"");
    }
    let mut grouping = node.grouping.clone();
    if !grouping.without {
        grouping.labels.push(label.into());
    }
    let mut counts = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    eval.stream(node.expr, &mut |series| {
        // A value often stays for many steps.
        let mut slots: HashMap<u64, usize> = HashMap::new();
        for (step, value) in series.values.iter().enumerate() {
            let Some(value) = present(*value) else { continue };
            let slot = match slots.get(&value.to_bits()) {
                Some(slot) => *slot,
                None => {
                    let labels: Labels = series.labels.with(label, &number::plain(value));
                    let slot = counts.slot(group_of(&grouping, &labels), false)?;
                    slots.insert(value.to_bits(), slot);
                    slot
                }
            };
            let cell = counts.matrix.series.get_mut(slot).and_then(|s| s.values.get_mut(step));
            if let Some(cell) = cell {
                *cell = present(*cell).unwrap_or(0.0) + 1.0;
            }
        }
        Ok(())
    })?;
    emit_all(counts.matrix, sink)
}
