//! A tree as text: as Prometheus' `format_query` writes it.
//!
//! Both printers keep a stack of unwritten nodes instead of recursing: `1+1+…` is a tree as deep as it is long.

mod flat;
mod pretty;
mod text;

#[cfg(test)]
mod tests;

use super::ast::Ast;

/// The query in Prometheus' layout: on one line where it fits into 100 bytes, otherwise broken and indented; `None` when
/// indentation alone would make it larger than `max` bytes.
pub fn pretty(ast: &Ast, max: usize) -> Option<String> {
    pretty::print(ast, &flat::Flat::of(ast), max)
}

/// A string in double quotes, with Go's escapes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    text::quoted(text, &mut out);
    out
}

/// The query on one line.
pub fn line(ast: &Ast) -> String {
    flat::Flat::of(ast).text
}
