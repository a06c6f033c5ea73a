//! A parser for the tests of the engine, until `weir::promql::parse` exists: then this folder goes.
//!
//! It accepts what the tests use and checks little; it is no model for the real one.

mod cursor;
mod durations;
mod parser;

use weir::promql::ast::Ast;

/// Parses a query.
pub(super) fn parse(text: &str) -> Result<Ast, String> {
    parser::parse(text)
}
