//! The engines: bytes for rows, series and labels, and the order in which operands live, one table for each kind.
//!
//! "Measured" numbers are live heap over an idle process, or resident memory where it says so: Prometheus 2.42 and 3.14
//! on 2,000 to 20,000 series × 6 h at 15 s. The structures behind the constants are those of each engine's source.

use crate::base::Kind;

/// How an engine goes through the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Each operand is complete on all steps before its parent starts, and alive until the parent's last step.
    Eager,
    /// As eager, but a rollup of a selector is folded series by series, and functions work in place.
    InPlace,
    /// Series pass through one by one; an operator that needs all of them collects.
    Streaming,
}

/// The memory of an engine, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine {
    pub(super) order: Order,
    /// A point of a row.
    pub(super) point: u64,
    /// The time of a point, where a row of raw samples has its own.
    pub(super) stamp: u64,
    /// A point of an accumulator, for each group, all workers together.
    pub(super) accumulated: u64,
    /// A row without its points and labels.
    pub(super) row: u64,
    /// The label set of a stored series, and its longest value, where nothing more is known.
    pub(super) labels: u64,
    pub(super) longest: u64,
    /// Label sets are copied for each row, also those of selectors.
    pub(super) copies_labels: bool,
    /// A selected series, for as long as the query runs.
    pub(super) series: u64,
    /// A series in a list of label sets, beside these.
    pub(super) listed: u64,
    /// Names and values of labels are listed from the index, without their series.
    pub(super) lists_from_index: bool,
    /// A selected series for each block that it lies in.
    pub(super) block: u64,
    /// Blocks are merged with age, so that a long window meets fewer.
    pub(super) compacts: bool,
    /// A raw sample of a selected series.
    pub(super) sample: Sample,
    /// While an operator runs: for each series that goes in,
    pub(super) taken: u64,
    /// and for each that comes out (maps, signatures, groups).
    pub(super) made: u64,
    /// A native histogram without its buckets, and each bucket.
    pub(super) histogram: u64,
    pub(super) bucket: u64,
    /// A remote read may be answered as chunks, a frame at a time.
    pub(super) streams_reads: bool,
    /// Exemplars that are kept, unless the database is told otherwise (`storage.exemplars.max_exemplars`).
    pub(super) exemplars: u64,
    /// The answer in memory, in percent of its bytes as JSON.
    pub(super) answer_percent: u64,
}

/// Bytes for raw samples, times 16: chunks take a fraction of a byte for each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) sixteenths: u64,
}

/// Prometheus, all versions: `anchors` of 3.14 with the larger points of 2.42.
const PROMETHEUS: Engine = Engine {
    order: Order::Eager,
    // `Point` of 2.42: time, value and a pointer to a histogram. `FPoint` of 3.x is 16; one price for both.
    point: 24,
    stamp: 0,
    accumulated: 24,
    // `Series` of 3.x: 72 (of 2.42: 48).
    row: 72,
    // Some ten labels: 250 bytes of strings, and in 2.42 a header of 32 each where they are copied.
    labels: 320,
    longest: 64,
    copies_labels: false,
    // `seriesEntry` 96 with its list's slot 16, and the label strings, for each block: measured 754 with 13 chunks and
    // labels of 60 bytes; iterators and the postings are 100 more.
    series: 700,
    listed: 32,
    lists_from_index: true,
    block: 432,
    compacts: true,
    // References of 40 bytes to chunks of 120 samples. The chunks are mapped files: their pages are not of the heap,
    // but resident, and nearer to a byte each once they were read.
    sample: Sample { sixteenths: 16 },
    // A copied header of 72 and an element of 48 in the operand's vector.
    taken: 120,
    // An entry of the output's map, signatures, the final header.
    made: 250,
    // `FloatHistogram` and its spans, and the point's pointer.
    histogram: 224,
    bucket: 9,
    streams_reads: true,
    exemplars: 100_000,
    // The buffer that grew by append, and the copy that `Marshal` makes of it.
    answer_percent: 225,
};

/// Prometheus' engine over the chunks of store gateways, ingesters and sidecars: all chunks of all replicas stay in
/// memory, 64 + 40 bytes and the data for 120 samples, and label strings are copied.
const REMOTE_CHUNKS: Engine = Engine {
    series: 1_200,
    listed: 500,
    lists_from_index: false,
    block: 0,
    compacts: false,
    sample: Sample { sixteenths: 96 },
    ..PROMETHEUS
};

