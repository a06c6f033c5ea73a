//! Limits of the node's API.

use std::{num::NonZero, time::Duration};

use super::{PoolSettings, QuotaSettings};
use crate::{http::ConnectionLimits, node::engine};

/// How a node serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Connections of clients.
    pub connections: ConnectionLimits,
    /// Limits of one query.
    pub limits: engine::Limits,
    /// How the memory of queries is pooled.
    pub pool: PoolSettings,
    /// The quota of reads in a sliding window.
    pub recent: QuotaSettings,
    /// How long a sample stays visible to an instant vector, milliseconds.
    pub lookback_ms: u64,
    /// The longest that a read may take; `timeout=` may ask for less.
    pub timeout: Duration,
    /// Time after which a client that takes no byte of its answer is disconnected.
    pub stall: Duration,
    /// Reads that run at the same time. Far more than cores: the pools bound memory, and a light read that waits for
    /// heavy ones to end waits longer than one that shares the cores with them.
    pub reads_running: usize,
    /// Threads that one query may use; all queries together use one fewer beside their own.
    pub query_threads: NonZero<usize>,
    /// Reads that run, wait to run or are being sent; more are refused.
    pub reads_outstanding: usize,
    /// Most evaluation steps of a range query.
    pub steps: u64,
    /// Names, values or series in one list, unless the request asks for fewer.
    pub list_entries: usize,
    /// The largest body of a write, bytes: as sent, and again once unpacked.
    pub write_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let query_threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self {
            connections: ConnectionLimits::of(4_096),
            limits: engine::Limits::default(),
            pool: PoolSettings::default(),
            recent: QuotaSettings::default(),
            lookback_ms: 300_000,
            timeout: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            reads_running: 20,
            query_threads,
            reads_outstanding: 200,
            steps: 11_001,
            list_entries: 1_000_000,
            write_bytes: 64 << 20,
        }
    }
}
