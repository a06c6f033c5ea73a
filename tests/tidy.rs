//! House rules that clippy cannot say: the floors, file lengths, dead files, banned words.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "tidy/circles.rs"]
mod circles;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Which modules of this crate each module may import. A module that is not listed fails the test.
const FLOORS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("series", &[]),
    ("telemetry", &["base"]),
    ("promql", &["base", "series"]),
    ("http", &["base"]),
    ("cost", &["base", "series", "promql"]),
    ("limit", &["base", "telemetry"]),
    ("fleet", &["base"]),
    ("top", &["base", "promql"]),
    ("journal", &["base", "promql", "cost", "top"]),
    ("backend", &["base", "telemetry", "promql", "http"]),
    ("rules", &["base", "series", "promql"]),
    ("node", &["base", "series", "telemetry", "promql", "http"]),
    (
        "proxy",
        &[
            "base",
            "series",
            "telemetry",
            "promql",
            "http",
            "cost",
            "limit",
            "fleet",
            "backend",
            "rules",
            "journal",
            "top",
        ],
    ),
    ("admin", &["base", "telemetry", "http", "limit", "backend", "rules", "top", "proxy"]),
    (
        "config",
        &[
            "base",
            "series",
            "telemetry",
            "promql",
            "http",
            "cost",
            "limit",
            "fleet",
            "backend",
            "rules",
            "journal",
            "proxy",
            "node",
        ],
    ),
    ("replay", &["base", "promql", "cost", "limit", "journal", "rules", "proxy", "admin", "config"]),
    ("expressions", &[]),
    (
        "cli",
        &[
            "journal",
            "top",
            "replay",
            "expressions",
            "base",
            "series",
            "telemetry",
            "promql",
            "http",
            "cost",
            "limit",
            "backend",
            "rules",
            "proxy",
            "admin",
            "node",
            "config",
        ],
    ),
];

/// Folders of the node that must not import others: storage of series knows nothing of evaluation and serving.
const KEPT_APART: &[(&str, &[&str])] = &[
    ("src/node/pool", &["node::engine", "node::db", "node::head", "node::http"]),
    ("src/node/chunk", &["node::engine", "node::db", "node::head", "node::http"]),
    ("src/node/block", &["node::engine", "node::db", "node::head", "node::http"]),
    ("src/node/wal", &["node::engine", "node::db", "node::head", "node::http"]),
    ("src/node/index", &["node::engine", "node::db", "node::head", "node::http"]),
    ("src/node/head", &["node::engine", "node::db", "node::http"]),
    ("src/node/db", &["node::engine", "node::http"]),
    ("src/node/engine", &["node::db", "node::head", "node::block", "node::index", "node::http"]),
];

/// Crates that must stay out of a module, with the reason.
const KEPT_OUT: &[(&str, &[&str], &str)] = &[
    ("base", &["tokio", "axum", "hyper", "tower"], "the shared words know no runtime"),
    ("series", &["tokio", "axum", "hyper", "tower"], "the shared words know no runtime"),
    ("promql", &["tokio", "axum", "hyper", "tower"], "the parser is pure"),
    ("cost", &["tokio", "axum", "hyper", "tower"], "the estimator is pure"),
    ("rules", &["tokio", "axum", "hyper", "tower", "http"], "a rule is a pure function of a query"),
    ("top", &["tokio", "axum", "hyper", "tower", "http"], "a sketch knows no runtime"),
    ("limit", &["axum", "hyper", "http"], "limits know no HTTP: they stand before any tower service"),
    ("backend", &["axum"], "only the proxy serves"),
];

const FILE_LINES_MAX: usize = 500;

/// Longer than the rule allows, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![root().join(dir)];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The top-level module a file of `src/` belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix(root().join("src")).ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    (first != "lib.rs" && first != "main.rs").then(|| first.to_owned())
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The modules named behind `crate::` in a line, also in `use crate::{a::B, c::D}` on one line.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in line.split("crate::").skip(1) {
        let group = part.strip_prefix('{').unwrap_or("");
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.push(group[start..i].trim());
                    start = i + 1;
                }
                _ => {}
            }
        }
        if group.is_empty() {
            found.push(part);
        }
    }
    found
        .iter()
        .map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
        .collect()
}

/// Joins `use crate::{ … };` over several lines into one, so that `imports` sees it whole.
fn joined_uses(text: &str) -> String {
    let mut out = String::new();
    let mut open = false;
    for (_, line) in code_lines(text) {
        open |= line.trim_start().starts_with("use ") && !line.contains(';');
        out.push_str(if open { line.trim() } else { line });
        if !open || line.contains(';') {
            out.push('\n');
            open = false;
        }
    }
    out
}

