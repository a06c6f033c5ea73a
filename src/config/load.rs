//! From a file to checked settings, or to everything that is wrong with it.

use super::{
    check, cross,
    diagnostic::{Diagnostic, Path, Position, Report},
    env,
    node::is_node,
    raw::{self, Raw, TenantLimits},
    tree::{self, Node},
};
use std::{fs, io::Read as _, path::Path as FilePath};

/// The configuration that applies when none is given: every key with its default, its unit and its reason.
pub const DEFAULT_FILE: &str = include_str!("../../config/weir.yaml");

/// A configuration without mistakes, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings as written, over the defaults; secrets are substituted.
    pub raw: Raw,
    /// Warnings: settings that are allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a file, with `${NAME}` taken from the environment.
pub fn load_file(path: &FilePath) -> Result<Loaded, Report> {
    let (name, text) = read(path, START_FROM)?;
    load_text(&name, &text, &env::var).map_err(|report| {
        let other = || Report::of_file(&name, "this is a configuration of `weir node`, not of `weir proxy`");
        if is_node(&text) { other() } else { report }
    })
}

/// The hint where there is no file.
pub(super) const START_FROM: &str = "`weir check-config --print-default` prints one to start from";

/// The name and the contents of a file; `otherwise` is the hint where there is none.
pub(super) fn read(path: &FilePath, otherwise: &str) -> Result<(String, String), Report> {
    let name = path.display().to_string();
    match read_text(path, otherwise) {
        Ok(text) => Ok((name, text)),
        Err(message) => Err(Report::of_file(&name, message)),
    }
}

fn read_text(path: &FilePath, otherwise: &str) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("no such file; {otherwise}"),
        _ => format!("cannot be opened: {error}"),
    })?;
    let mut text = String::new();
    // One byte more than is accepted, so that the parser can say that the file is too long.
    let limit = tree::FILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    // All defaults would be the last thing meant by a file that a full disk or an editor left empty.
    if text.trim().is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(text)
}

/// Checks a configuration held in memory; `lookup` answers for `${NAME}`.
pub fn load_text(file: &str, text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    let node = checked_tree(file, text, &raw::schema(), lookup)?;
    let raw = typed(&node).map_err(|error| Report::of_file(file, error.to_string()))?;
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    cross::check(&raw, &node, &mut wrong, &mut warnings);
    warnings.sort_by_key(Diagnostic::position);
    if wrong.is_empty() { Ok(Loaded { raw, warnings }) } else { Err(Report::new(file, wrong)) }
}

/// The tree of a configuration that has the shape of a schema, with `${NAME}` substituted.
pub(super) fn checked_tree(
    file: &str,
    text: &str,
    schema: &serde_json::Value,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Node, Report> {
    let mut node = tree::parse(text).map_err(|wrong| Report::new(file, vec![wrong]))?;
    let mut wrong = Vec::new();
    env::substitute(&mut node, &Path::default(), lookup, &mut wrong);
    // A value that could not be substituted is reported once.
    let missing: Vec<Position> = wrong.iter().map(Diagnostic::position).collect();
    let shape = check::check(schema, &node);
    wrong.extend(shape.into_iter().filter(|d| !missing.contains(&d.position())));
    if wrong.is_empty() { Ok(node) } else { Err(Report::new(file, wrong)) }
}

/// The tree as raw structs. The schema has passed, so that this fails only if the two disagree.
fn typed(node: &Node) -> serde_json::Result<Raw> {
    let json = node.to_json();
    // Where the file has no `limits.default`, the struct already holds the built-in limits.
    let writes_limits = json.pointer("/limits/default").is_some_and(|limits| !limits.is_null());
    let mut raw: Raw = serde_json::from_value(json)?;
    raw.limits.written = if writes_limits { raw.limits.default } else { TenantLimits::default() };
    raw.limits.default = raw.limits.written.over(&TenantLimits::built_in());
    Ok(raw)
}
