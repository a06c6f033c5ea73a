//! PromQL, pure: text in, tree out, no I/O. Shared by the proxy's estimator and the storage node's engine.

pub mod ast;
pub mod fingerprint;
pub mod shape;

#[cfg(test)]
pub(crate) mod testing;
