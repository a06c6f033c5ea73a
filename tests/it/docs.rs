//! Documents that must agree with the program: every key of the configuration, every error.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;
use weir::{
    base::ErrorKind,
    config,
    limit::{LimitName, WaitReason},
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

const HEAD: &str = "\
# Configuration

Every key of `weir proxy --config FILE` with its form and its default. [config/weir.yaml](../config/weir.yaml) is the same as a file to
start from, `weir check-config FILE` reports every mistake with its line, and [config/weir.schema.json](../config/weir.schema.json) lets
an editor do so while you type.

Sizes are `4GiB` or `512MB`, durations `15s` or `1h30m`, counts `50_000` or `5M`, rates `50/s` or `600/m`, shares `20%`. Limits take
the word `unlimited`; zero is refused everywhere. `${NAME}` and `${NAME:-default}` inside a value read the environment.

This page is made from the schema; a test compares the two.
";

/// `WEIR_TEST_BLESS=1 cargo test --test it docs` writes the file anew.
#[test]
fn the_reference_of_the_configuration_is_what_the_schema_says() {
    let defaults = serde_json::to_value(config::raw::Raw::default()).unwrap();
    let schema = config::schema();
    let mut page = HEAD.to_owned();
    section(&mut page, &schema, &schema, Some(&defaults), "");
    let file = path("docs/configuration.md");
    if config::env::var("WEIR_TEST_BLESS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is not what src/config/raw.rs says; see the comment of this test"
    );
}

/// The alert's runbook says of each reason why a query waits what to do.
#[test]
fn the_runbook_of_waiting_queries_has_every_reason() {
    let page = fs::read_to_string(path("docs/runbooks.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("WeirQueryWaitsForLong")).unwrap();
    for label in WaitReason::ALL.map(WaitReason::label) {
        assert!(section.contains(&format!("`{label}`")), "docs/runbooks.md lacks `{label}`");
    }
}

/// One mapping: its keys as a table, then the mappings below it.
fn section(page: &mut String, root: &Value, schema: &Value, defaults: Option<&Value>, at: &str) {
    let title = if at.is_empty() { "The file" } else { at };
    let text = |schema: &Value| {
        schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    write!(page, "\n## {title}\n\n{}\n\n| key | form | default | |\n|---|---|---|---|\n", text(schema))
        .unwrap();
    let mut below = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let inner = resolved(root, property);
        let default = defaults.and_then(|defaults| defaults.get(name));
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let (form, nested) = form(root, inner);
        let shown = default.map_or_else(String::new, shown);
        let described = if property["description"].is_string() { text(property) } else { text(inner) };
        writeln!(page, "| `{name}` | {form} | {shown} | {} |", described.replace('|', "\\|")).unwrap();
        if let Some((nested, suffix)) = nested {
            let default = if suffix == "[]" { default.and_then(|list| list.get(0)) } else { default };
            below.push((format!("{key}{suffix}"), nested, default));
        }
    }
    for (key, nested, default) in below {
        // The limits of a tenant, and those of a class, have the same keys as those of all.
        if ["limits.tenants.NAME", "classes[].per_query", "classes[].ceilings"].contains(&key.as_str()) {
            continue;
        }
        section(page, root, nested, default, &key);
    }
}

/// Follows references and takes the branch that is not `null`.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut at = schema;
    loop {
        at = match (at["$ref"].as_str(), at["anyOf"].as_array()) {
            (Some(name), _) => root.pointer(name.trim_start_matches('#')).unwrap(),
            (None, Some(branches)) => branches.iter().find(|branch| branch["type"] != "null").unwrap(),
            _ => return at,
        };
    }
}

/// How a value is written, and the mapping below it if it is one.
fn form<'s>(root: &'s Value, schema: &'s Value) -> (String, Option<(&'s Value, &'static str)>) {
    if let Some(branches) = schema["oneOf"].as_array() {
        let words = branches.iter().filter_map(|branch| branch["const"].as_str());
        let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
        return (words.join(", "), None);
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return (words.join(", "), None);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
    match (kind, schema["format"].as_str()) {
        ("array", _) => {
            let item = resolved(root, &schema["items"]);
            let (inner, nested) = form(root, item);
            (format!("list of {inner}"), nested.map(|(nested, _)| (nested, "[]")))
        }
        ("object", _) if schema["properties"].is_object() => ("mapping".to_owned(), Some((schema, ""))),
        ("object", _) => {
            let (inner, nested) = form(root, resolved(root, &schema["additionalProperties"]));
            (format!("mapping of names to {inner}"), nested.map(|(nested, _)| (nested, ".NAME")))
        }
        ("boolean", _) => ("`true`, `false`".to_owned(), None),
        (_, Some(format)) => (format.to_owned(), None),
        _ => ("text".to_owned(), None),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        Value::Bool(yes) => format!("`{yes}`"),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
            format!("`[{}]`", items.join(", "))
        }
        // A mapping has a table of its own.
        _ => String::new(),
    }
}

/// Ids that an error of the proxy may carry.
fn ids() -> Vec<&'static str> {
    let limits = LimitName::ALL.iter().map(|limit| limit.id());
    limits.chain(["weir-recalled"]).chain(ErrorKind::ALL.iter().map(|kind| kind.label())).collect()
}

#[test]
fn every_error_has_an_entry_and_every_entry_an_error() {
    let page = fs::read_to_string(path("docs/errors.md")).unwrap();
    let entries: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let mut wanted = ids();
    wanted.dedup();
    for id in &wanted {
        assert_eq!(entries.iter().filter(|entry| *entry == id).count(), 1, "{id}");
    }
    for entry in entries {
        assert!(wanted.contains(&entry), "{entry} is no error");
    }
    // An entry holds more than its own name: a meaning and a cure.
    for text in page.split("\n### ").skip(1) {
        assert!(text.lines().nth(1).is_some_and(|line| line.len() > 40), "{text}");
    }
}

#[test]
fn every_error_names_its_entry() {
    let page = fs::read_to_string(path("docs/errors.md")).unwrap();
    for kind in ErrorKind::ALL {
        for limit in [None, Some("weir-max-series; max=1; observed=2; known=exact".to_owned())] {
            let id = if limit.is_some() { "weir-max-series" } else { kind.label() };
            let extra = weir::proxy::respond::Extra { limit, ..Default::default() };
            let response = weir::proxy::respond::error(*kind, "no", extra);
            assert_eq!(response.headers()["weir-error"], id);
            assert!(!response.headers().contains_key("link"), "Weir knows no address of this page");
            assert!(page.contains(&format!("\n### {id}\n")), "{id}");
        }
    }
}
