//! The storage node: a small time-series database of its own.
//!
//! [`engine`] evaluates PromQL over anything that implements [`storage::Storage`]. Below it, [`pool`] lends buffers
//! under a bound and [`chunk`] compresses samples.

pub mod block;
pub mod chunk;
pub mod db;
pub mod engine;
pub mod head;
pub mod http;
pub mod index;
pub mod ingest;
pub mod pool;
pub mod storage;
pub mod wal;
