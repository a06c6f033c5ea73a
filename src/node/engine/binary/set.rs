//! `and`, `or`, `unless`.

use super::{node::Node, vector::Sides};
use crate::{
    node::engine::{
        error::EvalError,
        eval::{Eval, Sink, emit, emit_all},
        value::{Merged, Series},
    },
    promql::ast::{BinaryOp, VectorMatching},
};

pub(super) fn stream(
    eval: &Eval<'_>,
    node: &Node<'_>,
    matching: &VectorMatching,
    sink: Sink<'_>,
) -> Result<(), EvalError> {
    let mut sides = Sides::collect(eval, node.lhs, node.rhs, matching)?;
    let steps = eval.grid.count;
    let mut scratch = eval.cx.meter.hold();
    scratch.borrow(steps as u64)?;
    match node.op {
        BinaryOp::Or => {
            let mut merged = Merged::new(eval.cx.meter.hold(), steps);
            for group in &sides.groups {
                let there = present_at(&sides.left.series, &group.left, steps);
                mask(&mut sides.right.series, &group.right, &there, false);
            }
            for series in sides.left.series.iter_mut().chain(&mut sides.right.series) {
                if !series.is_empty() {
                    merged.add(series)?;
                }
            }
            emit_all(merged.matrix, sink)
        }
        op => {
            for group in &sides.groups {
                let there = present_at(&sides.right.series, &group.right, steps);
                mask(&mut sides.left.series, &group.left, &there, op == BinaryOp::And);
            }
            sides.left.series.iter_mut().try_for_each(|series| emit(series, sink))
        }
    }
}

/// Whether any of the series has a value, step by step.
fn present_at(series: &[Series], members: &[usize], steps: usize) -> Vec<bool> {
    let mut there = vec![false; steps];
    for series in members.iter().filter_map(|i| series.get(*i)) {
        for (step, there) in there.iter_mut().enumerate() {
            *there |= series.at(step).is_some();
        }
    }
    there
}

/// Keeps values only where `there` is as wanted.
fn mask(series: &mut [Series], members: &[usize], there: &[bool], wanted: bool) {
    for member in members {
        if let Some(series) = series.get_mut(*member) {
            series.map(|step, value| (there.get(step) == Some(&wanted)).then_some(value));
        }
    }
}
