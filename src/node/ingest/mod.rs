//! Requests of clients, read without copying: remote write, the text exposition, and remote read.

mod read;
mod remote;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

pub use read::{ReadQuery, read_request};
pub use remote::{compression_of, remote_write, unpack, unpacked_size};
pub use text::{Strings, TextOptions, exposition};

use crate::base::protobuf::ProtobufError;

/// Where and why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadInput {
    /// Where.
    pub place: Place,
    /// Why.
    pub message: String,
}

/// A position in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes from the beginning, after decompression.
    Offset(usize),
    /// Line, from 1.
    Line(usize),
    /// The whole of it.
    Whole,
}

impl From<ProtobufError> for BadInput {
    fn from(error: ProtobufError) -> Self {
        Self { place: Place::Offset(error.offset), message: error.reason.to_owned() }
    }
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
