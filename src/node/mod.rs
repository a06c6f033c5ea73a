//! The storage node: what answers a query when no other database does.
//!
//! [`engine`] evaluates PromQL over anything that implements [`engine::Storage`]. Below it, [`pool`] lends buffers
//! under a bound.

pub mod engine;
pub mod pool;
