//! Why a query was refused, and where.

use std::fmt;

use super::ast::Span;

/// A query that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The message, in Prometheus' words where it has any.
    pub message: String,
    /// Where, in bytes of the query.
    pub span: Span,
    /// Line of the span's start, from 1.
    pub line: u32,
    /// Byte of the span's start in its line, from 1.
    pub column: u32,
    /// The kind of refusal.
    pub reason: Reason,
}

/// The kind of refusal of a [`ParseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not PromQL, or not well typed.
    Malformed,
    /// It calls a function that there is not, or not yet here: the database may know it.
    UnknownFunction,
    /// Beyond one of the [`Limits`](super::Limits).
    Limit(Part, u64),
}

/// The part of a query that is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes of text.
    Text,
    /// Nodes of the tree.
    Nodes,
    /// Brackets within brackets.
    Depth,
    /// Label matchers.
    Matchers,
    /// Bytes of regular expressions.
    Regex,
}

impl ParseError {
    pub(super) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let before = text.as_bytes().get(..span.start as usize).unwrap_or(text.as_bytes());
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |i| i + 1);
        Self {
            message: message.into(),
            span,
            line: memchr::memchr_iter(b'\n', before).count() as u32 + 1,
            column: (before.len() - line_start) as u32 + 1,
            reason: Reason::Malformed,
        }
    }

    pub(super) fn limit(text: &str, span: Span, part: Part, max: usize, message: impl Into<String>) -> Self {
        Self { reason: Reason::Limit(part, max as u64), ..Self::new(text, span, message) }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: parse error: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}
