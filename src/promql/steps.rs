//! Whether a range query may be asked for in parts of its time.

use super::{
    ast::{AggregateOp, Ast, At, BinaryOp, Expr, Function, Group, MatchOp, NodeId, Selector, ValueType},
    function::FunctionId,
};
use crate::series::METRIC_NAME;

/// A range query whose value at a step depends on that step alone: the same query over a part of the range, on the same
/// grid, gives that part of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splittable {
    /// It takes the name off series. A database that drops more with it (`__type__` and `__unit__`, where Prometheus is
    /// set to keep them as labels) refuses the whole where these change, and not the parts.
    pub drops_names: bool,
}

/// The metric names among the series of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names<'a> {
    /// None has one.
    None,
    /// All have this one.
    One(&'a str),
    /// Two series may differ in nothing else.
    Mixed,
}

/// Whether the parts of a range query make the whole; `None` where they may not.
///
/// An expression stays whole that looks at the range itself, picks some of its series whichever comes first (`limitk`),
/// or may give two series the same labels (it drops names, or rewrites labels): Prometheus compares the series of the
/// whole range, and those that never meet in time are an error all the same.
pub fn splittable(ast: &Ast) -> Option<Splittable> {
    let mut walk = Walk { ast, names: Vec::with_capacity(ast.nodes.len()), drops_names: false };
    for node in &ast.nodes {
        let names = walk.node(&node.expr)?;
        walk.names.push(names);
    }
    Some(Splittable { drops_names: walk.drops_names })
}

struct Walk<'a> {
    ast: &'a Ast,
    /// Of the nodes so far: operands come before their operators.
    names: Vec<Names<'a>>,
    drops_names: bool,
}

impl<'a> Walk<'a> {
    fn get(&self, id: NodeId) -> Names<'a> {
        self.names.get(id.0 as usize).copied().unwrap_or(Names::Mixed)
    }

    fn is_scalar(&self, id: NodeId) -> bool {
        self.ast.nodes.get(id.0 as usize).is_some_and(|node| node.ty == ValueType::Scalar)
    }

    /// `None` ends the walk: the query stays whole.
    fn node(&mut self, expr: &'a Expr) -> Option<Names<'a>> {
        match expr {
            Expr::Selector(selector) => (!is_of_range(selector.at)).then(|| name_of(selector)),
            Expr::Subquery { expr, at, .. } => (!is_of_range(*at)).then(|| self.get(*expr)),
            Expr::Matrix { selector: inner, .. }
            | Expr::Paren(inner)
            | Expr::Unary { negative: false, expr: inner } => Some(self.get(*inner)),
            Expr::Unary { negative: true, expr } => self.dropped(&[*expr]),
            Expr::Call { func, args } => self.call(func, args),
            Expr::Aggregate { op, expr, grouping, .. } => match op {
                AggregateOp::Limitk | AggregateOp::LimitRatio => None,
                AggregateOp::Topk | AggregateOp::Bottomk => Some(self.get(*expr)),
                _ if !grouping.without && grouping.labels.iter().any(|label| &**label == METRIC_NAME) => {
                    Some(self.get(*expr))
                }
                _ => Some(Names::None),
            },
            Expr::Binary { op, lhs, rhs, return_bool, matching } => {
                let plain = matching.as_deref().is_none_or(|m| !m.on && m.group != Group::OneToMany);
                self.binary(*op, (*lhs, *rhs), *return_bool, plain)
            }
            Expr::DurationRange => None,
            Expr::Number(_) | Expr::String(_) | Expr::DurationStep | Expr::DurationMinMax { .. } => {
                Some(Names::None)
            }
        }
    }

    /// The same series without their names.
    fn dropped(&mut self, of: &[NodeId]) -> Option<Names<'a>> {
        if of.iter().any(|id| self.get(*id) == Names::Mixed) {
            return None;
        }
        self.drops_names |= of.iter().any(|id| self.get(*id) != Names::None);
        Some(Names::None)
    }

    fn call(&mut self, func: &Function, args: &[NodeId]) -> Option<Names<'a>> {
        use FunctionId as F;
        match func.id {
            F::Start | F::End | F::Range | F::LabelReplace | F::LabelJoin | F::Unknown => None,
            F::Absent | F::AbsentOverTime | F::Scalar => Some(Names::None),
            F::Sort
            | F::SortDesc
            | F::SortByLabel
            | F::SortByLabelDesc
            | F::FirstOverTime
            | F::LastOverTime
            | F::Info => Some(args.first().map_or(Names::None, |arg| self.get(*arg))),
            _ => self.dropped(args),
        }
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        (lhs, rhs): (NodeId, NodeId),
        return_bool: bool,
        plain: bool,
    ) -> Option<Names<'a>> {
        let (left, right) = (self.get(lhs), self.get(rhs));
        match op {
            BinaryOp::And | BinaryOp::Unless => Some(left),
            BinaryOp::Or => Some(if left == right { left } else { Names::Mixed }),
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Gt | BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Le
                if !return_bool =>
            {
                // A filter keeps the vector's labels; with `on` or `group_right`, those that the matching says.
                let kept = if self.is_scalar(lhs) { right } else { left };
                Some(if plain || kept == Names::None { kept } else { Names::Mixed })
            }
            _ => self.dropped(&[lhs, rhs]),
        }
    }
}

