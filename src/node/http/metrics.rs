//! The node's own metrics. Gauges are read at the scrape.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Node;
use crate::{
    node::db::Stats,
    telemetry::process::{MemoryCollector, ProcessCollector},
};

/// Counts and gauges in a registry of their own.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// A registry of its own, since a proxy in the same process exports the same names.
    process: Registry,
    stored: Stored,
    log: Log,
    faults: Faults,
    reads: IntGauge,
    reads_done: IntCounter,
    reads_refused: IntCounter,
    reads_again: IntCounter,
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

/// The findings of the replay of the log.
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

/// Failures while it runs, and the disk.
#[derive(Debug)]
struct Faults {
    writes_failed: IntCounterVec,
    upkeep_failed: IntCounter,
    upkeep_succeeded: Gauge,
    files_missing: IntGauge,
    clock_steps: IntCounter,
    disk_free: IntGauge,
    disk_size: IntGauge,
}

impl Faults {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Writes of which nothing was stored, by reason: the disk is full or read-only, the data folder was \
                    deleted, or the log failed.";
        let writes_failed =
            IntCounterVec::new(Opts::new("weir_node_writes_failed_total", help), &["reason"])?;
        registry.register(Box::new(writes_failed.clone()))?;
        let upkeep_succeeded = Gauge::new(
            "weir_node_upkeep_last_success_timestamp_seconds",
            "When sealing, merging and deleting last succeeded; 0 before the first time.",
        )?;
        registry.register(Box::new(upkeep_succeeded.clone()))?;
        Ok(Self {
            writes_failed,
            upkeep_failed: counter(
                registry,
                "weir_node_upkeep_failures_total",
                "Rounds of sealing, merging and deleting that failed.",
            )?,
            upkeep_succeeded,
            files_missing: gauge(
                registry,
                "weir_node_files_missing",
                "Files of blocks and log that were missing, or shorter than they were, at the start.",
            )?,
            clock_steps: counter(
                registry,
                "weir_node_clock_steps_total",
                "Steps of the clock; deletion by age waits for hours after one.",
            )?,
            disk_free: gauge(
                registry,
                "weir_node_disk_free_bytes",
                "Free bytes on the disk of the data folder.",
            )?,
            disk_size: gauge(registry, "weir_node_disk_size_bytes", "Size of the disk of the data folder.")?,
        })
    }

    fn show(&self, stats: &Stats) {
        for (reason, total) in stats.writes_failed {
            raise(&self.writes_failed.with_label_values(&[reason]), total);
        }
        raise(&self.upkeep_failed, stats.upkeep_failed);
        self.upkeep_succeeded.set(stats.upkeep_succeeded_ms as f64 / 1_000.0);
        self.files_missing.set(i64::try_from(stats.files_missing).unwrap_or(i64::MAX));
        raise(&self.clock_steps, stats.clock_steps);
        if let Some(disk) = stats.disk {
            self.disk_free.set(i64::try_from(disk.free).unwrap_or(i64::MAX));
            self.disk_size.set(i64::try_from(disk.size).unwrap_or(i64::MAX));
        }
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
            faults: Faults::new(&registry)?,
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
            reads_again: counter(
                "weir_node_reads_again_total",
                "How often a read ran again beside fewer others, since the pool had no memory for it among them.",
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
                "Reads refused or stopped because the quota of recent reads was used up.",
            )?,
            registry,
            process,
        })
    }

    /// The registry for the metrics of the node's parts.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn encode(&self, node: &Node) -> prometheus::Result<String> {
        let (reads, writes, recent) = (&node.reads, &node.writes, &node.recent);
        let stats = node.db.stats();
        self.stored.show(&stats);
        self.log.show(&stats);
        self.faults.show(&stats);
        self.reads.set(reads.outstanding() as i64);
        node.connections.show();
        raise(&self.reads_done, reads.done());
        raise(&self.reads_refused, reads.refused());
        raise(&self.reads_again, reads.again());
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

    /// Memory and CPU of the process.
    pub(super) fn encode_process(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.process.gather())
    }
}

/// Brings a counter up to a count kept elsewhere.
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
