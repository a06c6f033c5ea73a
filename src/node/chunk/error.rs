//! Errors of chunks.

use std::fmt;

/// Samples that one chunk holds at most.
pub const SAMPLES_MAX: usize = 1 << 16;

/// Bytes that are not a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub(in crate::node::chunk) &'static str);

impl Corrupt {
    /// With the mistake in words.
    pub(in crate::node) const fn new(what: &'static str) -> Self {
        Self(what)
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "corrupt chunk: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}

/// More samples than a chunk can hold, or columns of unequal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the columns of a chunk: at most {SAMPLES_MAX} samples, as many times as values")
    }
}

impl std::error::Error for EncodeError {}
