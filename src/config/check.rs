//! Walks the tree beside the schema of the raw structs and reports everything that does not fit.

use super::{
    diagnostic::{Diagnostic, Path, suggest},
    scalar,
    tree::{Key, Node, Value},
};
use serde_json::Value as Json;

/// Every mistake of shape in `node`: unknown and repeated keys, missing ones, wrong types, unreadable values.
pub(super) fn check(schema: &Json, node: &Node) -> Vec<Diagnostic> {
    let mut checker = Checker { root: schema, wrong: Vec::new() };
    checker.value(schema, node, &Path::default());
    checker.wrong
}

struct Checker<'a> {
    root: &'a Json,
    wrong: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn refuse(&mut self, node: &Node, path: &Path, message: impl Into<String>) {
        self.wrong.push(Diagnostic::new(node.position, path, message));
    }

    /// Follows `$ref` and takes the branch of an optional value that is not `null`.
    fn resolved(&self, schema: &'a Json) -> &'a Json {
        let mut at = schema;
        // References of the generated schema go a few levels deep and never in a circle.
        for _ in 0..8 {
            if let Some(name) = at.get("$ref").and_then(Json::as_str) {
                at = self.root.pointer(name.trim_start_matches('#')).unwrap_or(&Json::Null);
            } else if let Some(branches) = at.get("anyOf").and_then(Json::as_array) {
                let present = |branch: &&Json| branch.get("type").is_none_or(|t| t != "null");
                at = branches.iter().find(present).unwrap_or(&Json::Null);
            } else {
                break;
            }
        }
        at
    }

    fn value(&mut self, schema: &'a Json, node: &Node, path: &Path) {
        let schema = self.resolved(schema);
        // An empty value means its default; where there is none, `keys` reports the missing key.
        if matches!(node.value, Value::Null) {
            return;
        }
        if let Some(words) = words(schema) {
            return self.word(&words, node, path);
        }
        let expected = type_of(schema);
        match (&node.value, expected) {
            (Value::Map(entries), "object") => self.map(schema, entries, node, path),
            (Value::List(items), "array") => self.list(schema, items, node, path),
            (Value::Bool(_), "boolean") => {}
            (Value::Bool(b), "string") => {
                self.refuse(node, path, format!("expected text, found `{b}`; put it in quotes: \"{b}\""));
            }
            (Value::Scalar(text), "string") => {
                let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
                if let Err(message) = scalar::check(format, &text.text) {
                    self.refuse(node, path, format!("{message}; found {}", node.describe()));
                }
            }
            (_, expected) => {
                let article = match expected {
                    "object" => "a mapping",
                    "array" => "a list",
                    "boolean" => "`true` or `false`",
                    _ => "text or a number",
                };
                self.refuse(node, path, format!("expected {article}, found {}", node.describe()));
            }
        }
    }

    fn word(&mut self, words: &[&str], node: &Node, path: &Path) {
        let written = match &node.value {
            Value::Scalar(scalar) => scalar.text.as_str(),
            _ => "",
        };
        if !words.contains(&written) {
            let message =
                format!("{} is not one of the values; {}", node.describe(), suggest(written, words));
            self.refuse(node, path, message);
        }
    }

    fn list(&mut self, schema: &'a Json, items: &[Node], node: &Node, path: &Path) {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.refuse(node, path, format!("needs at least {least} item"));
        }
        let Some(item_schema) = schema.get("items") else { return };
        for (i, item) in items.iter().enumerate() {
            if matches!(item.value, Value::Null) {
                self.refuse(item, &path.index(i), "an empty item; remove the dash or write a value");
            }
            self.value(item_schema, item, &path.index(i));
        }
    }

    fn map(&mut self, schema: &'a Json, entries: &[(Key, Node)], node: &Node, path: &Path) {
        let known = schema.get("properties").and_then(Json::as_object);
        let names: Vec<&str> = known.into_iter().flat_map(|p| p.keys().map(String::as_str)).collect();
        for (i, (key, value)) in entries.iter().enumerate() {
            let at = path.key(&key.name);
            if let Some((first, _)) = entries.iter().take(i).find(|(earlier, _)| earlier.name == key.name) {
                let message = format!("key written twice; the first is on line {}", first.position.line);
                self.wrong.push(Diagnostic::new(key.position, &at, message));
            }
            match known.and_then(|p| p.get(&key.name)).or_else(|| open_map(schema)) {
                Some(inner) => self.value(inner, value, &at),
                None => {
                    let message = format!("unknown key; {}", suggest(&key.name, &names));
                    self.wrong.push(Diagnostic::new(key.position, &at, message));
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array);
        for name in required.into_iter().flatten().filter_map(Json::as_str) {
            if node.get(name).is_none_or(|value| matches!(value.value, Value::Null)) {
                self.refuse(node, path, format!("key `{name}` is missing"));
            }
        }
    }
}

/// The schema of the values of a mapping whose keys are free (tenants, headers).
fn open_map(schema: &Json) -> Option<&Json> {
    schema.get("additionalProperties").filter(|inner| inner.is_object())
}

fn type_of(schema: &Json) -> &str {
    match schema.get("type") {
        Some(Json::String(name)) => name,
        // `["string", "number"]` for a scalar, `["array", "null"]` for an optional list: the first says which.
        Some(Json::Array(names)) => names.first().and_then(Json::as_str).unwrap_or_default(),
        _ => "",
    }
}

/// The words of an enumeration, however the schema spells it.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return Some(values.iter().filter_map(Json::as_str).collect());
    }
    let branches = schema.get("oneOf").and_then(Json::as_array)?;
    let mut words = Vec::new();
    for branch in branches {
        match branch.get("const").and_then(Json::as_str) {
            Some(word) => words.push(word),
            None => {
                let several = branch.get("enum").and_then(Json::as_array)?;
                words.extend(several.iter().filter_map(Json::as_str));
            }
        }
    }
    Some(words)
}
