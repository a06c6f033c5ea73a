//! The only reader of the environment.
//!
//! `WEIR_LOG` holds the log filter (`info`, `weir=debug`). `${NAME}` and `${NAME:-default}` inside values of the
//! configuration take secrets from the environment; `$${` stands for a literal `${`.

use super::{
    diagnostic::{Diagnostic, Path},
    tree::{Node, Value},
};

/// The log filter; overrides the configured level.
pub const LOG: &str = "WEIR_LOG";

/// Reads one variable; `None` when it is not set or not UTF-8.
pub fn var(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    std::env::var(name).ok()
}

/// Replaces the variables in every value below `node`. The tree is already parsed: no value can add structure.
pub(super) fn substitute(
    node: &mut Node,
    path: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
    wrong: &mut Vec<Diagnostic>,
) {
    match &mut node.value {
        Value::Scalar(scalar) => match replaced(&scalar.text, lookup) {
            Ok(text) => scalar.text = text,
            Err(message) => wrong.push(Diagnostic::new(node.position, path, message)),
        },
        Value::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                substitute(item, &path.index(i), lookup, wrong);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                substitute(value, &path.key(&key.name), lookup, wrong);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn replaced(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let end = from.find('}').ok_or("`${` without its `}`; write `$${` for a literal `${`")?;
        let inside = &from[2..end];
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(n, d)| (n, Some(d)));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("`{name}` is not the name of an environment variable"));
        }
        // As in a shell, `:-` covers a variable that is set to nothing.
        match (lookup(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "environment variable `{name}` is not set; set it, or write `${{{name}:-default}}`"
                ));
            }
        }
        rest = &from[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_and_missing_ones_named() {
        let cases = [
            ("plain", Ok("plain")),
            ("Bearer ${TOKEN}", Ok("Bearer s3cret")),
            ("${TOKEN}${TOKEN}", Ok("s3crets3cret")),
            ("${NONE:-fallback}", Ok("fallback")),
            ("${EMPTY:-fallback}", Ok("fallback")),
            ("${EMPTY}", Ok("")),
            ("$${TOKEN}", Ok("${TOKEN}")),
            ("$5 and }", Ok("$5 and }")),
            ("${NONE}", Err("`NONE` is not set")),
            ("${TOKEN", Err("without its `}`")),
            ("${a b}", Err("is not the name")),
            ("${}", Err("is not the name")),
        ];
        for (text, expected) in cases {
            match (replaced(text, &lookup), expected) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: {got:?}, expected {want:?}"),
            }
        }
    }
}
