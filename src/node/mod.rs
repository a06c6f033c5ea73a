//! The storage node: what answers a query when no other database does.
//!
//! [`engine`] evaluates PromQL over anything that implements [`engine::Storage`].

pub mod engine;
