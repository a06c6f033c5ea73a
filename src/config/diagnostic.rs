//! One mistake in a configuration, and where it is.

use crate::base::spelling::closest;
use std::fmt;

/// One step of a path into the YAML tree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Where a value stands in the tree: prints as `backends[0].urls[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

impl Path {
    /// The value under `key` of the mapping at this path.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The item at `index` of the list at this path.
    pub(super) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A position in the file, both counted from 1; 0 when the mistake is about something that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// One mistake: position, path and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    position: Position,
    path: String,
    message: String,
}

impl Diagnostic {
    pub(super) fn new(position: Position, path: &Path, message: impl Into<String>) -> Self {
        Self { position, path: path.to_string(), message: message.into() }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position.line > 0 {
            write!(f, "{}:{}: ", self.position.line, self.position.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything wrong with one configuration; never empty. Prints one `file:line:column: path: message` per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file as the operator named it.
    pub file: String,
    /// The mistakes, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(Diagnostic::position);
        Self { file: file.to_owned(), diagnostics }
    }

    /// Of one mistake that is no line's.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self::new(file, vec![Diagnostic::new(Position::default(), &Path::default(), message)])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            let separator = if diagnostic.position.line > 0 { ":" } else { ": " };
            write!(f, "{}{separator}{diagnostic}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// ` did you mean …?` when a known word is close to the one written, else the list of known words.
pub(super) fn suggest(written: &str, known: &[&str]) -> String {
    match closest(written, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}
