//! Which nodes have the same value at every step, as Prometheus' `PreprocessExpr` finds them.

use crate::promql::ast::{Ast, Expr, NodeId, Selector};

/// One flag for each node: operands come before their operators, so one pass sees every operand first.
pub(super) fn invariants(ast: &Ast) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let flag = |id: &NodeId| flags.get(id.0 as usize).copied().unwrap_or(false);
        flags.push(match &node.expr {
            Expr::Number(_) | Expr::String(_) => true,
            Expr::Selector(Selector { at, .. }) | Expr::Subquery { at, .. } => at.is_some(),
            Expr::Matrix { selector, .. } => flag(selector),
            Expr::Call { func, args } => {
                let over_selector = || args.iter().all(|arg| is_selector(ast, *arg));
                let is_timestamp = func.id == crate::promql::function::FunctionId::Timestamp;
                let depends = func.id.depends_on_time() && !(is_timestamp && over_selector());
                !depends && args.iter().all(flag)
            }
            Expr::Aggregate { param, expr, .. } => flag(expr) && param.as_ref().is_none_or(flag),
            Expr::Binary { lhs, rhs, .. } => flag(lhs) && flag(rhs),
            Expr::Unary { expr, .. } | Expr::Paren(expr) => flag(expr),
            Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => false,
        });
    }
    flags
}

/// Whether a node that is invariant is evaluated once and copied: literals are evaluated at each step as they are,
/// parentheses leave it to their content, ranges to the function over them.
pub(super) fn is_copied(expr: &Expr) -> bool {
    match expr {
        Expr::Selector(_)
        | Expr::Call { .. }
        | Expr::Aggregate { .. }
        | Expr::Binary { .. }
        | Expr::Unary { .. } => true,
        Expr::Number(_)
        | Expr::String(_)
        | Expr::Matrix { .. }
        | Expr::Subquery { .. }
        | Expr::Paren(_)
        | Expr::DurationStep
        | Expr::DurationRange
        | Expr::DurationMinMax { .. } => false,
    }
}

fn is_selector(ast: &Ast, mut id: NodeId) -> bool {
    loop {
        match ast.nodes.get(id.0 as usize).map(|node| &node.expr) {
            Some(Expr::Selector(_)) => return true,
            // Operands come first: the index falls.
            Some(Expr::Paren(inner)) if *inner < id => id = *inner,
            _ => return false,
        }
    }
}
