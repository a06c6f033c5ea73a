//! The changes of a reload, in lines for an operator.

use super::load::Loaded;
use serde::Serialize;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The settings that differ: `limits.default.per_query.series: 50,000 -> 10,000`. Secrets are named, never shown.
pub fn diff(old: &Loaded, new: &Loaded) -> Vec<String> {
    let mut lines = changes(&old.raw, &new.raw);
    lines.extend(secrets(old, new));
    lines.sort();
    lines
}

/// The differences between two configurations, one line each, sorted by path.
pub(super) fn changes<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    let (before, after) = (flat(old), flat(new));
    let mut lines = Vec::new();
    for (path, value) in &before {
        match after.get(path) {
            Some(now) if now == value => {}
            Some(now) => lines.push(format!("{path}: {value} -> {now}")),
            None => lines.push(format!("{path}: {value} -> (not set)")),
        }
    }
    for (path, value) in after.iter().filter(|(path, _)| !before.contains_key(*path)) {
        lines.push(format!("{path}: (not set) -> {value}"));
    }
    lines.sort();
    lines
}

fn flat(raw: &impl Serialize) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    // Serialising plain structs into a value cannot fail; if it ever did, the diff would only be empty.
    let value = serde_json::to_value(raw).unwrap_or_default();
    flatten(&value, String::new(), &mut out);
    out
}

fn flatten(value: &Json, path: String, out: &mut BTreeMap<String, String>) {
    match value {
        Json::Object(fields) => {
            for (key, inner) in fields {
                flatten(inner, if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, out);
            }
        }
        Json::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                // A list of named things reads better by name, and a reordering is no change of each of them.
                let step = item.get("name").and_then(Json::as_str).map_or(i.to_string(), str::to_owned);
                flatten(item, format!("{path}[{step}]"), out);
            }
        }
        Json::Null => {}
        Json::String(text) => {
            out.insert(path, text.clone());
        }
        other => {
            out.insert(path, other.to_string());
        }
    }
}

fn secrets(old: &Loaded, new: &Loaded) -> Vec<String> {
    let mut lines = Vec::new();
    for backend in &new.raw.backends {
        let Some(before) = old.raw.backends.iter().find(|b| b.name == backend.name) else { continue };
        for (name, value) in &backend.headers {
            if before.headers.get(name).is_some_and(|earlier| earlier != value) {
                lines.push(format!(
                    "backends[{}].headers.{name}: (hidden) -> (hidden, changed)",
                    backend.name
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{super::load_text, *};

    fn load(text: &str) -> Loaded {
        load_text("test", text, &|_| None).unwrap()
    }

    #[test]
    fn changes_are_named_by_path_and_secrets_stay_hidden() {
        let old = load("backends: [{name: a, headers: {Authorization: one}}]");
        let new = load(
            "backends: [{name: a, headers: {Authorization: two}}]\n\
             limits: {default: {per_query: {series: 10_000}}, tenants: {noisy: {mode: shadow}}}",
        );
        assert_eq!(diff(&old, &old), Vec::<String>::new());
        assert_eq!(
            diff(&old, &new),
            [
                "backends[a].headers.Authorization: (hidden) -> (hidden, changed)",
                "limits.default.per_query.series: 50,000 -> 10,000",
                "limits.tenants.noisy.mode: (not set) -> shadow",
            ]
        );
    }
}
