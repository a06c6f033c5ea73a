//! `parse_query`: the syntax tree as JSON, in the shape that Prometheus' own page reads.

use serde_json::{Value, json};

use crate::promql::ast::{Ast, At, DurationExpr, Expr, Group, MatchOp, NodeId, Selector, VectorMatching};

/// The pieces that are still to be written.
enum Piece {
    Node(NodeId),
    Text(String),
}

/// The tree as JSON, its keys in the order of the alphabet. A stack stands in for recursion: `1+1+…` is a tree as deep
/// as it is long.
pub(super) fn json_of(ast: &Ast) -> String {
    let mut out = String::new();
    let mut left = vec![Piece::Node(ast.root)];
    let mut parts = Vec::new();
    while let Some(piece) = left.pop() {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Node(id) => {
                parts_of(ast, id, &mut parts);
                left.extend(parts.drain(..).rev());
            }
        }
    }
    out
}

fn parts_of(ast: &Ast, id: NodeId, out: &mut Vec<Piece>) {
    match ast.expr(id) {
        Expr::Number(value) => {
            let text = if value.is_infinite() { go_infinity(*value).to_owned() } else { value.to_string() };
            object(out, json!({"type": "numberLiteral", "val": text}), &[]);
        }
        Expr::String(text) => object(out, json!({"type": "stringLiteral", "val": text}), &[]),
        Expr::Paren(inner) => object(out, json!({"type": "parenExpr"}), &[("expr", &[*inner], false)]),
        Expr::Unary { negative, expr } => {
            let op = if *negative { "-" } else { "+" };
            object(out, json!({"op": op, "type": "unaryExpr"}), &[("expr", &[*expr], false)]);
        }
        Expr::Selector(selector) => object(out, vector(ast, id, selector), &[]),
        Expr::Matrix { selector, range } => {
            let mut node = match ast.expr(*selector) {
                Expr::Selector(inner) => vector(ast, *selector, inner),
                _ => json!({}),
            };
            node["type"] = "matrixSelector".into();
            node["range"] = literal(*range);
            object(out, node, &[]);
        }
        Expr::Subquery { expr, range, step, at, offset } => {
            let (timestamp, start_or_end) = instant(*at);
            let own = json!({
                "type": "subquery", "range": literal(*range), "step": step.map_or(json!(0), literal),
                "offset": offset.map_or(json!(0), literal), "timestamp": timestamp, "startOrEnd": start_or_end,
            });
            object(out, own, &[("expr", &[*expr], false)]);
        }
        Expr::Call { func, args } => {
            let own = json!({
                "type": "call",
                "func": {
                    "name": func.name, "variadic": func.variadic, "returnType": func.returns.as_str(),
                    "argTypes": func.args.iter().map(|ty| ty.as_str()).collect::<Vec<_>>(),
                },
            });
            object(out, own, &[("args", args, true)]);
        }
        Expr::Aggregate { op, param, expr, grouping } => {
            let mut own = json!({
                "type": "aggregation", "op": op.name(), "grouping": grouping.labels, "without": grouping.without,
            });
            let expr = ("expr", &[*expr][..], false);
            if let Some(param) = param {
                object(out, own, &[expr, ("param", &[*param], false)]);
            } else {
                own["param"] = Value::Null;
                object(out, own, &[expr]);
            }
        }
        Expr::Binary { op, lhs, rhs, return_bool, matching } => {
            let own = json!({
                "type": "binaryExpr", "op": op.symbol(), "bool": return_bool,
                "matching": matching.as_deref().map(joined),
            });
            object(out, own, &[("lhs", &[*lhs], false), ("rhs", &[*rhs], false)]);
        }
        // The text inside `[…]`; the node around it shows it.
        Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {
            object(out, json!({"type": "durationExpr", "text": ast.text_of(id)}), &[]);
        }
    }
}

/// An object of its own keys and of those that hold other nodes, as a list or alone.
fn object(out: &mut Vec<Piece>, own: Value, nodes: &[(&str, &[NodeId], bool)]) {
    let mut keys: Vec<(&str, Option<&Value>)> = nodes.iter().map(|(key, ..)| (*key, None)).collect();
    keys.extend(own.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), Some(value))));
    keys.sort_unstable_by_key(|(key, _)| *key);
    for (i, (key, value)) in keys.into_iter().enumerate() {
        let comma = if i == 0 { "{" } else { "," };
        if let Some(value) = value {
            out.push(Piece::Text(format!("{comma}\"{key}\":{value}")));
            continue;
        }
        let held = nodes.iter().find(|(name, ..)| *name == key);
        let (ids, list) = held.map_or((&[][..], false), |(_, ids, list)| (*ids, *list));
        out.push(Piece::Text(format!("{comma}\"{key}\":{}", if list { "[" } else { "" })));
        for (i, id) in ids.iter().enumerate() {
            if i > 0 {
                out.push(Piece::Text(",".to_owned()));
            }
            out.push(Piece::Node(*id));
        }
        if list {
            out.push(Piece::Text("]".to_owned()));
        }
    }
    out.push(Piece::Text("}".to_owned()));
}

fn go_infinity(value: f64) -> &'static str {
    if value > 0.0 { "+Inf" } else { "-Inf" }
}

fn vector(ast: &Ast, id: NodeId, selector: &Selector) -> Value {
    let (timestamp, start_or_end) = instant(selector.at);
    // Only the text before the braces is the name.
    let name = selector.matchers.first().filter(|_| !ast.text_of(id).starts_with('{'));
    // Prometheus lists the name behind the others.
    let (front, rest) = selector.matchers.split_at(usize::from(name.is_some()));
    let matchers = rest.iter().chain(front).map(|m| {
        let op = match m.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        json!({"name": m.name, "type": op, "value": m.value})
    });
    json!({
        "type": "vectorSelector", "name": name.map_or("", |m| &*m.value),
        "matchers": matchers.collect::<Vec<_>>(), "offset": selector.offset.map_or(json!(0), literal),
        "timestamp": timestamp, "startOrEnd": start_or_end,
    })
}

/// Milliseconds; a computed duration is known only when the query runs.
fn literal(duration: DurationExpr) -> Value {
    match duration {
        DurationExpr::Literal(ms) => json!(ms),
        DurationExpr::Computed(_) => Value::Null,
    }
}

fn instant(at: Option<At>) -> (Value, Value) {
    match at {
        None => (Value::Null, Value::Null),
        Some(At::Timestamp(ms)) => (json!(ms), Value::Null),
        Some(At::Start) => (Value::Null, json!("start")),
        Some(At::End) => (Value::Null, json!("end")),
    }
}

fn joined(matching: &VectorMatching) -> Value {
    let card = match matching.group {
        Group::OneToOne => "one-to-one",
        Group::ManyToOne => "many-to-one",
        Group::OneToMany => "one-to-many",
        Group::ManyToMany => "many-to-many",
    };
    json!({"card": card, "labels": matching.labels, "on": matching.on, "include": matching.include})
}
