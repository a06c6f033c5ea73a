//! Matchers as they are written.

/// `name op "value"`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// Label name.
    pub name: Box<str>,
    /// Operator.
    pub op: MatchOp,
    /// Value or pattern, unescaped; a pattern is in Go's dialect.
    pub value: Box<str>,
}

/// A matcher's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}
