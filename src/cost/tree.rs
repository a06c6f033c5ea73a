//! The price of a query node by node, as the estimate has it: it shows the expensive part of a query.

use super::{Estimated, LabelTable, Model, estimate::leaf, interpret};
use crate::{
    base::{Confidence, Estimate},
    promql::{
        ast::{Ast, Expr, Grouping, NodeId, Span},
        shape::{NodeShape, Reads, Shape},
    },
};

/// Nodes that are listed.
const NODES_MAX: usize = 200;
/// Characters of a literal in a node's name.
const LITERAL_CHARS: usize = 40;

/// One node of the syntax tree, with what it makes and what the backend holds for it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEstimate {
    /// Nodes above it.
    pub depth: u32,
    /// Its own part of the text: `sum by (job)`, `rate`, a selector.
    pub name: String,
    /// Where the whole of it stands in the query.
    pub span: Span,
    /// Series that it makes.
    pub series: Estimate,
    /// Series × steps that it makes.
    pub points: Estimate,
    /// The most bytes held at a time until it is done, the series below it included.
    pub memory: Estimate,
    /// Raw samples that it reads, where it is a selector.
    pub samples: Option<Estimate>,
}

/// The nodes of a query from the root down, operands in the order of the text; empty for what evaluates nothing. The first
/// two hundred.
pub fn tree(
    shape: &Shape,
    estimated: &Estimated,
    table: Option<&LabelTable>,
    model: &Model,
) -> Vec<NodeEstimate> {
    let Reads::Query(ast) = &shape.reads else { return Vec::new() };
    // A limit that the text passes by itself is found before anything is priced.
    if estimated.selectors.len() != shape.selectors.len() {
        return Vec::new();
    }
    let leaves: Vec<_> = shape
        .selectors
        .iter()
        .zip(&estimated.selectors)
        .map(|(shape, estimate)| leaf(shape, estimate.knowledge(), model))
        .collect();
    let nodes = interpret::nodes(shape, ast, &leaves, table, model.kind);
    let mut listed = Vec::new();
    let mut open: Vec<(NodeId, u32)> = vec![(ast.root, 0)];
    // What a node rests on is known when its operands are: from the leaves up, in the order of the arena.
    let confidences = confidences(shape, ast, estimated);
    while let Some((id, depth)) = open.pop() {
        if listed.len() == NODES_MAX {
            break;
        }
        let index = id.0 as usize;
        let (Some(node), Some(shown), Some(priced)) =
            (ast.nodes.get(index), shape.nodes.get(index), nodes.get(index))
        else {
            continue;
        };
        let below = node.expr.operands();
        if let Expr::Paren(inner) = node.expr {
            open.push((inner, depth));
            continue;
        }
        let confidence = confidences.get(index).copied().unwrap_or(Confidence::Exact);
        let of = |value| Estimate::new(value, confidence);
        let selector =
            selector_of(shape, &node.expr, *shown).and_then(|place| estimated.selectors.get(place));
        listed.push(NodeEstimate {
            depth,
            name: name(ast, id),
            span: node.span,
            series: selector
                .filter(|_| below.is_empty())
                .map_or(of(priced.series), |selector| selector.series),
            points: of(priced.points),
            memory: of(priced.bytes),
            samples: selector.map(|selector| selector.samples),
        });
        open.extend(below.into_iter().rev().map(|operand| (operand, depth + 1)));
    }
    listed
}

/// How each node's numbers are known: as the worst of the selectors below, and no better than a bound above them.
fn confidences(shape: &Shape, ast: &Ast, estimated: &Estimated) -> Vec<Confidence> {
    let mut known = Vec::<Confidence>::with_capacity(ast.nodes.len());
    for (index, node) in ast.nodes.iter().enumerate() {
        let place = shape.nodes.get(index).and_then(|shown| selector_of(shape, &node.expr, *shown));
        let own = place.and_then(|place| estimated.selectors.get(place));
        let own = own.map_or(Confidence::Exact, |selector| selector.samples.confidence);
        let below =
            node.expr.operands().into_iter().filter_map(|operand| known.get(operand.0 as usize).copied());
        known.push(below.fold(own, Confidence::max));
    }
    known
}

/// The place of the selector that a node reads.
fn selector_of(shape: &Shape, expr: &Expr, shown: NodeShape) -> Option<usize> {
    let place = match expr {
        Expr::Matrix { selector, .. } => shape.nodes.get(selector.0 as usize)?.selector,
        _ => shown.selector,
    };
    place.map(|place| place as usize)
}

fn name(ast: &Ast, id: NodeId) -> String {
    let text = ast.text_of(id);
    match ast.expr(id) {
        Expr::Number(_) | Expr::String(_) => short(text, LITERAL_CHARS),
        Expr::Selector(_) | Expr::Matrix { .. } => short(text, 5 * LITERAL_CHARS),
        Expr::Subquery { expr, .. } => behind(ast, id, *expr),
        Expr::Call { func, .. } => func.name.to_owned(),
        Expr::Aggregate { op, grouping, .. } => format!("{}{}", op.name(), grouped(grouping)),
        Expr::Binary { op, .. } => op.symbol().to_owned(),
        Expr::Unary { negative, .. } => if *negative { "-" } else { "+" }.to_owned(),
        Expr::Paren(_) | Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {
            short(text, LITERAL_CHARS)
        }
    }
}

/// The text of a subquery behind its operand: `[1h:1m] offset 1d`.
fn behind(ast: &Ast, id: NodeId, operand: NodeId) -> String {
    let (text, start) = (ast.text_of(id), ast.node(id).span.start);
    let end = ast.node(operand).span.end.saturating_sub(start) as usize;
    short(text.get(end..).unwrap_or(text).trim_start(), 2 * LITERAL_CHARS)
}

fn grouped(grouping: &Grouping) -> String {
    let Grouping { without, labels } = grouping;
    match (without, &labels[..]) {
        (false, []) => String::new(),
        (true, labels) => format!(" without ({})", labels.join(", ")),
        (false, labels) => format!(" by ({})", labels.join(", ")),
    }
}

fn short(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
