//! Formulas: what a backend holds for a query, by kind. Pure numbers; each constant says where it comes from.
//!
//! "Measured" means 20,000 series over 6 h at 15 s (28.8 million samples), resident memory above idle:
//! Prometheus 2.42 rose by 1,010 MB for `sum by (job)` at a 15 s step, by 3,720 MB for the raw series at 15 s,
//! by 1,050 MB at 60 s, by 30 MB for an instant `count()` and by 172 MB for the same at 7 steps over 6 h.
//! VictoriaMetrics 1.79 rose by 65, 865 and 283 MB for the first three.

use crate::base::Kind;

/// What to assume of a selector that nothing is known about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It costs nothing: let it pass.
    Allow,
    /// It costs more than any limit allows.
    Deny,
    /// It matches this many series.
    Number(u64),
}

/// The number of series that stands for "more than any limit".
pub const UNKNOWN_SERIES: u64 = u64::MAX;

impl Unknown {
    pub(super) const fn series(self) -> u64 {
        match self {
            Self::Allow => 0,
            Self::Deny => UNKNOWN_SERIES,
            Self::Number(n) => n,
        }
    }
}

/// A backend as the estimator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Whose formula.
    pub kind: Kind,
    /// Length of a storage block, milliseconds; 0 counts as one block for any window.
    pub block_duration_ms: u64,
    /// Time between two samples of a series, milliseconds; 0 counts as one.
    pub scrape_interval_ms: u64,
    /// For selectors of which nothing is known.
    pub unknown: Unknown,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            kind: Kind::Prometheus,
            block_duration_ms: 7_200_000,
            scrape_interval_ms: 15_000,
            unknown: Unknown::Allow,
        }
    }
}

/// What one selector makes a backend hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) series: u64,
    pub(super) blocks: u64,
    /// Raw samples read.
    pub(super) samples: u64,
    /// Series × evaluations.
    pub(super) points: u64,
    /// Series of the answer.
    pub(super) output_series: u64,
    /// Points of the answer.
    pub(super) output_points: u64,
    /// A streaming engine folds it one series at a time.
    pub(super) streams: bool,
    /// The answer is samples as they are, each with a time of its own.
    pub(super) matrix: bool,
}

/// Bytes for each unit of a [`Load`].
#[derive(Clone, Copy)]
struct Weights {
    series: u64,
    block: u64,
    sample: u64,
    /// Points held before the answer is made.
    point: u64,
    /// Points that a streaming aggregation folds away.
    streamed_point: u64,
    output_series: u64,
    output_point: u64,
}

/// Evaluator, buffers and goroutines of a query that reads anything at all; an estimate, to keep a permit above zero.
const QUERY_BYTES: u64 = 64 << 10;

/// Prometheus' engine materialises every point before it aggregates.
const PROMETHEUS: Weights = Weights {
    // Labels, iterators and chunk lists: measured 30 MB for an instant count() over 20,000 series.
    series: 1_500,
    block: 0,
    // Memory-mapped chunks become resident as they are read, 3.6 B a sample on disk, and their decoders:
    // measured 172 MB for count() at 7 steps over 6 h.
    sample: 5,
    // A point is a time and a float, 16 B; the collector lets the heap double before it runs (GOGC=100).
    point: 32,
    streamed_point: 32,
    // Labels as JSON, 250 to 400 B a series, in a buffer that doubles as it grows.
    output_series: 1_000,
    // 21 to 24 B a point as JSON, in a buffer that grows by doubling (old and new at once), under the same collector.
    output_point: 96,
};

/// VictoriaMetrics aggregates while it scans: only what it cannot fold stays.
const VICTORIA_METRICS: Weights = Weights {
    // The figure of its own memory limiter, which adds 16 B a point.
    series: 1_000,
    block: 0,
    // Compressed blocks in the page cache: 1.2 to 1.4 B a sample on disk; 2 to stay on the safe side.
    sample: 2,
    point: 16,
    streamed_point: 0,
    output_series: 1_000,
    // The answer's share of the measured 865 and 283 MB of raw queries, beyond the 16 B held.
    output_point: 12,
};

/// Storage node and coordinator of M3 together.
const M3: Weights = Weights {
    // Tags cloned and encoded on the node, copied by Thrift, decoded on the coordinator.
    series: 3_000,
    // Readers, headers and the checked-bytes wrapper of one block stream.
    block: 256,
    // About 1.45 B compressed, rounded up to a pool bucket and copied by Thrift (6 B); the coordinator then decodes
    // every sample to 16 B before its engine counts one, and its collector doubles that.
    sample: 38,
    // Its coordinator runs Prometheus' engine.
    point: PROMETHEUS.point,
    streamed_point: PROMETHEUS.point,
    output_series: PROMETHEUS.output_series,
    output_point: PROMETHEUS.output_point,
};

/// What Weir's own node lends to a query that holds its series: it reads them one by one and keeps a row of values each,
/// until the answer is sent. Its blocks are mapped and not lent; the system takes their pages back when it needs them.
const WEIR: Weights = Weights {
    // What the node counts for a series that is held (`SERIES_BYTES` of its engine), and its place in the selection.
    series: 272,
    block: 0,
    sample: 0,
    // Eight bytes, in a row that a bucket rounds up.
    point: 9,
    streamed_point: 0,
    output_series: 0,
    // Written piece by piece while rows are given back.
    output_point: 0,
};

/// The same where an aggregation takes the series one by one: accumulators of 24 bytes a step stay, and rows.
const WEIR_STREAMED: Weights = Weights { series: 16, point: 0, output_series: 272, output_point: 32, ..WEIR };

impl Kind {
    const fn weights(self, load: Load) -> Weights {
        match self {
            // Thanos, Cortex and Mimir run the same engine; their 5 B a sample are chunks in gRPC buffers. Mimir's
            // streaming engine holds less, but falls back to this one.
            Self::Prometheus | Self::Thanos | Self::Mimir | Self::Cortex => PROMETHEUS,
            Self::VictoriaMetrics => VICTORIA_METRICS,
            Self::M3 => M3,
            Self::Weir if load.streams => WEIR_STREAMED,
            Self::Weir if load.matrix => Weights { point: 2 * WEIR.point, ..WEIR },
            Self::Weir => WEIR,
        }
    }

    /// Bytes held for one selector.
    pub(super) fn memory(self, load: Load) -> u64 {
        let w = self.weights(load);
        let point = if load.streams { w.streamed_point } else { w.point };
        [
            (load.series, w.series),
            (load.blocks, w.block),
            (load.samples, w.sample),
            (load.points, point),
            (load.output_series, w.output_series),
            (load.output_points, w.output_point),
        ]
        .into_iter()
        .fold(QUERY_BYTES, |sum, (n, bytes)| sum.saturating_add(n.saturating_mul(bytes)))
    }
}

impl Model {
    /// Storage blocks that a window overlaps, for one series.
    pub(super) fn blocks(&self, window: crate::base::TimeRange) -> u64 {
        let Some(block) = i64::try_from(self.block_duration_ms).ok().filter(|b| *b > 0) else { return 1 };
        let first = window.start.div_euclid(block);
        (window.end.div_euclid(block).saturating_sub(first) as u64).saturating_add(1)
    }

    /// Raw samples in a window, for one series.
    pub(super) fn samples(&self, window: crate::base::TimeRange) -> u64 {
        match self.scrape_interval_ms {
            0 => 1,
            // A window open to the left, as long as n intervals, holds n samples; its ends are inclusive here.
            interval => window.len_ms().saturating_add(1).div_ceil(interval),
        }
    }
}
