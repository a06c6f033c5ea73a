//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`.

use std::cmp::Ordering;

use super::call::Call;
use crate::node::engine::{
    error::EvalError,
    eval::{Eval, Sink, emit_all},
    value::{HOLE, Series},
};

pub(super) fn ascending(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    sorted(eval, call, sink, |a, b| by_value(value(a), value(b), false))
}

pub(super) fn descending(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    sorted(eval, call, sink, |a, b| by_value(value(a), value(b), true))
}

pub(super) fn by_label(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let names = names(eval, call)?;
    sorted(eval, call, sink, |a, b| by_labels(a, b, &names))
}

pub(super) fn by_label_descending(eval: &Eval<'_>, call: &Call<'_>, sink: Sink<'_>) -> Result<(), EvalError> {
    let names = names(eval, call)?;
    sorted(eval, call, sink, |a, b| by_labels(b, a, &names))
}

fn names<'a>(eval: &Eval<'a>, call: &Call<'_>) -> Result<Vec<&'a str>, EvalError> {
    call.args.iter().skip(1).map(|label| eval.string(*label)).collect()
}

fn value(series: &Series) -> f64 {
    series.values.first().copied().unwrap_or(HOLE)
}

fn sorted(
    eval: &Eval<'_>,
    call: &Call<'_>,
    sink: Sink<'_>,
    order: impl Fn(&Series, &Series) -> Ordering,
) -> Result<(), EvalError> {
    if eval.grid.count > 1 {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        eval.warn(eval.cx.ast.node(call.id).span, text);
        return eval.stream(call.arg(0)?, sink);
    }
    let mut matrix = eval.collect(call.arg(0)?)?;
    // A stable sort takes half of the list again.
    matrix.held.borrow((matrix.series.len() * size_of::<Series>() / 2) as u64)?;
    matrix.series.sort_by(order);
    emit_all(matrix, sink)
}

/// NaN goes last either way.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    let order = if descending { b.total_cmp(&a) } else { a.total_cmp(&b) };
    a.is_nan().cmp(&b.is_nan()).then(if a == b { Ordering::Equal } else { order })
}

/// By the named labels, then by all of them.
fn by_labels(a: &Series, b: &Series, names: &[&str]) -> Ordering {
    let named = names.iter().map(|name| natural(a.labels.get(name), b.labels.get(name)));
    named.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels))
}

/// Compares runs of digits as numbers and the rest as text: `node2` comes before `node10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ((a_run, a_rest), (b_run, b_rest)) = (run(a), run(b));
        if a_run.is_empty() || b_run.is_empty() {
            return a_run.len().cmp(&b_run.len());
        }
        let order = match (a_run.parse::<u64>(), b_run.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a_run.cmp(b_run),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The longest start of `text` that is all digits, or all something else; and the rest.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text_sort_as_numbers() {
        let mut names = ["n10", "n2", "n2b", "", "a", "n2a10", "n2a9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "a", "n2", "n2a9", "n2a10", "n2b", "n10"]);
    }
}
