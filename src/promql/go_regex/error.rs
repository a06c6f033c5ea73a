//! Why a pattern is refused.

use std::fmt;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not a pattern in Go's dialect.
    Malformed(String),
    /// A pattern that would need too much memory.
    TooLarge,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "error parsing regexp: {why}"),
            Self::TooLarge => f.write_str("regular expression is too large"),
        }
    }
}

impl std::error::Error for Error {}
