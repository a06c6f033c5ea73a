//! On one line.

use std::ops::Range;

use super::text;
use crate::promql::ast::{Ast, Edges, Expr, Group, MatchOp, Matcher, NodeId, Selector, VectorMatching};

/// The whole query, and which part of it is which node.
pub(super) struct Flat {
    pub(super) text: String,
    ranges: Vec<Range<usize>>,
}

/// The pieces that are still to be written.
enum Piece {
    Node(NodeId),
    Text(String),
    /// Here the node's part ends.
    End(NodeId),
}

impl Flat {
    pub(super) fn of(ast: &Ast) -> Self {
        let mut flat =
            Self { text: String::with_capacity(ast.text.len()), ranges: vec![0..0; ast.nodes.len()] };
        let mut left = vec![Piece::Node(ast.root)];
        let mut parts = Vec::new();
        while let Some(piece) = left.pop() {
            match piece {
                Piece::Text(text) => flat.text.push_str(&text),
                Piece::End(id) => {
                    if let Some(range) = flat.ranges.get_mut(id.0 as usize) {
                        range.end = flat.text.len();
                    }
                }
                Piece::Node(id) => {
                    if let Some(range) = flat.ranges.get_mut(id.0 as usize) {
                        range.start = flat.text.len();
                    }
                    left.push(Piece::End(id));
                    parts_of(ast, id, &mut parts);
                    left.extend(parts.drain(..).rev());
                }
            }
        }
        flat
    }

    /// A node as it stands in the line.
    pub(super) fn part(&self, id: NodeId) -> &str {
        self.ranges.get(id.0 as usize).and_then(|range| self.text.get(range.clone())).unwrap_or_default()
    }
}

/// The texts and operands of a node, in order.
fn parts_of(ast: &Ast, id: NodeId, out: &mut Vec<Piece>) {
    let mut text = String::new();
    match ast.expr(id) {
        Expr::Number(value) => text::literal(ast.text_of(id), *value, &mut text),
        Expr::String(value) => text::quoted(value, &mut text),
        Expr::Selector(s) => {
            selector(ast, id, s, &mut text);
            edges(s, &mut text);
            text::modifiers(ast, s.at, s.offset, &mut text);
        }
        Expr::Matrix { selector: inner, range } => {
            if let Expr::Selector(s) = ast.expr(*inner) {
                selector(ast, *inner, s, &mut text);
                text.push('[');
                text::duration(ast, *range, &mut text);
                text.push(']');
                edges(s, &mut text);
                text::modifiers(ast, s.at, s.offset, &mut text);
            }
        }
        Expr::Subquery { expr, .. } => {
            out.push(Piece::Node(*expr));
            subquery(ast, id, &mut text);
        }
        Expr::Call { func, args } => {
            out.push(Piece::Text(format!("{}(", func.name)));
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push(Piece::Text(", ".to_owned()));
                }
                out.push(Piece::Node(*arg));
            }
            text.push(')');
        }
        Expr::Aggregate { param, expr, .. } => {
            let mut head = String::new();
            aggregation(ast, id, &mut head);
            head.push('(');
            out.push(Piece::Text(head));
            if let Some(param) = param {
                out.extend([Piece::Node(*param), Piece::Text(", ".to_owned())]);
            }
            out.push(Piece::Node(*expr));
            text.push(')');
        }
        Expr::Binary { lhs, rhs, .. } => {
            let mut operator = " ".to_owned();
            binary(ast, id, &mut operator);
            operator.push(' ');
            out.extend([Piece::Node(*lhs), Piece::Text(operator), Piece::Node(*rhs)]);
        }
        Expr::Unary { negative, expr } => {
            out.extend([Piece::Text(sign(*negative).to_owned()), Piece::Node(*expr)]);
        }
        Expr::Paren(inner) => {
            out.extend([Piece::Text("(".to_owned()), Piece::Node(*inner)]);
            text.push(')');
        }
        Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {
            text.push_str(ast.text_of(id));
        }
    }
    out.push(Piece::Text(text));
}

pub(super) fn sign(negative: bool) -> &'static str {
    if negative { "-" } else { "+" }
}

fn selector(ast: &Ast, id: NodeId, selector: &Selector, out: &mut String) {
    let in_braces = ast.text_of(id).starts_with('{');
    let matchers = match selector.matchers.split_first() {
        Some((name, rest)) if !in_braces && &*name.name == "__name__" => {
            out.push_str(&name.value);
            rest
        }
        _ => &selector.matchers[..],
    };
    if matchers.is_empty() {
        return;
    }
    let mut texts: Vec<String> = matchers.iter().map(matcher).collect();
    texts.sort_unstable();
    out.extend(["{", &texts.join(","), "}"]);
}

fn matcher(matcher: &Matcher) -> String {
    let mut out = String::new();
    text::name(&matcher.name, &mut out);
    out.push_str(match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Regex => "=~",
        MatchOp::NotRegex => "!~",
    });
    text::quoted(&matcher.value, &mut out);
    out
}

fn edges(selector: &Selector, out: &mut String) {
    out.push_str(match selector.edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    });
}

/// `[range:step]` and its modifiers.
pub(super) fn subquery(ast: &Ast, id: NodeId, out: &mut String) {
    let Expr::Subquery { range, step, at, offset, .. } = ast.expr(id) else { return };
    out.push('[');
    text::duration(ast, *range, out);
    out.push(':');
    if let Some(step) = step {
        text::duration(ast, *step, out);
    }
    out.push(']');
    text::modifiers(ast, *at, *offset, out);
}

/// The operator and its grouping.
pub(super) fn aggregation(ast: &Ast, id: NodeId, out: &mut String) {
    let Expr::Aggregate { op, grouping, .. } = ast.expr(id) else { return };
    out.push_str(op.name());
    if grouping.without || !grouping.labels.is_empty() {
        out.push_str(if grouping.without { " without (" } else { " by (" });
        text::names(&grouping.labels, out);
        out.push_str(") ");
    }
}

/// The operator, and how the sides are joined.
pub(super) fn binary(ast: &Ast, id: NodeId, out: &mut String) {
    let Expr::Binary { op, return_bool, matching, .. } = ast.expr(id) else { return };
    out.push_str(op.symbol());
    if *return_bool {
        out.push_str(" bool");
    }
    if let Some(matching) = matching {
        joined(matching, out);
    }
}

fn joined(matching: &VectorMatching, out: &mut String) {
    let group = match matching.group {
        Group::ManyToOne => Some(" group_left ("),
        Group::OneToMany => Some(" group_right ("),
        Group::OneToOne | Group::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        out.push_str(if matching.on { " on (" } else { " ignoring (" });
        text::names(&matching.labels, out);
        out.push(')');
    }
    if let Some(group) = group {
        out.push_str(group);
        text::names(&matching.include, out);
        out.push(')');
    }
    let fill = |word: &str, value: f64, out: &mut String| {
        out.extend([" ", word, " ("]);
        text::number(value, out);
        out.push(')');
    };
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => fill("fill", left, out),
        (left, right) => {
            if let Some(value) = left {
                fill("fill_left", value, out);
            }
            if let Some(value) = right {
                fill("fill_right", value, out);
            }
        }
    }
}
