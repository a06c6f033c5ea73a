//! `count_values`: how many series have each value.

use std::collections::HashMap;

use super::node::{Node, labels_of};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        number,
        value::{Merged, present},
    },
    promql::{is_label_name, print::quoted},
};

/// Bytes of scratch space for each step: values of one series and their places, in a hash table.
const STEP_BYTES: u64 = 48;

pub(super) fn stream(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(id) = node.param else {
        return execution("the aggregation needs a parameter");
    };
    let label = eval.string(id)?;
    if !is_label_name(label) {
        return execution(format!("invalid label name {}", quoted(label)));
    }
    let mut grouping = node.grouping.clone();
    if !grouping.without {
        grouping.labels.push(label.into());
    }
    let mut scratch = eval.cx.meter.hold();
    scratch.borrow(STEP_BYTES.saturating_mul(eval.grid.count as u64))?;
    // A value often stays for many steps.
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut counts = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    eval.stream_ahead(node.expr, &mut |series| {
        places.clear();
        for (step, value) in series.values.iter().enumerate() {
            let Some(value) = present(*value) else { continue };
            let place = match places.get(&value.to_bits()) {
                Some(place) => *place,
                None => {
                    let labels = series.labels.with(label, &number::plain(value));
                    let place = counts.slot(labels_of(&grouping, &labels), false)?;
                    places.insert(value.to_bits(), place);
                    place
                }
            };
            let cell = counts.matrix.series.get_mut(place).and_then(|s| s.values.get_mut(step));
            if let Some(cell) = cell {
                *cell = present(*cell).unwrap_or(0.0) + 1.0;
            }
        }
        Ok(())
    })?;
    emit_all(counts.matrix, sink)
}