/// Its remote read collects every sample, for any request (`pkg/querier/remote_read.go`).
const CORTEX: Engine = Engine { streams_reads: false, ..REMOTE_CHUNKS };

/// M3's coordinator runs Prometheus' engine of 2021 after it has decoded every sample; its nodes clone and encode tags.
const M3: Engine = Engine {
    point: 16,
    series: 3_000,
    listed: 3_000,
    lists_from_index: false,
    // Readers, headers and the checked-bytes wrapper of one block stream.
    block: 256,
    compacts: false,
    // 1.45 bytes compressed, rounded up by the pool and copied by Thrift (6), then 16 decoded in a slice that grew by
    // append (up to twice), and the garbage of that.
    sample: Sample { sixteenths: 16 * 38 },
    streams_reads: false,
    exemplars: 0,
    ..PROMETHEUS
};

/// VictoriaMetrics: rows of values share their time stamps, and aggregates of rollups are folded worker by worker.
const VICTORIA_METRICS: Engine = Engine {
    order: Order::InPlace,
    point: 8,
    stamp: 8,
    // 16 bytes for each worker; one worker for each processor, of which eight are assumed.
    accumulated: 128,
    // `timeseries` of 104 bytes and the packed series of the fetch (175).
    row: 280,
    // Headers of 48 for ten labels, and their strings.
    labels: 700,
    longest: 64,
    copies_labels: true,
    series: 450,
    listed: 100,
    lists_from_index: true,
    block: 24,
    compacts: false,
    // Compressed blocks in the page cache: 1.2 to 1.4 bytes a sample on disk; 2 to stay on the safe side.
    sample: Sample { sixteenths: 32 },
    taken: 60,
    made: 200,
    // It has none: buckets are series.
    histogram: 160,
    bucket: 9,
    streams_reads: false,
    exemplars: 0,
    // Time stamps of series with gaps (8 of some 20 bytes), and the buffer; measured 865 and 283 MB for raw queries.
    answer_percent: 80,
};

/// Weir's node: rows of values from the pools, one series at a time where nothing needs all of them. Blocks are mapped
/// and not lent; the system takes their pages back when it needs them.
const WEIR: Engine = Engine {
    order: Order::Streaming,
    point: 8,
    stamp: 8,
    accumulated: 24,
    // 88 bytes in a list that doubles as it grows.
    row: 150,
    // A header, 64 for each of some ten labels, and their strings: counted for each row, shared or not.
    labels: 900,
    longest: 64,
    copies_labels: true,
    // Its place in the selection.
    series: 16,
    listed: 16,
    lists_from_index: true,
    block: 0,
    compacts: false,
    sample: Sample { sixteenths: 0 },
    taken: 24,
    made: 120,
    histogram: 160,
    bucket: 9,
    streams_reads: false,
    exemplars: 0,
    // Written piece by piece while rows are given back.
    answer_percent: 0,
};

impl Engine {
    /// The engine of the formula.
    pub(super) const fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Prometheus => &PROMETHEUS,
            // Mimir's streaming engine holds less, but falls back to Prometheus'.
            Kind::Thanos | Kind::Mimir => &REMOTE_CHUNKS,
            Kind::Cortex => &CORTEX,
            Kind::M3 => &M3,
            Kind::VictoriaMetrics => &VICTORIA_METRICS,
            Kind::Weir => &WEIR,
        }
    }

    /// The allocation that holds this number of bytes: Go's size classes are at most an eighth apart and end at 32 KiB,
    /// above which 8 KiB pages follow; the buckets of the node's pools are no further apart.
    pub(super) const fn block_of(bytes: u64) -> u64 {
        const PAGE: u64 = 8 << 10;
        let unit = match bytes {
            0..=64 => 8,
            65..=32_768 => 1 << (bytes.ilog2() - 3),
            _ => PAGE,
        };
        bytes.div_ceil(unit).saturating_mul(unit)
    }

    /// A row of this number of points.
    pub(super) const fn slice(&self, points: u64) -> u64 {
        Self::block_of(points.saturating_mul(self.point))
    }

    /// The memory of a native histogram.
    pub(super) const fn object(&self, buckets: u64) -> u64 {
        self.histogram.saturating_add(Self::block_of(buckets.saturating_mul(self.bucket)))
    }
}
