//! The closed list of what may say that a backend is in distress.

use super::settings::Settings;
use crate::backend::Kind;

/// What may say that a backend is in distress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the process against its limit.
    Memory,
    /// The heap of a Go process against its limit.
    Heap,
    /// Bytes that the storage node's pools have lent against their cap.
    Pool,
    /// Memory that is allocated because pools are empty, against what the pools keep.
    PoolGetOnEmpty,
    /// Reads of the storage node that found its pools exhausted, against all reads.
    PoolExhausted,
    /// Queries at work or waiting against the places for them.
    Queries,
    /// Queries that had to wait for a place, against the places.
    QueriesWaiting,
    /// What was read in the backend's own window against its own limit.
    QueryLimits,
    /// Failures and late answers against all answers to forwarded queries.
    Errors,
    /// Answers that had to wait inside the backend, where it tells.
    Waited,
    /// Time per sample that was expected to be read, against what is usual.
    Latency,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Memory,
        Self::Heap,
        Self::Pool,
        Self::PoolGetOnEmpty,
        Self::PoolExhausted,
        Self::Queries,
        Self::QueriesWaiting,
        Self::QueryLimits,
        Self::Errors,
        Self::Waited,
        Self::Latency,
    ];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Heap => "heap",
            Self::Pool => "pool",
            Self::PoolGetOnEmpty => "pool_get_on_empty",
            Self::PoolExhausted => "pool_exhausted",
            Self::Queries => "queries",
            Self::QueriesWaiting => "queries_waiting",
            Self::QueryLimits => "query_limits",
            Self::Errors => "errors",
            Self::Waited => "waited",
            Self::Latency => "latency",
        }
    }

    /// The most that it can say. Only memory kills a process, so only memory stops everything. Pools that are lent to
    /// the last byte fail what runs, so nothing heavy is added. All others say that there is too much to do, which
    /// shrinks the budget to its floor and leaves one query at a time to tell when that is over.
    const fn most(self) -> f64 {
        match self {
            Self::Memory | Self::Heap => 1.0,
            Self::Pool => 0.99,
            _ => 0.97,
        }
    }
}

/// How distressed a backend is, and what says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// 0: at ease; 1: at its limit.
    pub pressure: f64,
    /// What says so.
    pub signal: Signal,
}

impl Reading {
    /// `used` of something of which `limit` is all there may be; a limit of 0 is none.
    pub(super) fn new(signal: Signal, used: f64, limit: f64) -> Self {
        let pressure = if limit > 0.0 { (used / limit).clamp(0.0, signal.most()) } else { 0.0 };
        Self { pressure, signal }
    }
}

/// What it says of distress that is only foreseen; short of what would stop anything.
pub(super) const FORESEEN_MOST: f64 = 0.97;

/// The signals that a backend of a kind must give: to hear nothing of them is to know nothing of it. What else it says
/// counts when it is said, and is missed from then on.
pub(super) fn expected(kind: Kind, settings: &Settings) -> impl Iterator<Item = Signal> {
    let memory = settings.memory_limit.is_some() || kind == Kind::VictoriaMetrics;
    let own = match kind {
        Kind::Weir => Some(Signal::Pool),
        _ => None,
    };
    memory.then_some(Signal::Memory).into_iter().chain(own)
}