const fn is_of_range(at: Option<At>) -> bool {
    matches!(at, Some(At::Start | At::End))
}

fn name_of(selector: &Selector) -> Names<'_> {
    let mut names = selector.matchers.iter().filter(|m| &*m.name == METRIC_NAME && m.op == MatchOp::Equal);
    names.next().map_or(Names::Mixed, |m| Names::One(&m.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    #[test]
    fn what_may_differ_in_parts_stays_whole() {
        for (query, split) in [
            ("sum by(job)(rate(a[5m])) / on(job) b offset 1h", true),
            ("topk(3, a) or absent(b @ 1000)", true),
            ("max_over_time(rate(a[5m])[1h:1m] offset 5m)", true),
            ("time() - a", true),
            ("a or b", true),
            ("sum(a or b)", true),
            ("sort(a or b)", true),
            ("-(rate(a[5m]) or rate(b[5m]))", true),
            ("-(a or a offset 5m)", true),
            ("rate(a[step()])", true),
            (r#"sum by(job)({job=~"a|b"})"#, true),
            ("last_over_time((a or b)[1m:15s])", true),
            // They know where the range begins and ends.
            ("a @ start()", false),
            ("rate(a[5m] @ end())", false),
            ("max_over_time(a[1h:1m] @ end())", false),
            ("rate(a[range()])", false),
            ("a * range()", false),
            // Which series they take depends on which there are.
            ("limitk(3, a)", false),
            ("sum(limit_ratio(0.5, a))", false),
            // Two series may become one.
            ("-(a or b)", false),
            ("abs(a or b)", false),
            ("(a or b) * 2", false),
            ("(a or b) > bool 2", false),
            ("rate((a or b)[1m:15s])", false),
            ("rate(((a or b) > 0)[1m:15s])", false),
            ("-(a or rate(b[5m]))", false),
            ("-(a or (a > on(job) b))", false),
            ("-sum by(__name__)({job=\"x\"})", false),
            (r#"sum by(job)(rate({job=~"a|b"}[5m]))"#, false),
            (r#"sum(-{__name__=~"a|b"})"#, false),
            (r#"label_replace(a, "x", "$1", "y", "(.*)")"#, false),
            (r#"sum(label_join(a, "x", "", "y"))"#, false),
        ] {
            let ast = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(splittable(&ast).is_some(), split, "{query}");
        }
    }

    #[test]
    fn names_that_go_are_noticed() {
        for (query, drops) in [
            ("sum(a)", false),
            ("a > 1", false),
            ("sum(last_over_time(a[5m]))", false),
            ("rate(a[5m])", true),
            ("-a", true),
            ("sum(a) * 2", false),
        ] {
            let found = splittable(&parse(query).unwrap());
            assert_eq!(found, Some(Splittable { drops_names: drops }), "{query}");
        }
    }
}
