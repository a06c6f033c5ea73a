//! `label_replace` and `label_join`.

use super::{call::Call, template::Template};
use crate::{
    node::engine::{
        error::{EvalError, execution},
        eval::{Eval, Sink, emit_all},
        matcher,
        meter::Held,
        value::{Merged, Series},
    },
    promql::is_label_name,
    series::{Label, Labels, METRIC_NAME},
};

/// Approximate bytes of a compiled pattern and of its working memory; the most is 4 MiB.
const PATTERN_BYTES: u64 = 64 << 10;

pub(super) fn replace(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let target = eval.string(call.arg(1)?)?;
    let replacement = Template::new(eval.string(call.arg(2)?)?);
    let source = eval.string(call.arg(3)?)?;
    let pattern = eval.string(call.arg(4)?)?;
    let mut held = eval.cx.meter.hold();
    held.borrow(PATTERN_BYTES)?;
    let Ok(regex) = matcher::regex(pattern) else {
        return execution(format!("invalid regular expression in label_replace(): {pattern}"));
    };
    if !is_label_name(target) {
        return execution(format!("invalid destination label name in label_replace(): {target}"));
    }
    relabel(eval, call, target, sink, |labels, held| {
        let Some(captures) = regex.captures(labels.get(source)) else { return Ok(None) };
        borrow_text(held, replacement.length(&captures))?;
        Ok(Some(replacement.expand(&captures)))
    })
}

pub(super) fn join(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let target = eval.string(call.arg(1)?)?;
    let separator = eval.string(call.arg(2)?)?;
    let mut sources = Vec::new();
    for id in call.args.iter().skip(3) {
        let source = eval.string(*id)?;
        if !is_label_name(source) {
            return execution(format!("invalid source label name in label_join(): {source}"));
        }
        sources.push(source);
    }
    if !is_label_name(target) {
        return execution(format!("invalid destination label name in label_join(): {target}"));
    }
    relabel(eval, call, target, sink, |labels, held| {
        let values: Vec<&str> = sources.iter().map(|source| labels.get(source)).collect();
        let texts = values.iter().map(|value| value.len() + separator.len());
        borrow_text(held, texts.fold(0, usize::saturating_add))?;
        Ok(Some(values.join(separator)))
    })
}

/// Takes the memory of a text before it is made: of the text, and of the copy that the label shares.
fn borrow_text(held: &mut Held<'_>, length: usize) -> Result<(), EvalError> {
    held.borrow(2 * length as u64)
}

/// Sets one label of every series for which `value` says something; a metric name that was to be dropped and is set
/// again stays.
fn relabel(
    eval: &Eval<'_>,
    call: &Call<'_>,
    target: &str,
    sink: Sink<'_>,
    value: impl Fn(&Labels, &mut Held<'_>) -> Result<Option<String>, EvalError>,
) -> Result<(), EvalError> {
    let mut merged = Merged::new(eval.cx.meter.hold(), eval.grid.count);
    // Bytes that one series needs beside those that it keeps.
    let mut made = eval.cx.meter.hold();
    eval.stream_ahead(call.arg(0)?, &mut |series: &mut Series| {
        // The list of labels is made before it is held with the series.
        let list = (series.labels.iter().len() + 1) * size_of::<Label>();
        made.borrow(list as u64)?;
        if let Some(text) = value(&series.labels, &mut made)? {
            series.labels = series.labels.with(target, &text);
            series.drop_name &= target != METRIC_NAME;
        }
        merged.add(series)?;
        made.give_back(u64::MAX);
        Ok(())
    })?;
    drop(made);
    emit_all(merged.matrix, sink)
}
