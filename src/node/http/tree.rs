//! `parse_query`: the syntax tree as JSON, in the shape that Prometheus' own page reads.

use serde_json::{Value, json};

use crate::promql::ast::{
    AggregateOp, Ast, At, BinaryOp, DurationExpr, Expr, Group, MatchOp, NodeId, Selector, ValueType,
    VectorMatching,
};

/// The tree below a node. The parser bounds its depth.
pub(super) fn of(ast: &Ast, id: NodeId) -> Value {
    match ast.expr(id) {
        Expr::Number(value) => json!({"type": "numberLiteral", "val": value.to_string()}),
        Expr::String(text) => json!({"type": "stringLiteral", "val": text}),
        Expr::Paren(inner) => json!({"type": "parenExpr", "expr": of(ast, *inner)}),
        Expr::Unary { negative, expr } => {
            json!({"type": "unaryExpr", "op": if *negative { "-" } else { "+" }, "expr": of(ast, *expr)})
        }
        Expr::Selector(selector) => vector(selector),
        Expr::Matrix { selector, range } => {
            let mut node = match ast.expr(*selector) {
                Expr::Selector(selector) => vector(selector),
                _ => json!({}),
            };
            node["type"] = "matrixSelector".into();
            node["range"] = literal(*range);
            node
        }
        Expr::Subquery { expr, range, step, at, offset } => {
            let (timestamp, start_or_end) = instant(*at);
            json!({
                "type": "subquery", "expr": of(ast, *expr), "range": literal(*range),
                "step": step.map_or(json!(0), literal), "offset": offset.map_or(json!(0), literal),
                "timestamp": timestamp, "startOrEnd": start_or_end,
            })
        }
        Expr::Call { func, args } => json!({
            "type": "call",
            "func": {
                "name": func.name, "variadic": func.variadic, "returnType": kind(func.returns),
                "argTypes": func.args.iter().map(|ty| kind(*ty)).collect::<Vec<_>>(),
            },
            "args": args.iter().map(|arg| of(ast, *arg)).collect::<Vec<_>>(),
        }),
        Expr::Aggregate { op, param, expr, grouping } => json!({
            "type": "aggregation", "op": aggregation(*op), "expr": of(ast, *expr),
            "param": param.map(|param| of(ast, param)), "grouping": grouping.labels,
            "without": grouping.without,
        }),
        Expr::Binary { op, lhs, rhs, return_bool, matching } => json!({
            "type": "binaryExpr", "op": operator(*op), "lhs": of(ast, *lhs), "rhs": of(ast, *rhs),
            "bool": return_bool, "matching": matching.as_deref().map(joined),
        }),
        // What stands inside `[…]`; the node around it shows the text.
        Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {
            json!({"type": "durationExpr", "text": ast.text_of(id)})
        }
    }
}

fn vector(selector: &Selector) -> Value {
    let (timestamp, start_or_end) = instant(selector.at);
    let name = selector.matchers.iter().find(|m| &*m.name == "__name__" && m.op == MatchOp::Equal);
    let matchers = selector.matchers.iter().map(|m| {
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

fn kind(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
        ValueType::Duration => "duration",
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

fn aggregation(op: AggregateOp) -> &'static str {
    match op {
        AggregateOp::Sum => "sum",
        AggregateOp::Avg => "avg",
        AggregateOp::Count => "count",
        AggregateOp::Min => "min",
        AggregateOp::Max => "max",
        AggregateOp::Group => "group",
        AggregateOp::Stddev => "stddev",
        AggregateOp::Stdvar => "stdvar",
        AggregateOp::Topk => "topk",
        AggregateOp::Bottomk => "bottomk",
        AggregateOp::CountValues => "count_values",
        AggregateOp::Quantile => "quantile",
        AggregateOp::Limitk => "limitk",
        AggregateOp::LimitRatio => "limit_ratio",
    }
}

fn operator(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Atan2 => "atan2",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Gt => ">",
        BinaryOp::Lt => "<",
        BinaryOp::Ge => ">=",
        BinaryOp::Le => "<=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
        BinaryOp::Unless => "unless",
        BinaryOp::TrimUpper => "</",
        BinaryOp::TrimLower => ">/",
    }
}
