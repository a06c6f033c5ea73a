//! Aggregations that pass some of their series on: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use super::{Groups, Node};
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
    for k in &values {
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
    Ok(Some(values.into_iter().map(|k| k as usize).collect()))
}

/// The best values of one group at one step, best first, with the numbers of their series.
type Best = Vec<(f64, usize)>;

/// `topk` and `bottomk`
pub(super) fn extremes(eval: &Eval<'_>, node: &Node<'_>, top: bool, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(counts) = counts(eval, node.param)? else { return Ok(()) };
    let steps = eval.grid.count;
    let better = |a: f64, b: f64| !a.is_nan() && (b.is_nan() || if top { a > b } else { a < b });
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::default();
    let mut best: Vec<Vec<Best>> = Vec::new();
    let mut seen: Vec<(Labels, bool)> = Vec::new();
    eval.stream(node.expr, &mut |series| {
        let (group, new) = groups.number(node.grouping, &series.labels);
        if new {
            held.grow(3 * steps as u64)?;
            best.push(vec![Vec::new(); steps]);
        }
        let number = seen.len();
        // Labels, a flag, and later a place.
        held.grow(5)?;
        seen.push((series.labels.clone(), series.drop_name));
        let Some(group) = best.get_mut(group) else { return Ok(()) };
        for ((best, value), k) in group.iter_mut().zip(series.values.iter()).zip(&counts) {
            let Some(value) = present(*value) else { continue };
            // Of equal values the first stays.
            let place = best.partition_point(|(other, _)| !better(value, *other));
            if place < *k {
                if best.len() >= *k {
                    best.pop();
                } else {
                    held.grow(2)?;
                }
                best.insert(place, (value, number));
            }
        }
        Ok(())
    })?;
    let mut places: Vec<Option<usize>> = vec![None; seen.len()];
    let mut out: Vec<Series> = Vec::new();
    for (step, best) in best.iter().flat_map(|group| group.iter().enumerate()) {
        for (value, number) in best {
            let (Some(place), Some((labels, drop_name))) = (places.get_mut(*number), seen.get(*number))
            else {
                continue;
            };
            if place.is_none() {
                let series = eval.holes(labels.clone(), *drop_name)?;
                held.keep(&series)?;
                *place = Some(out.len());
                out.push(series);
            }
            let cell = place.and_then(|p| out.get_mut(p)).and_then(|s| s.values.get_mut(step));
            if let Some(cell) = cell {
                *cell = *value;
            }
        }
    }
    out.iter_mut().try_for_each(|series| emit(series, sink))
}

/// `limitk`: the first series of each group.
pub(super) fn first(eval: &Eval<'_>, node: &Node<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(counts) = counts(eval, node.param)? else { return Ok(()) };
    let mut held = eval.cx.meter.hold();
    let mut groups = Groups::default();
    let mut left: Vec<Vec<usize>> = Vec::new();
    eval.stream(node.expr, &mut |series| {
        let (group, new) = groups.number(node.grouping, &series.labels);
        if new {
            held.grow(counts.len() as u64)?;
            left.push(counts.clone());
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

/// `limit_ratio`: a share of all series, chosen by their labels alone; a negative share is what the positive one left.
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
