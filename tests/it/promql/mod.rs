//! The parser, from outside.

mod corpus;
mod errors;
