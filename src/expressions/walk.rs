//! Finds expressions wherever they stand: in panels, rows, targets, groups and rules, in every version of their schemas.

use serde_json::{Map, Value};

use super::{Document, Evaluation, Expression};

/// Levels of a document.
const DEPTH_MAX: usize = 64;

/// Title, range and step that the objects around an expression give it.
#[derive(Clone, Default)]
struct Around<'v> {
    /// Titles, and names of groups and rules, the outermost first.
    names: Vec<&'v str>,
    min_interval: Option<&'v str>,
    max_points: Option<u64>,
    group: Option<RuleGroup<'v>>,
}

/// A group of rules.
#[derive(Clone)]
struct RuleGroup<'v> {
    /// The time between two evaluations.
    interval: Option<&'v str>,
}

pub(super) fn walk(value: &Value, document: &mut Document) {
    visit(value, &Around::default(), document, 0);
}

fn visit<'v>(value: &'v Value, around: &Around<'v>, document: &mut Document, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| visit(value, around, document, depth + 1)),
        Value::Object(fields) => object(fields, around, document, depth),
        _ => {}
    }
}

fn object<'v>(fields: &'v Map<String, Value>, around: &Around<'v>, document: &mut Document, depth: usize) {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if document.variables.add(fields) {
        return;
    }
    if let Some(time) = fields.get("time").filter(|_| document.time.is_none()) {
        let end = |name: &str| time.get(name).and_then(Value::as_str).map(str::to_owned);
        document.time = end("from").zip(end("to"));
    }
    let mut around = around.clone();
    let is_group = fields.get("rules").is_some_and(Value::is_array);
    let group = text("name").filter(|_| is_group);
    around.names.extend(text("title").or(group).or_else(|| text("alert")).or_else(|| text("record")));
    if is_group {
        around.group = Some(RuleGroup { interval: text("interval") });
    } else {
        around.min_interval =
            text("interval").filter(|interval| !interval.is_empty()).or(around.min_interval);
    }
    around.max_points = fields.get("maxDataPoints").and_then(Value::as_u64).or(around.max_points);
    for (name, value) in fields {
        match value {
            Value::String(text) if is_expression(name, fields) => {
                if !text.trim().is_empty() {
                    document.expressions.push(expression(text, fields, &around));
                }
            }
            // A dashboard in a ConfigMap of Kubernetes.
            Value::String(text) if text.trim_start().starts_with('{') => {
                if let Ok(inner) = serde_json::from_str::<Value>(text) {
                    visit(&inner, &around, document, depth + 1);
                }
            }
            _ => visit(value, &around, document, depth + 1),
        }
    }
}

/// `expr`, and `query` beside a `severity`, as collections of alerts have it.
fn is_expression(name: &str, fields: &Map<String, Value>) -> bool {
    name == "expr" || name == "query" && fields.contains_key("severity")
}

fn expression(text: &str, fields: &Map<String, Value>, around: &Around<'_>) -> Expression {
    let is_set = |name: &str| fields.get(name).and_then(Value::as_bool) == Some(true);
    let evaluation = match &around.group {
        Some(group) => Evaluation::Rule { every: group.interval.map(str::to_owned) },
        None if is_set("instant") && !is_set("range") => Evaluation::Instant,
        None => Evaluation::Graph {
            min_interval: around.min_interval.map(str::to_owned),
            max_points: around.max_points,
        },
    };
    Expression { place: around.names.join(" / "), text: text.to_owned(), evaluation }
}
