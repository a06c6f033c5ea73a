//! The `pool:` section of the node's configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::lit,
    diagnostic::{Diagnostic, Path, Position},
    scalar::{Count, Limit, Rate, Share, Size, Span},
    tree,
};
use crate::{
    base::units,
    node::{
        http::PoolSettings,
        pool::{Bucket, Buckets, Options},
    },
    telemetry::memory_limit::memory_limit,
};

/// Where the memory of queries comes from, and how much of it there is.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Whether the memory lent to queries is bounded.
    pub mode: Mode,
    /// Memory of all queries together, of which seven eighths are lent; left out: a quarter of the memory that the
    /// process may use.
    pub memory: Option<Size>,
    /// How long a query waits at that bound before it fails with 503.
    pub wait: Span,
    /// A pool with at most this share of its buffers free is refilled in the background.
    pub low: Share,
    /// The share at which a refill stops.
    pub high: Share,
    /// Buffers that refills make, over all pools.
    pub refill: Limit<Rate>,
    /// Idle time after which a pool frees the objects above its low watermark.
    pub idle: Span,
    /// Buffers of answers under way, by bytes.
    pub bytes: Vec<Kept>,
    /// Decoded samples of one series, by samples.
    pub samples: Vec<Kept>,
    /// Values of one series, by steps.
    pub numbers: Vec<Kept>,
}

/// Whether the lent memory is bounded.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At the bound a query waits briefly, then fails.
    Bounded,
    /// As m3dbnode: every request is allocated, until the process is killed.
    Unbounded,
}

/// One size of buffer.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The element type of a buffer.
    pub capacity: Count,
    /// How many are kept.
    pub count: Count,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: Mode::Bounded,
            memory: None,
            wait: lit("250ms"),
            low: lit("30%"),
            high: lit("60%"),
            refill: lit("10k/s"),
            idle: lit("1m"),
            bytes: kept(&Buckets::bytes()),
            samples: kept(&Buckets::samples()),
            numbers: kept(&Buckets::numbers()),
        }
    }
}

fn kept(buckets: &Buckets) -> Vec<Kept> {
    let count = |n: usize| lit(&n.to_string());
    let one = |bucket: &Bucket| Kept { capacity: count(bucket.capacity), count: count(bucket.options.size) };
    buckets.as_slice().iter().map(one).collect()
}

/// Most buffers of one size that are kept.
const COUNT_MAX: u64 = 1 << 20;
/// Most bytes of one pool's buffers that are kept, where the machine does not say how much memory it has.
const MEMORY_UNKNOWN: u64 = 1 << 30;

impl Pool {
    /// Mistakes of the section as a whole.
    pub(super) fn check(&self, root: &tree::Node) -> Option<Diagnostic> {
        self.check_marks(root).or_else(|| self.check_kept(root))
    }

    /// A pool is full at the start: one that would not fit must not get there.
    fn check_kept(&self, root: &tree::Node) -> Option<Diagnostic> {
        let most = memory_limit().map_or(MEMORY_UNKNOWN, |limit| limit.bytes);
        let pools =
            [("bytes", &self.bytes, 1), ("samples", &self.samples, 16), ("numbers", &self.numbers, 8)];
        pools.into_iter().find_map(|(name, kept, width)| {
            let node = root.get("pool").and_then(|pool| pool.get(name));
            let path = Path::default().key("pool").key(name);
            let mut bytes = 0_u64;
            kept.iter().enumerate().find_map(|(index, kept)| {
                let (count, capacity) = (kept.count.0.get(), kept.capacity.0.get());
                bytes = bytes.saturating_add(count.saturating_mul(capacity).saturating_mul(width));
                let message = if count > COUNT_MAX {
                    format!(
                        "{} buffers are too many: at most {} of one size are kept",
                        kept.count,
                        units::count(COUNT_MAX)
                    )
                } else if bytes > most {
                    format!(
                        "the buffers up to here take more than the {} that there are here",
                        units::bytes(most)
                    )
                } else {
                    return None;
                };
                let position =
                    node.and_then(|node| node.at(index)).map_or(Position::default(), |n| n.position);
                Some(Diagnostic::new(position, &path.index(index), message))
            })
        })
    }

    fn check_marks(&self, root: &tree::Node) -> Option<Diagnostic> {
        if self.low.percent() < self.high.percent() {
            return None;
        }
        let (path, node) = (Path::default().key("pool"), root.get("pool"));
        let (key, node) = ["high", "low"].into_iter().find_map(|key| Some((key, node?.get(key)?))).unzip();
        let position = node.map_or(Position::default(), |node: &tree::Node| node.position);
        let message = format!(
            "a refill that starts at {} cannot stop at {}: `low` is below `high`",
            self.low, self.high
        );
        Some(Diagnostic::new(position, &path.key(key.unwrap_or("low")), message))
    }

    pub(super) fn resolve(&self) -> PoolSettings {
        let share = |share: Share| f64::from(share.percent()) / 100.0;
        let size = |n: Count| usize::try_from(n.0.get()).unwrap_or(usize::MAX);
        let buckets = |kept: &[Kept]| {
            let one = |kept: &Kept| Bucket {
                capacity: size(kept.capacity),
                options: Options { size: size(kept.count), low: share(self.low), high: share(self.high) },
            };
            Buckets::new(kept.iter().map(one).collect())
        };
        let per_second = |rate: Rate| (rate.count.get() / rate.per.as_secs().max(1)).max(1);
        PoolSettings {
            bounded: self.mode == Mode::Bounded,
            memory: self.memory.map(|size| size.0.get()),
            wait: self.wait.duration(),
            refill_per_second: self.refill.at().map(per_second),
            idle: self.idle.duration(),
            bytes: buckets(&self.bytes),
            samples: buckets(&self.samples),
            numbers: buckets(&self.numbers),
        }
    }
}
