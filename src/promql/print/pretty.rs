//! Broken into lines.

use super::flat::{self, Flat};
use crate::promql::ast::{Ast, Expr, NodeId};

/// Longer lines are broken, bytes.
const LINE_MAX: usize = 100;
/// The indentation of a level.
const INDENT: &str = "  ";

/// The pieces that are still to be written.
enum Piece {
    /// A node at a level; the first line of a continued one stands on the line before it.
    Node {
        id: NodeId,
        level: usize,
        continued: bool,
    },
    Text(String),
    Indent(usize),
}

/// `None` when the text would be larger than `max` bytes.
pub(super) fn print(ast: &Ast, flat: &Flat, max: usize) -> Option<String> {
    let mut out = String::new();
    let mut left = vec![Piece::Node { id: ast.root, level: 0, continued: false }];
    let mut parts = Vec::new();
    while let Some(piece) = left.pop() {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Indent(level) => {
                if out.len() + level * INDENT.len() > max {
                    return None;
                }
                out.extend(std::iter::repeat_n(INDENT, level));
            }
            Piece::Node { id, level, continued } => {
                parts_of(ast, flat, id, level, continued, &mut parts);
                left.extend(parts.drain(..).rev());
            }
        }
        if out.len() > max {
            return None;
        }
    }
    Some(out)
}

fn parts_of(ast: &Ast, flat: &Flat, id: NodeId, level: usize, continued: bool, out: &mut Vec<Piece>) {
    let text = |text: &str| Piece::Text(text.to_owned());
    let below = |id| Piece::Node { id, level: level + 1, continued: false };
    let expr = ast.expr(id);
    let short = flat.part(id).len() <= LINE_MAX;
    // The left side of an operator indents itself, and so does the expression of a subquery; one that fits into a line
    // is not indented at all, in Prometheus neither.
    let inner_first = matches!(expr, Expr::Subquery { .. }) || !short && matches!(expr, Expr::Binary { .. });
    if !continued && !inner_first {
        out.push(Piece::Indent(level));
    }
    match expr {
        Expr::Unary { negative, expr } => {
            out.extend([text(flat::sign(*negative)), Piece::Node { id: *expr, level, continued: true }]);
        }
        _ if short => out.push(text(flat.part(id))),
        Expr::Aggregate { param, expr, .. } => {
            let mut head = String::new();
            flat::aggregation(ast, id, &mut head);
            out.push(Piece::Text(head + "(\n"));
            if let Some(param) = param {
                out.extend([below(*param), text(",\n")]);
            }
            out.extend([below(*expr), text("\n"), Piece::Indent(level), text(")")]);
        }
        Expr::Call { func, args } => {
            out.push(Piece::Text(format!("{}(\n", func.name)));
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push(text(",\n"));
                }
                out.push(below(*arg));
            }
            out.extend([text("\n"), Piece::Indent(level), text(")")]);
        }
        Expr::Binary { lhs, rhs, .. } => {
            let mut operator = String::new();
            flat::binary(ast, id, &mut operator);
            out.push(Piece::Node { id: *lhs, level: level + 1, continued });
            out.extend([text("\n"), Piece::Indent(level), Piece::Text(operator + "\n"), below(*rhs)]);
        }
        Expr::Paren(inner) => {
            out.extend([text("(\n"), below(*inner), text("\n"), Piece::Indent(level), text(")")]);
        }
        Expr::Subquery { expr, .. } => {
            let mut suffix = String::new();
            flat::subquery(ast, id, &mut suffix);
            out.extend([Piece::Node { id: *expr, level, continued }, Piece::Text(suffix)]);
        }
        _ => out.push(text(flat.part(id))),
    }
}
