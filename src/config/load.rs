//! From a file to checked settings, or to everything that is wrong with it.

use super::{
    check, cross,
    diagnostic::{Diagnostic, Path, Position, Report},
    env,
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
    load_text(&name, &text, &env::var)
}

/// The hint where there is no file.
pub(super) const START_FROM: &str = "`weir check-config --print-default` prints one to start from";

/// The name and the contents of a file; `otherwise` is the hint where there is none.
pub(super) fn read(path: &FilePath, otherwise: &str) -> Result<(String, String), Report> {
    let text = read_text(path, otherwise).map_err(|message| Report::of_file(path, message))?;
    Ok((path.display().to_string(), text))
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
    let failed = |mut diagnostics: Vec<Diagnostic>| {
        diagnostics.sort_by_key(Diagnostic::position);
        Report { file: file.to_owned(), diagnostics }
    };
    let mut node = tree::parse(text).map_err(|wrong| failed(vec![wrong]))?;
    let mut wrong = Vec::new();
    env::substitute(&mut node, &Path::default(), lookup, &mut wrong);
    // A value that could not be substituted is reported once.
    let missing: Vec<Position> = wrong.iter().map(Diagnostic::position).collect();
    let shape = check::check(&raw::schema(), &node);
    wrong.extend(shape.into_iter().filter(|d| !missing.contains(&d.position())));
    let raw = if wrong.is_empty() { typed(&node, &mut wrong) } else { None };
    let Some(raw) = raw else { return Err(failed(wrong)) };
    let mut warnings = Vec::new();
    cross::check(&raw, &node, &mut wrong, &mut warnings);
    warnings.sort_by_key(Diagnostic::position);
    if wrong.is_empty() { Ok(Loaded { raw, warnings }) } else { Err(failed(wrong)) }
}

/// The tree as raw structs. The schema has passed, so that this fails only if the two disagree.
fn typed(node: &Node, wrong: &mut Vec<Diagnostic>) -> Option<Raw> {
    let json = node.to_json();
    // Where the file has no `limits.default`, the struct already holds the built-in limits.
    let writes_limits = json.pointer("/limits/default").is_some_and(|limits| !limits.is_null());
    match serde_json::from_value::<Raw>(json) {
        Ok(mut raw) => {
            raw.limits.written = if writes_limits { raw.limits.default } else { TenantLimits::default() };
            raw.limits.default = raw.limits.written.over(&TenantLimits::built_in());
            Some(raw)
        }
        Err(error) => {
            wrong.push(Diagnostic::new(Position::default(), &Path::default(), error.to_string()));
            None
        }
    }
}
