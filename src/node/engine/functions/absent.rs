//! `absent` and `absent_over_time`.

use super::{call::Call, range::check_edges};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit},
        value::{HOLE, Series},
    },
    promql::ast::{Expr, MatchOp, Matcher},
    series::{Labels, METRIC_NAME},
};

pub(super) fn absent(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let id = eval.unparen(call.arg(0)?);
    let labels = match eval.expr(id) {
        Expr::Selector(selector) => implied(&selector.matchers),
        _ => Labels::default(),
    };
    let mut missing = eval.cx.meter.column_of(1.0, eval.grid.count)?;
    eval.stream(id, &mut |series| {
        for (step, value) in missing.iter_mut().enumerate() {
            if series.at(step).is_some() {
                *value = HOLE;
            }
        }
        Ok(())
    })?;
    emit(&mut Series { labels, drop_name: false, values: missing }, sink)
}

pub(super) fn absent_over_time(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let Some(range) = eval.range_arg(call.arg(0)?) else {
        return execution("expected a range vector");
    };
    check_edges(call.func, range.edges)?;
    let labels = match eval.expr(range.id) {
        Expr::Matrix { selector, .. } => match eval.expr(eval.unparen(*selector)) {
            Expr::Selector(selector) => implied(&selector.matchers),
            _ => Labels::default(),
        },
        _ => Labels::default(),
    };
    let mut missing = eval.cx.meter.column_of(1.0, eval.grid.count)?;
    eval.stream_ranges(&range, &mut |_, _, samples| {
        eval.windows(&range, samples, |step, _| {
            if let Some(value) = missing.get_mut(step) {
                *value = HOLE;
            }
            Ok(())
        })
    })?;
    emit(&mut Series { labels, drop_name: true, values: missing }, sink)
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
