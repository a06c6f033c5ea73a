//! What clients send, read without copying: remote write, the text exposition, and what a remote read asks for.

mod protobuf;
mod read;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

pub use protobuf::{remote_write, unpack, unpacked_size};
pub use read::{ReadQuery, read_request};
pub use text::{Defaults, exposition};

/// Where and why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadInput {
    /// Where.
    pub place: Place,
    /// Why.
    pub message: String,
}

/// A position in what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes from the beginning, after decompression.
    Offset(usize),
    /// Line, from 1.
    Line(usize),
    /// The whole of it.
    Whole,
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Offset(offset) => write!(f, "offset {offset}: {}", self.message),
            Place::Line(line) => write!(f, "line {line}: {}", self.message),
            Place::Whole => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for BadInput {}
