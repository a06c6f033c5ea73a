//! PromQL, pure: text in, tree out, no I/O. Shared by the proxy's estimator and the storage node's engine.

pub mod approximation;
pub mod ast;
mod cache;
pub mod durations;
pub mod enforce;
mod error;
mod fingerprint;
pub mod function;
pub mod go_regex;
mod lexer;
mod matchers;
pub mod metricsql;
mod parser;
pub mod print;
pub mod rewrite;
pub mod shape;
pub mod shorten;
pub mod steps;
pub mod templates;

pub use cache::{Cache, CachedQuery};
pub use error::{ParseError, Part, Reason};
pub use fingerprint::Fingerprint;
pub use lexer::{is_label_name, raw_byte};
pub use parser::{Limits, parse, parse_with};
