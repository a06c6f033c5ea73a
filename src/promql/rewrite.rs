//! Changes to the text of a query that make it cheaper. Everything else of the text stays as it is.

use std::time::Duration;

use super::{
    ast::{Ast, DurationExpr, Expr},
    function::FunctionId,
};
use crate::base::duration;

/// The query as one series: the sum of rates and counts, the average of gauges. `None` where one number for all would not be
/// of the same kind.
pub fn aggregated(ast: &Ast) -> Option<String> {
    let mut root = ast.expr(ast.root);
    while let Expr::Paren(inner) = root {
        root = ast.expr(*inner);
    }
    let by = match root {
        Expr::Selector(_) => "avg",
        Expr::Call { func, .. } => match func.id {
            FunctionId::Rate
            | FunctionId::Irate
            | FunctionId::Increase
            | FunctionId::CountOverTime
            | FunctionId::SumOverTime
            | FunctionId::Changes
            | FunctionId::Resets => "sum",
            FunctionId::Delta
            | FunctionId::Idelta
            | FunctionId::Deriv
            | FunctionId::AvgOverTime
            | FunctionId::LastOverTime
            | FunctionId::FirstOverTime => "avg",
            FunctionId::MaxOverTime => "max",
            FunctionId::MinOverTime => "min",
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("{by}({})", ast.text.trim()))
}

/// The query with every window in `[]` that is longer than this cut to it; `None` where none is.
pub fn with_windows(ast: &Ast, most_ms: i64) -> Option<String> {
    let is_long = |range: &DurationExpr| matches!(range, DurationExpr::Literal(ms) if *ms > most_ms);
    let mut cuts = Vec::new();
    for node in &ast.nodes {
        let (Expr::Matrix { range, .. } | Expr::Subquery { range, .. }) = &node.expr else { continue };
        if !is_long(range) {
            continue;
        }
        // No modifier behind a window has brackets: the last pair of the node is the window's.
        let (start, end) = (node.span.start as usize, node.span.end as usize);
        let text = ast.text.get(start..end)?;
        let open = text.rfind('[')? + 1;
        let length = text.get(open..)?.find([':', ']'])?;
        cuts.push((start + open, start + open + length));
    }
    cuts.sort_unstable();
    let window = duration::text(Duration::from_millis(most_ms.unsigned_abs()));
    let (mut out, mut copied) = (String::new(), 0);
    for (from, to) in cuts {
        out.push_str(ast.text.get(copied..from)?);
        out.push_str(&window);
        copied = to;
    }
    (copied > 0).then(|| out + ast.text.get(copied..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn one_series_of_the_same_kind() {
        for (query, want) in [
            ("up", Some("avg(up)")),
            ("(rate(x[5m]))", Some("sum((rate(x[5m])))")),
            ("max_over_time(x[1h]) ", Some("max(max_over_time(x[1h]))")),
            ("sum by (job) (rate(x[5m]))", None),
            ("a / b", None),
            ("x[5m]", None),
            ("histogram_quantile(0.9, x)", None),
        ] {
            assert_eq!(aggregated(&parse(query).unwrap()).as_deref(), want, "{query}");
        }
    }

    #[test]
    fn windows_are_cut_where_they_stand() {
        for (query, want) in [
            ("rate(x{a=\"[30d]\"}[30d] offset 2h)", Some("rate(x{a=\"[30d]\"}[1h] offset 2h)")),
            ("max_over_time(rate(x[5m])[2h:1m])", Some("max_over_time(rate(x[5m])[1h:1m])")),
            (
                "max_over_time(rate(x[2h])[3h:] @ 5) / rate(y[ 90m ])",
                Some("max_over_time(rate(x[1h])[1h:] @ 5) / rate(y[1h])"),
            ),
            ("rate(x[1h])", None),
            ("up", None),
        ] {
            let cut = with_windows(&parse(query).unwrap(), 3_600_000);
            assert_eq!(cut.as_deref(), want, "{query}");
            assert!(cut.is_none_or(|cut| parse(&cut).is_ok()));
        }
    }
}
