//! Aggregations that pass some of their series on: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use super::{
    heap::{self, Entry},
    node::{Groups, Node},
};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit},
        number,
        value::{Series, present},
    },
    promql::ast::NodeId,
    series::Labels,
};

/// How many series to pass on at each step; `None` when it is none at all.
fn counts(eval: &Eval<'_>, param: Option<NodeId>) -> Result<Option<Vec<usize>>, EvalError> {
    let Some(id) = param else {
        return execution("the aggregation needs a parameter");
    };
    let values = eval.scalars(id)?;
    if values.iter().all(|k| *k < 1.0) {
        return Ok(None);
    }
    for k in values.iter() {
        if k.is_nan() {
            return execution("Parameter value is NaN");
        }
        if *k <= i64::MIN as f64 {
            return execution(format!("Scalar value {} underflows int64", number::short(*k)));
        }
        if *k >= i64::MAX as f64 {
            return execution(format!("Scalar value {} overflows int64", number::short(*k)));
        }
    }
    // A cast from float saturates: below one is none.
    Ok(Some(values.iter().map(|k| *k as usize).collect()))
}

/// `topk` and `bottomk`
pub(super) fn extremes(eval: &Eval<'_>, node: &Node<'_>, top: bool, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(counts) = counts(eval, node.param)? else { return Ok(()) };
    let steps = eval.grid.count;
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::by(node.grouping);
    // By number of the group: a heap a step.
    let mut best: Vec<Vec<Vec<Entry>>> = Vec::new();
    let mut seen: Vec<Seen> = Vec::new();
    eval.stream_ahead(node.expr, &mut |series| {
        let (group, new) = groups.number(&series.labels, &mut held)?;
        if new {
            let mut heaps = Vec::new();
            held.reserve(&mut heaps, steps)?;
            heaps.resize_with(steps, Vec::new);
            held.push(&mut best, heaps)?;
        }
        let number = seen.len() as u32;
        held.borrow(series.labels.bytes() as u64)?;
        held.push(
            &mut seen,
            Seen { labels: series.labels.clone(), drop_name: series.drop_name, place: None },
        )?;
        let Some(group) = best.get_mut(group) else { return Ok(()) };
        for ((best, value), k) in group.iter_mut().zip(series.values.iter()).zip(&counts) {
            let Some(value) = present(*value) else { continue };
            if best.len() < *k {
                held.count(2)?;
                held.reserve(best, 1)?;
                heap::push(best, (value, number), top);
            } else {
                heap::replace(best, (value, number), top);
            }
        }
        Ok(())
    })?;
    let mut out: Vec<Series> = Vec::new();
    for (step, mut best) in best.into_iter().flat_map(|group| group.into_iter().enumerate()) {
        heap::sort(&mut best, top);
        for (value, number) in best {
            let Some(seen) = seen.get_mut(number as usize) else { continue };
            let place = match seen.place {
                Some(place) => place,
                None => {
                    let series = eval.empty_row(seen.labels.clone(), seen.drop_name)?;
                    held.keep(&series)?;
                    held.push(&mut out, series)?;
                    *seen.place.insert(out.len() - 1)
                }
            };
            if let Some(cell) = out.get_mut(place).and_then(|series| series.values.get_mut(step)) {
                *cell = value;
            }
        }
    }
    out.iter_mut().try_for_each(|series| emit(series, sink))
}

/// A series that was seen, and its place among those that are passed on.
struct Seen {
    labels: Labels,
    drop_name: bool,
    place: Option<usize>,
}

/// `limitk`: the first series of each group.
pub(super) fn first(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(counts) = counts(eval, node.param)? else { return Ok(()) };
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::by(node.grouping);
    let mut left: Vec<Vec<usize>> = Vec::new();
    eval.stream_ahead(node.expr, &mut |series| {
        let (group, new) = groups.number(&series.labels, &mut held)?;
        if new {
            held.grow(counts.len() as u64)?;
            held.push(&mut left, counts.clone())?;
        }
        let Some(left) = left.get_mut(group) else { return Ok(()) };
        series.map(|step, value| {
            let left = left.get_mut(step)?;
            *left = left.checked_sub(1)?;
            Some(value)
        });
        emit(series, sink)
    })
}

/// `limit_ratio`: a share of all series, chosen by their labels alone; a negative share is the rest of the positive
/// one.
pub(super) fn share(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(id) = node.param else {
        return execution("the aggregation needs a parameter");
    };
    let ratios = eval.scalars(id)?;
    if ratios.iter().all(|r| *r == 0.0) {
        return Ok(());
    }
    if ratios.iter().any(|r| r.is_nan()) {
        return execution("Ratio value is NaN");
    }
    let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    for (value, cap) in [(most, 1.0), (least, -1.0)] {
        if value.abs() > 1.0 && value.signum() == cap {
            let text = "ratio value should be between -1 and 1, got";
            let text = format!("{text} {}, capping to {}", number::short(value), number::short(cap));
            eval.warn(eval.span(id), text);
        }
    }
    eval.stream(node.expr, &mut |series| {
        let place = series.labels.stable_hash() as f64 / u64::MAX as f64;
        series.map(|step, value| {
            let ratio = ratios.get(step)?.clamp(-1.0, 1.0);
            let chosen = if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio };
            chosen.then_some(value)
        });
        emit(series, sink)
    })
}
