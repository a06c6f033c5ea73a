//! The pools of a node: everything whose size a query decides is leased from them.

use std::{sync::Arc, time::Duration};

use prometheus::Registry;

use crate::{
    base::units,
    node::{
        engine,
        pool::{
            Buckets, BytesPool, Cap, Leaked, Ledger, Mode, NumbersPool, PoolContext, PoolMetrics,
            RefillBudget, Refiller,
        },
    },
    telemetry::memory_limit::{MemoryLimit, memory_limit},
};

/// The pool of a node whose machine does not say how much memory it has.
const MEMORY_UNKNOWN: u64 = 1 << 30;
/// One part in eight of the pool is not lent: it covers the gaps between objects, and the buffers of connections.
const NOT_LENT: u64 = 8;

/// How a node pools its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// Whether the memory lent is bounded; otherwise it grows as m3dbnode's does.
    pub bounded: bool,
    /// Memory of queries, bytes, of which seven eighths are lent; `None` is a quarter of the memory that the process
    /// may use.
    pub memory: Option<u64>,
    /// How long a query waits at the cap for others to give back.
    pub wait: Duration,
    /// Objects that refills make per second over all pools; `None` is unbounded.
    pub refill_per_second: Option<u64>,
    /// Idle time after which a pool frees the objects above its low watermark.
    pub idle: Duration,
    /// Buffers of answers under way, bytes.
    pub bytes: Buckets,
    /// Decoded samples of one series.
    pub samples: Buckets,
    /// Values of one series, one a step.
    pub numbers: Buckets,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            bounded: true,
            memory: None,
            wait: Duration::from_millis(250),
            refill_per_second: Some(10_000),
            idle: Duration::from_secs(60),
            bytes: Buckets::bytes(),
            samples: Buckets::samples(),
            numbers: Buckets::numbers(),
        }
    }
}

impl PoolSettings {
    /// How much is lent at most, and why: a sentence for the operator.
    fn sized(&self, limit: Option<&MemoryLimit>) -> (Mode, String) {
        if !self.bounded {
            return (
                Mode::Unbounded,
                "`pool.mode` is `unbounded`: nothing bounds the memory of queries".to_owned(),
            );
        }
        let (bytes, why) = match (self.memory, limit) {
            (Some(bytes), Some(limit)) => {
                (bytes, format!("as `pool.memory` says; the process may use {limit}"))
            }
            (Some(bytes), None) => (bytes, "as `pool.memory` says".to_owned()),
            (None, Some(limit)) => (
                limit.bytes / 4,
                format!("a quarter of the memory that the process may use, {limit}; `pool.memory` sets it"),
            ),
            (None, None) => {
                let why = "since nothing says how much memory there is; `pool.memory` sets it";
                (MEMORY_UNKNOWN, why.to_owned())
            }
        };
        let lent = bytes - bytes / NOT_LENT;
        let said = format!(
            "queries share a pool of {}, of which {} are lent: {why}",
            units::bytes(bytes),
            units::bytes(lent)
        );
        (Mode::Bounded { bytes: lent, wait: self.wait }, said)
    }
}

/// All pools of a node, under one cap.
#[derive(Debug)]
pub(super) struct Pools {
    mode: Mode,
    pub(super) cap: Arc<Cap>,
    /// How large they are, and why.
    pub(super) said: String,
    pub(super) bytes: BytesPool,
    pub(super) engine: engine::Pools,
}

impl Pools {
    /// Full pools, whose metrics are in the registry.
    pub(super) fn new(settings: &PoolSettings, registry: &Registry) -> prometheus::Result<Self> {
        let (mode, said) = settings.sized(memory_limit().as_ref());
        let cap = Arc::new(Cap::new(mode));
        let supply = PoolContext {
            cap: Arc::clone(&cap),
            refiller: Refiller::thread()?,
            refill_budget: settings.refill_per_second.map(|n| Arc::new(RefillBudget::per_second(n))),
            metrics: PoolMetrics::register(registry)?,
        };
        supply.metrics.show_cap(&cap);
        Ok(Self {
            mode,
            cap,
            said,
            bytes: BytesPool::new("bytes", &settings.bytes, &supply),
            engine: engine::Pools {
                samples: engine::SamplePool::new("samples", &settings.samples, &supply),
                numbers: NumbersPool::new("numbers", &settings.numbers, &supply),
                working: Ledger::new("working", &supply),
            },
        })
    }

    /// Most bytes that are lent; `None` without a bound.
    pub(super) fn lent_at_most(&self) -> Option<u64> {
        match self.mode {
            Mode::Bounded { bytes, .. } => Some(bytes),
            Mode::Unbounded => None,
        }
    }

    /// Frees the buffers of idle pools above their low mark; returns their number.
    pub(super) fn shrink(&self) -> usize {
        self.bytes.shrink() + self.engine.samples.shrink() + self.engine.numbers.shrink()
    }

    /// Leaked objects, by pool.
    pub(super) fn leaked(&self) -> impl Iterator<Item = (&'static str, Leaked)> {
        let checked = [
            ("bytes", self.bytes.check_returned()),
            ("samples", self.engine.samples.check_returned()),
            ("numbers", self.engine.numbers.check_returned()),
            ("working", self.engine.working.check_returned()),
        ];
        checked.into_iter().filter_map(|(pool, back)| back.err().map(|leaked| (pool, leaked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(settings: &PoolSettings, limit: Option<u64>) -> (Option<u64>, String) {
        let limit = limit.map(|bytes| MemoryLimit { bytes, group: Some("/sys/fs/cgroup/memory.max".into()) });
        let (mode, said) = settings.sized(limit.as_ref());
        let bytes = if let Mode::Bounded { bytes, .. } = mode { Some(bytes) } else { None };
        (bytes, said)
    }

    #[test]
    fn the_pool_follows_the_limit_and_says_so() {
        let own = PoolSettings::default();
        let (bytes, text) = said(&own, Some(512 << 20));
        assert_eq!(bytes, Some(112 << 20));
        assert_eq!(
            text,
            "queries share a pool of 128MiB, of which 112MiB are lent: a quarter of the memory that the process may use, 512MiB \
             (/sys/fs/cgroup/memory.max); `pool.memory` sets it"
        );
        assert_eq!(said(&own, None).0, Some(MEMORY_UNKNOWN / 8 * 7));
        let set = PoolSettings { memory: Some(1 << 20), ..PoolSettings::default() };
        let (bytes, text) = said(&set, Some(512 << 20));
        assert_eq!(bytes, Some(896 << 10));
        assert!(text.contains("as `pool.memory` says; the process may use 512MiB"), "{text}");
        let unbounded = PoolSettings { bounded: false, ..PoolSettings::default() };
        assert_eq!(said(&unbounded, Some(1 << 20)).0, None);
    }
}
