//! `label_replace` and `label_join`.

use super::arg;
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        matcher,
        value::{Merged, Series},
    },
    promql::ast::NodeId,
    series::{Labels, METRIC_NAME},
};

pub(super) fn replace(eval: &Eval<'_>, args: &[NodeId], sink: Sink<'_>) -> Result<(), EvalError> {
    let target = eval.string(arg(args, 1)?)?;
    let replacement = eval.string(arg(args, 2)?)?;
    let source = eval.string(arg(args, 3)?)?;
    let pattern = eval.string(arg(args, 4)?)?;
    let Ok(regex) = matcher::regex(pattern) else {
        return execution(format!("invalid regular expression in label_replace(): {pattern}"));
    };
    if target.is_empty() {
        return execution("invalid destination label name in label_replace(): ");
    }
    relabel(eval, arg(args, 0)?, target, sink, |labels| {
        let captures = regex.captures(labels.get(source))?;
        let mut value = String::new();
        captures.expand(replacement, &mut value);
        Some(value)
    })
}

pub(super) fn join(eval: &Eval<'_>, args: &[NodeId], sink: Sink<'_>) -> Result<(), EvalError> {
    let target = eval.string(arg(args, 1)?)?;
    let separator = eval.string(arg(args, 2)?)?;
    let mut sources = Vec::new();
    for id in args.iter().skip(3) {
        let source = eval.string(*id)?;
        if source.is_empty() {
            return execution("invalid source label name in label_join(): ");
        }
        sources.push(source);
    }
    if target.is_empty() {
        return execution("invalid destination label name in label_join(): ");
    }
    relabel(eval, arg(args, 0)?, target, sink, |labels| {
        let values: Vec<&str> = sources.iter().map(|source| labels.get(source)).collect();
        Some(values.join(separator))
    })
}

/// Sets one label of every series for which `value` says something; a metric name that was to be dropped and is set
/// again stays.
fn relabel(
    eval: &Eval<'_>,
    id: NodeId,
    target: &str,
    sink: Sink<'_>,
    value: impl Fn(&Labels) -> Option<String>,
) -> Result<(), EvalError> {
    let mut merged = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    eval.stream(id, &mut |series: &mut Series| {
        if let Some(value) = value(&series.labels) {
            series.labels = series.labels.with(target, &value);
            series.drop_name &= target != METRIC_NAME;
        }
        merged.add(series)
    })?;
    emit_all(merged.matrix, sink)
}
