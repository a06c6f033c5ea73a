//! Whether a range query may be asked for in parts of its time.

use super::{
    ast::{AggregateOp, Ast, At, Expr, MatchOp, Matcher},
    shape::METRIC_NAME,
};

/// Functions of the query's own range.
const OF_RANGE: [&str; 3] = ["start", "end", "range"];

/// Whether what a range query is at each of its steps depends on that step alone, and not on where the range begins and
/// ends: the same query over a part of the range, on the same grid of steps, then is that part of the answer.
///
/// What picks some of its series whichever comes first (`limitk`, `limit_ratio`) is left whole. So are functions over
/// selectors without a name: they drop the name, and two series that differ in nothing else are an error of the whole
/// range even where they are never there at the same time.
pub fn stand_alone(ast: &Ast) -> bool {
    let of_range = |at: &Option<At>| matches!(at, Some(At::Start | At::End));
    let (mut named, mut drops_names) = (true, false);
    let alone = ast.nodes.iter().all(|node| match &node.expr {
        Expr::Selector(selector) => {
            named &= selector.matchers.iter().any(is_name);
            !of_range(&selector.at)
        }
        Expr::Subquery { at, .. } => !of_range(at),
        Expr::Call { func, args } => {
            drops_names |= !args.is_empty();
            !OF_RANGE.contains(&func.name)
        }
        Expr::Unary { negative, .. } => {
            drops_names |= negative;
            true
        }
        Expr::Aggregate { op, .. } => !matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio),
        Expr::DurationRange => false,
        _ => true,
    });
    alone && (named || !drops_names)
}

fn is_name(matcher: &Matcher) -> bool {
    &*matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal
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
            (r#"sum by(job)({job=~"a|b"})"#, true),
            (r#"sum by(job)(rate({job=~"a|b"}[5m]))"#, false),
            (r#"sum(-{__name__=~"a|b"})"#, false),
            ("sum(limit_ratio(0.5, a))", false),
            ("rate(a[range()])", false),
            ("rate(a[step()])", true),
        ] {
            let ast = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(stand_alone(&ast), alone, "{query}");
        }
    }
}
