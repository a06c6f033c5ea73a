//! Whether a range query may be asked for in parts of its time.

use super::ast::{AggregateOp, Ast, At, Expr};

/// Functions of the query's own range.
const OF_RANGE: [&str; 3] = ["start", "end", "range"];

/// Whether what a range query is at each of its steps depends on that step alone, and not on where the range begins and
/// ends: the same query over a part of the range, on the same grid of steps, then is that part of the answer.
///
/// What picks some of its series whichever comes first (`limitk`, `limit_ratio`) is left whole as well.
pub fn stand_alone(ast: &Ast) -> bool {
    let of_range = |at: &Option<At>| matches!(at, Some(At::Start | At::End));
    ast.nodes.iter().all(|node| match &node.expr {
        Expr::Selector(selector) => !of_range(&selector.at),
        Expr::Subquery { at, .. } => !of_range(at),
        Expr::Call { func, .. } => !OF_RANGE.contains(&func.name),
        Expr::Aggregate { op, .. } => !matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio),
        Expr::DurationRange => false,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    #[test]
    fn what_knows_its_range_does_not_stand_alone() {
        for (query, alone) in [
            ("sum by(job)(rate(a[5m])) / on(job) b offset 1h", true),
            ("topk(3, a) or absent(b @ 1000)", true),
            ("max_over_time(rate(a[5m])[1h:1m] offset 5m)", true),
            ("time() - a", true),
            ("a @ start()", false),
            ("rate(a[5m] @ end())", false),
            ("max_over_time(a[1h:1m] @ end())", false),
            ("limitk(3, a)", false),
            ("sum(limit_ratio(0.5, a))", false),
            ("rate(a[range()])", false),
            ("rate(a[step()])", true),
        ] {
            let ast = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(stand_alone(&ast), alone, "{query}");
        }
    }
}
