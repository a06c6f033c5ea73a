//! Durations that a query computes from its own step and range: checked before they are priced or run.

use crate::base::time::EvalTimes;

use super::{
    ParseError,
    ast::{Ast, BinaryOp, DurationExpr, Expr, Node, NodeId, ValueType},
    shape::arithmetic,
};

/// Longest duration in seconds: Prometheus' signed 64 bits of nanoseconds.
const SECONDS_MAX: f64 = 9_223_372_036.854_775;

/// Whether every computed duration is one, for a query over these times.
///
/// # Errors
/// The first that is none, in Prometheus' words: `division by zero`, `duration must be greater than 0`.
pub fn check(ast: &Ast, times: EvalTimes) -> Result<(), ParseError> {
    if !ast.nodes.iter().any(|node| node.ty == ValueType::Duration) {
        return Ok(());
    }
    let values = seconds(ast, times);
    for node in &ast.nodes {
        for (duration, is_offset) in durations(&node.expr) {
            let DurationExpr::Computed(id) = duration else { continue };
            let wrong = match values.get(id.0 as usize) {
                Some(Err(why)) => why,
                Some(Ok(seconds)) if !is_offset && *seconds <= 0.0 => "duration must be greater than 0",
                Some(Ok(seconds)) if seconds.abs() > SECONDS_MAX => "duration is out of range",
                _ => continue,
            };
            return Err(ParseError::new(&ast.text, ast.node(id).span, wrong));
        }
    }
    Ok(())
}

/// The durations of an expression, and which of them may be negative.
fn durations(expr: &Expr) -> impl Iterator<Item = (DurationExpr, bool)> {
    let (range, step, offset) = match expr {
        Expr::Matrix { range, .. } => (Some(*range), None, None),
        Expr::Subquery { range, step, offset, .. } => (Some(*range), *step, *offset),
        Expr::Selector(selector) => (None, None, selector.offset),
        _ => (None, None, None),
    };
    let positive = [range, step].into_iter().flatten().map(|duration| (duration, false));
    positive.chain(offset.map(|duration| (duration, true)))
}

/// The seconds of each node that is part of a duration, or why it has none. Operands come before their operators.
fn seconds(ast: &Ast, times: EvalTimes) -> Vec<Result<f64, &'static str>> {
    let range = times.end.saturating_sub(times.start).max(0) as f64 / 1e3;
    let mut values: Vec<Result<f64, &'static str>> = Vec::with_capacity(ast.nodes.len());
    for Node { expr, .. } in &ast.nodes {
        let get = |id: &NodeId| values.get(id.0 as usize).copied().unwrap_or(Ok(f64::NAN));
        let value = match expr {
            Expr::Number(n) => Ok(*n),
            Expr::DurationStep => Ok(times.step as f64 / 1e3),
            Expr::DurationRange => Ok(range),
            Expr::DurationMinMax { max, a, b } => {
                both(get(a), get(b), |a, b| if *max { a.max(b) } else { a.min(b) })
            }
            Expr::Paren(inner) | Expr::Unary { negative: false, expr: inner } => get(inner),
            Expr::Unary { negative: true, expr } => get(expr).map(|n| -n),
            Expr::Binary { op: BinaryOp::Div, rhs, .. } if get(rhs) == Ok(0.0) => Err("division by zero"),
            Expr::Binary { op: BinaryOp::Mod, rhs, .. } if get(rhs) == Ok(0.0) => Err("modulo by zero"),
            Expr::Binary { op, lhs, rhs, .. } => both(get(lhs), get(rhs), |a, b| arithmetic(*op, a, b)),
            _ => Ok(f64::NAN),
        };
        values.push(value);
    }
    values
}

fn both<E>(a: Result<f64, E>, b: Result<f64, E>, of: impl Fn(f64, f64) -> f64) -> Result<f64, E> {
    Ok(of(a?, b?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    #[test]
    fn durations_that_do_not_compute_are_named() {
        let graph = EvalTimes { start: 0, end: 3_600_000, step: 60_000 };
        let instant = EvalTimes::instant(0);
        for (query, times, want) in [
            ("rate(a[2m/range()])", instant, Some("division by zero")),
            ("rate(a[2m/range()])", graph, None),
            ("rate(a[2m % step()])", instant, Some("modulo by zero")),
            ("rate(a[step()])", instant, Some("duration must be greater than 0")),
            ("max_over_time(a[1h:range()])", instant, Some("duration must be greater than 0")),
            ("rate(a[step() - 2h])", graph, Some("duration must be greater than 0")),
            ("a offset (step() - 2h)", graph, None),
            ("rate(a[range() ^ 20])", graph, Some("duration is out of range")),
            ("rate(a[5m]) / 0", instant, None),
        ] {
            let got = check(&parse(query).unwrap(), times).err().map(|error| error.message);
            assert_eq!(got.as_deref(), want, "{query}");
        }
    }
}
