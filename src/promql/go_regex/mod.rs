//! Go's dialect of regular expressions, as Prometheus reads patterns: anchored, and `.` matches a newline.
//!
//! A pattern is read once, from left to right, and written down in the dialect of the `regex` crate. On the way its size
//! when compiled is estimated, so that nothing large is ever handed to the compiler.

mod class;
mod error;
mod literal;
mod translate;

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::Hir;

pub use error::Error;
pub use literal::{Pattern, literals, single_literal};

/// A compiled pattern is at most this large, in bytes: 10,000 host names behind which more may follow take a third of
/// it.
const COMPILED_BYTES_MAX: usize = 32 << 20;

/// Whether a pattern is one, at little cost: nothing is compiled.
///
/// # Errors
/// Names the mistake in it.
pub fn check(pattern: &str) -> Result<(), Error> {
    if is_plain(pattern) || literal::List::of(pattern).is_some() {
        return Ok(());
    }
    translate::translate(pattern).map(drop)
}

/// The pattern in the dialect of the `regex` crate, anchored at both ends.
///
/// # Errors
/// Names the mistake in it.
pub fn translate(pattern: &str) -> Result<String, Error> {
    let inner = translate::translate(pattern)?.text;
    Ok(format!("^(?s:{inner})$"))
}

/// The pattern as a tree, without the anchors around it.
///
/// # Errors
/// Names the mistake in it.
pub fn parse(pattern: &str) -> Result<Hir, Error> {
    let inner = translate::translate(pattern)?.text;
    let mut parser = regex_syntax::ParserBuilder::new().nest_limit(translate::NEST_MAX + 2).build();
    parser
        .parse(&format!("(?s:{inner})"))
        .map_err(|error| Error::Malformed(format!("{}: `{pattern}`", one_line(&error))))
}

/// A matcher for whole strings.
///
/// # Errors
/// Names the mistake in the pattern.
pub fn compile(pattern: &str) -> Result<Regex, Error> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => Error::TooLarge,
        other => Error::Malformed(format!("{other}: `{pattern}`")),
    })
}

/// Whether the pattern matches the empty string; `false` for an invalid one.
pub fn matches_empty(pattern: &str) -> bool {
    if pattern == ".*" {
        return true;
    }
    match literal::List::of(pattern) {
        Some(list) => list.has_empty,
        None => translate::translate(pattern).is_ok_and(|translated| translated.matches_empty),
    }
}

/// The crate draws the place of an error in the pattern; the last line names the error.
fn one_line(error: &regex_syntax::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().to_owned()
}

/// Literals, dots, `|` and single quantifiers: patterns of which nothing can be wrong, and which both dialects read
/// alike.
fn is_plain(pattern: &str) -> bool {
    let mut atom = false;
    for b in pattern.bytes() {
        match b {
            b'*' | b'+' | b'?' if atom => atom = false,
            b'*' | b'+' | b'?' => return false,
            b'|' => atom = false,
            b'\\' | b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'^' | b'$' => return false,
            _ => atom = true,
        }
    }
    true
}

#[cfg(test)]
mod tests;
