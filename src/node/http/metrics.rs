//! The node's own metrics. Gauges are read when somebody asks.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Node;
use crate::{
    node::db::Stats,
    telemetry::process::{MemoryCollector, ProcessCollector},
};

/// Counts and gauges in a registry of their own.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Apart, since a proxy in the same process tells the same of it.
    process: Registry,
    stored: Stored,
    log: Log,
    reads: IntGauge,
    reads_done: IntCounter,
    reads_refused: IntCounter,
    write_bytes: IntGaugeVec,
    writes_refused: IntCounter,
    recent: IntGaugeVec,
    recent_refused: IntCounter,
}

/// Samples and blocks.
#[derive(Debug)]
struct Stored {
    series: IntGauge,
    appended: IntCounter,
    refused: IntCounter,
    expired: IntCounter,
    blocks: IntGauge,
    block_bytes: IntGauge,
    quarantined: IntCounter,
    missing: IntGauge,
    chunks_damaged: IntGauge,
    compacted: IntCounter,
}

impl Stored {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name, help| gauge(registry, name, help);
        let counter = |name, help| counter(registry, name, help);
        Ok(Self {
            series: gauge("weir_node_series", "Series held.")?,
            appended: counter("weir_node_samples_appended_total", "Samples written.")?,
            refused: counter("weir_node_samples_refused_total", "Samples refused.")?,
            expired: counter("weir_node_samples_expired_total", "Samples dropped by age.")?,
            blocks: gauge("weir_node_blocks", "Sealed blocks on disk.")?,
            block_bytes: gauge("weir_node_block_bytes", "Bytes of the sealed blocks.")?,
            quarantined: counter("weir_node_blocks_quarantined_total", "Damaged blocks set aside.")?,
            missing: gauge(
                "weir_node_blocks_quarantined",
                "Damaged blocks that lie in the folder; answers about their times carry a warning.",
            )?,
            chunks_damaged: gauge(
                "weir_node_chunks_damaged",
                "Damaged chunks found in blocks on disk; answers about their times carry a warning.",
            )?,
            compacted: counter("weir_node_blocks_compacted_total", "Blocks merged into larger ones.")?,
        })
    }

    fn show(&self, stats: &Stats) {
        self.series.set(stats.series as i64);
        self.blocks.set(stats.blocks as i64);
        self.block_bytes.set(stats.block_bytes as i64);
        self.missing.set(stats.blocks_missing as i64);
        self.chunks_damaged.set(stats.chunks_damaged as i64);
        raise(&self.appended, stats.samples_appended);
        raise(&self.refused, stats.samples_refused);
        raise(&self.expired, stats.samples_expired);
        raise(&self.quarantined, stats.blocks_quarantined);
        raise(&self.compacted, stats.blocks_compacted);
    }
}

/// What was found when the log was read back.
#[derive(Debug)]
struct Log {
    damaged: IntCounter,
    damaged_bytes: IntCounter,
    torn_bytes: IntCounter,
}

impl Log {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| counter(registry, name, help);
        Ok(Self {
            damaged: counter(
                "weir_node_wal_damaged_records_total",
                "Places in the log where records were lost, found when it was read back.",
            )?,
            damaged_bytes: counter(
                "weir_node_wal_damaged_bytes_total",
                "Bytes of the log that were lost there.",
            )?,
            torn_bytes: counter(
                "weir_node_wal_torn_bytes_total",
                "Bytes that were not whole and were cut off the end of the log when it was read back.",
            )?,
        })
    }

    fn show(&self, stats: &Stats) {
        raise(&self.damaged, stats.wal_damaged);
        raise(&self.damaged_bytes, stats.wal_damaged_bytes);
        raise(&self.torn_bytes, stats.wal_torn_bytes);
    }
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let (registry, process) = (Registry::new(), Registry::new());
        process.register(Box::new(ProcessCollector::new()?))?;
        process.register(Box::new(MemoryCollector::new()?))?;
        let counter = |name, help| counter(&registry, name, help);
        Ok(Self {
            stored: Stored::new(&registry)?,
            log: Log::new(&registry)?,
            reads: gauge(
                &registry,
                "weir_node_reads_outstanding",
                "Reads that run, wait to run or are being sent.",
            )?,
            reads_done: counter("weir_node_reads_total", "Reads that ran.")?,
            reads_refused: counter(
                "weir_node_reads_refused_total",
                "Reads refused because there were too many.",
            )?,
            write_bytes: by_kind(
                &registry,
                "weir_node_write_bytes",
                "Bytes held of writes: their bodies as sent, and unpacked.",
            )?,
            writes_refused: counter(
                "weir_node_writes_refused_total",
                "Writes whose bodies were too large or too slow, or for which there was no room.",
            )?,
            recent: by_kind(
                &registry,
                "weir_node_recent_read",
                "What all reads touched within the window of the limits on it; 0 where there are none.",
            )?,
            recent_refused: counter(
                "weir_node_recent_refused_total",
                "Reads refused or stopped because so much was read lately.",
            )?,
            registry,
            process,
        })
    }

    /// Where the metrics of what the node is made of go.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn encode(&self, node: &Node) -> prometheus::Result<String> {
        let (reads, writes, recent) = (&node.reads, &node.writes, &node.recent);
        let stats = node.db.stats();
        self.stored.show(&stats);
        self.log.show(&stats);
        self.reads.set(reads.outstanding() as i64);
        node.connections.show();
        raise(&self.reads_done, reads.done());
        raise(&self.reads_refused, reads.refused());
        raise(&self.writes_refused, writes.refused());
        raise(&self.recent_refused, recent.refused());
        for (of, value) in [("bodies", writes.body_bytes()), ("unpacked", writes.unpacked_bytes())] {
            self.write_bytes.with_label_values(&[of]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let touched = recent.touched();
        for (of, value) in
            [("series", touched.series), ("samples", touched.samples), ("bytes", touched.bytes)]
        {
            self.recent.with_label_values(&[of]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// What the process takes.
    pub(super) fn encode_process(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.process.gather())
    }
}

/// Brings a counter up to what was counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn by_kind(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGaugeVec> {
    let gauge = IntGaugeVec::new(Opts::new(name, help), &["of"])?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