#[test]
fn no_import_climbs_a_floor() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let Some((_, allowed)) = FLOORS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module `{module}` has no floor", name_of(&path)));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for line in joined_uses(&text).lines() {
            for import in imports(line) {
                let is_module = FLOORS.iter().any(|(name, _)| *name == import);
                if is_module && import != module && !allowed.contains(&import) {
                    wrong.push(format!(
                        "{}: `{module}` must not import `{import}`: {}",
                        name_of(&path),
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every path below `crate::` that a line of imports names, two segments deep.
fn inner_imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for module in imports(line) {
        let Some(at) = line.find(&format!("{module}::")) else { continue };
        let rest = &line[at + module.len() + 2..];
        let group = rest.strip_prefix('{').unwrap_or(rest);
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' | ';' if depth == 0 => {
                    found.push(format!("{module}::{}", group[start..i].trim()));
                    start = i + 1;
                    if c != ',' || !rest.starts_with('{') {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_node_keeps_storage_and_evaluation_apart() {
    let mut wrong = Vec::new();
    for (folder, forbidden) in KEPT_APART {
        let files = sources(folder);
        assert!(!files.is_empty(), "{folder} is gone");
        for path in files {
            let text = fs::read_to_string(&path).unwrap();
            for line in joined_uses(&text).lines() {
                let climbs = |import: &String| {
                    forbidden.iter().any(|f| import == f || import.starts_with(&format!("{f}::")))
                };
                wrong.extend(
                    inner_imports(line)
                        .iter()
                        .filter(|import| climbs(import))
                        .map(|import| format!("{}: imports {import}", name_of(&path))),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_seen_in_every_form() {
    assert_eq!(imports("use crate::base::QueryCost;"), ["base"]);
    assert_eq!(imports("use crate::{base::{a, b}, proxy::Proxy};"), ["base", "proxy"]);
    assert_eq!(imports("let x: crate::limit::Permit = crate::cost::f();"), ["limit", "cost"]);
    assert_eq!(
        inner_imports("use crate::{base::A, node::{engine::B, db}};"),
        ["base::A", "node::engine::B", "node::db"]
    );
    assert_eq!(inner_imports("use crate::node::engine::Labels;"), ["node::engine::Labels"]);
    assert!(joined_uses("use crate::{\n    base::A,\n    cost::B,\n};\n").contains("base::A,cost::B,"));
}

#[test]
fn kept_out_crates_stay_out() {
    let mut wrong = Vec::new();
    for path in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        for (_, crates, reason) in KEPT_OUT.iter().filter(|(name, ..)| *name == module) {
            for (number, line) in code_lines(&text) {
                if crates.iter().any(|c| line.trim_start().starts_with(&format!("use {c}::"))) {
                    wrong.push(format!("{}:{}: {reason}: {}", name_of(&path), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        let name = name_of(&path);
        let excused = LONG_FILES.iter().any(|(long, _)| *long == name);
        if (lines > FILE_LINES_MAX) != excused {
            wrong.push(format!("{name}: {lines} lines, the most is {FILE_LINES_MAX} (excused: {excused})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_dead() {
    let mut wrong = Vec::new();
    for path in ["src", "tests/it"].into_iter().flat_map(sources) {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["lib", "main"].contains(&stem.as_str()) {
            continue;
        }
        let dir = path.parent().unwrap();
        let (module, parents) = if stem == "mod" {
            (dir.file_name().unwrap().to_str().unwrap().to_owned(), dir.parent().unwrap())
        } else {
            (stem, dir)
        };
        let declared = ["mod.rs", "lib.rs", "main.rs"].iter().any(|parent| {
            let text = fs::read_to_string(parents.join(parent)).unwrap_or_default();
            text.lines().any(|line| line.trim_end().ends_with(&format!("mod {module};")))
        });
        if !declared {
            wrong.push(format!("{}: no `mod {module};` names it", name_of(&path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Arguments of a line printed with `Debug` although they are no text: variables named as errors and states are, or log
/// fields.
fn debug_prints(line: &str) -> bool {
    let values = ["e", "err", "error", "failure", "kind", "reason", "state", "status", "why"];
    values.iter().any(|name| line.contains(&format!("{{{name}:?}}")))
        // Within a text it is a question mark.
        || line.split('"').step_by(2).flat_map(|code| code.split([',', '(', '='])).any(|field| {
            let name = field.trim_start().strip_prefix('?');
            name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
}

/// Operators read errors and logs: `{:?}` quotes texts there, and spells out nothing else.
#[test]
fn no_debug_print_reaches_an_operator() {
    let mut wrong = Vec::new();
    for path in sources("src").into_iter().filter(|path| !name_of(path).contains("tests")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let printed = code_lines(code).filter(|(_, line)| debug_prints(line));
        wrong.extend(
            printed.map(|(number, line)| format!("{}:{}: {}", name_of(&path), number + 1, line.trim())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn debug_prints_are_seen() {
    for line in [r#"format!("no: {error:?}")"#, "tracing::warn!(path = ?path, \"x\")", "warn!(?error, \"x\")"]
    {
        assert!(debug_prints(line), "{line}");
    }
    for line in [r#"format!("{text:?} is not a number")"#, "let x = f(y)?;", "T: ?Sized", "a.b()?, c()?"] {
        assert!(!debug_prints(line), "{line}");
    }
}

#[test]
fn no_word_is_banned() {
    // Written in parts so that this file does not find itself.
    let banned = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("std::thread::", "sleep"),
        concat!("tokio::task::", "block_in_place"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: `{word}`", name_of(&path), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
