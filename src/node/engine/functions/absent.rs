//! `absent` and `absent_over_time`.

use crate::{
    node::engine::{
        error::EvalError,
        eval::{Eval, Sink, emit},
        value::{HOLE, Series},
        window::RangeArg,
    },
    promql::ast::{Expr, MatchOp, Matcher, NodeId},
    series::{Labels, METRIC_NAME},
};

pub(super) fn absent(eval: &Eval<'_>, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
    let id = eval.unparen(id);
    let labels = match eval.expr(id) {
        Expr::Selector(selector) => implied(&selector.matchers),
        _ => Labels::default(),
    };
    let mut missing = vec![1.0; eval.grid.count];
    eval.stream(id, &mut |series| {
        for (step, value) in missing.iter_mut().enumerate() {
            if series.at(step).is_some() {
                *value = HOLE;
            }
        }
        Ok(())
    })?;
    emit(&mut Series { labels, drop_name: false, values: missing.into() }, sink)
}

pub(super) fn absent_over_time(eval: &Eval<'_>, range: &RangeArg, sink: Sink<'_>) -> Result<(), EvalError> {
    let labels = match eval.expr(range.id) {
        Expr::Matrix { selector, .. } => match eval.expr(eval.unparen(*selector)) {
            Expr::Selector(selector) => implied(&selector.matchers),
            _ => Labels::default(),
        },
        _ => Labels::default(),
    };
    let mut missing = vec![1.0; eval.grid.count];
    eval.stream_ranges(range, &mut |_, _, samples| {
        eval.windows(range, samples, |step, _| {
            if let Some(value) = missing.get_mut(step) {
                *value = HOLE;
            }
            Ok(())
        })
    })?;
    emit(&mut Series { labels, drop_name: true, values: missing.into() }, sink)
}

/// The labels that any series matching these would have: those that one equality alone names.
fn implied(matchers: &[Matcher]) -> Labels {
    let mut labels = Labels::default();
    let mut named: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| &*m.name != METRIC_NAME) {
        if matcher.op == MatchOp::Equal && !named.contains(&&*matcher.name) {
            labels = labels.with(&matcher.name, &matcher.value);
            named.push(&matcher.name);
        } else {
            labels = labels.with(&matcher.name, "");
        }
    }
    labels
}
