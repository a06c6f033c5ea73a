//! The database: series and their samples behind one interface, in memory and in a log that survives a kill.

mod append;
mod block_store;
mod cursor;
#[cfg(test)]
mod damage_tests;
mod durable;
mod error;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod full_tests;
mod health;
mod json_file;
mod lost_ranges;
mod manifest;
mod metadata;
mod present;
mod query;
mod record;
mod sealed;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod tests;
mod warnings;

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use append::Appended;
pub use error::{MaintainError, WriteError};
pub use health::Disk;
pub use query::{Candidates, Cost, Listing};

use super::{
    block::Block,
    head::{KnownSeries, LabelLimits, Metadata, Registry},
    wal::{Replayed, SyncPolicy, Wal},
};

/// How a database behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Series held at most; new ones are refused beyond it.
    pub max_series: usize,
    /// How far behind the newest sample of all a late one may be, in milliseconds; 0 accepts none behind its own
    /// series' newest.
    pub out_of_order_ms: u64,
    /// How long samples are kept, in milliseconds behind the newest sample of all.
    pub retention_ms: u64,
    /// The most that blocks and log take on the disk, bytes; beyond it the oldest blocks are deleted.
    pub size_bytes: u64,
    /// The span of one block when it is sealed, in milliseconds, from a multiple of it on.
    pub block_ms: u64,
    /// How far ahead of the clock a sample may be, in milliseconds.
    pub max_ahead_ms: u64,
    /// When the log is forced to the disk.
    pub sync: SyncPolicy,
    /// Limits on labels.
    pub labels: LabelLimits,
    /// The wall clock, milliseconds since the Unix epoch. It may be stepped.
    pub clock: fn() -> i64,
    /// A clock that is never stepped, from any beginning.
    pub monotonic: fn() -> Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_series: 2_000_000,
            out_of_order_ms: 1_800_000,
            retention_ms: 15 * 24 * 3_600_000,
            size_bytes: u64::MAX,
            block_ms: 2 * 3_600_000,
            max_ahead_ms: 600_000,
            sync: SyncPolicy::Always,
            labels: LabelLimits::default(),
            clock: wall_clock,
            monotonic,
        }
    }
}

fn wall_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

fn monotonic() -> Duration {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed()
}

/// Counters since the database was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Series held.
    pub series: u64,
    /// Samples accepted.
    pub samples_appended: u64,
    /// Samples refused.
    pub samples_refused: u64,
    /// Samples dropped by age.
    pub samples_expired: u64,
    /// Blocks on disk.
    pub blocks: u64,
    /// Bytes of them.
    pub block_bytes: u64,
    /// Blocks set aside because they are damaged.
    pub blocks_quarantined: u64,
    /// Damaged blocks that lie in the folder, those of earlier runs included.
    pub blocks_missing: u64,
    /// Damaged chunks that were found in the blocks on disk.
    pub chunks_damaged: u64,
    /// Places in the log where records were lost, as found when it was opened.
    pub wal_damaged: u64,
    /// Bytes lost there.
    pub wal_damaged_bytes: u64,
    /// Bytes cut off the end of the log.
    pub wal_torn_bytes: u64,
    /// Blocks merged into larger ones.
    pub blocks_compacted: u64,
    /// Time of the newest sample, `i64::MIN` before the first.
    pub newest_ms: i64,
    /// Samples older than this are gone or going; `i64::MAX` before the first sample.
    pub oldest_ms: i64,
    /// Files that the manifest names and that were missing, or shorter, when the database was opened.
    pub files_missing: u64,
    /// Writes that failed as a whole, by reason.
    pub writes_failed: [(&'static str, u64); WriteError::REASONS.len()],
    /// Rounds of upkeep that failed.
    pub upkeep_failed: u64,
    /// When the last round of upkeep succeeded, milliseconds since the Unix epoch; 0 before the first.
    pub upkeep_succeeded_ms: i64,
    /// Steps of the wall clock.
    pub clock_steps: u64,
    /// The disk of the data folder, where there is one.
    pub disk: Option<Disk>,
}

/// Series with their samples.
#[derive(Debug)]
pub struct Db {
    options: Options,
    registry: RwLock<Registry>,
    known: KnownSeries,
    /// `None` when nothing is to survive.
    wal: Option<Wal>,
    /// The result of the replay of the log.
    replayed: Replayed,
    /// The data folder; `None` when nothing is to survive.
    dir: Option<PathBuf>,
    /// The manifest on the disk.
    written: Mutex<manifest::Written>,
    /// The number of the log's segment when the manifest was written last.
    segment: AtomicU64,
    files_missing: AtomicU64,
    sealed: block_store::BlockStore,
    /// Size of the log behind the last checkpoint.
    checkpointed: AtomicU64,
    /// Whether the log may say another value than memory does, so that a checkpoint is due.
    log_differs: AtomicBool,
    /// Held for reading while a write is under way, so that the removal of series meets none half done.
    gate: RwLock<()>,
    newest: AtomicI64,
    appended: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
    readings: Mutex<present::Readings>,
    /// The bounds of the present, as readings have them.
    earliest: AtomicI64,
    latest: AtomicI64,
    health: health::Health,
    metadata: Mutex<Metadata>,
}

impl Db {
    /// A database that forgets everything when it is dropped.
    pub fn in_memory(options: Options) -> Self {
        let db = Self {
            options,
            registry: RwLock::default(),
            known: KnownSeries::default(),
            wal: None,
            replayed: Replayed::default(),
            dir: None,
            written: Mutex::default(),
            segment: AtomicU64::new(0),
            files_missing: AtomicU64::new(0),
            sealed: block_store::BlockStore::default(),
            checkpointed: AtomicU64::new(0),
            log_differs: AtomicBool::new(false),
            gate: RwLock::default(),
            newest: AtomicI64::new(i64::MIN),
            appended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            readings: Mutex::default(),
            earliest: AtomicI64::new(0),
            latest: AtomicI64::new(0),
            health: health::Health::default(),
            metadata: Mutex::default(),
        };
        db.read_clock((options.clock)());
        db
    }

    /// Series by the texts that senders name them with.
    pub fn known_series(&self) -> &KnownSeries {
        &self.known
    }

    /// How it behaves.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Its contents and counters.
    pub fn stats(&self) -> Stats {
        let blocks = self.blocks();
        Stats {
            series: self.registry().len() as u64,
            samples_appended: self.appended.load(Ordering::Relaxed),
            samples_refused: self.refused.load(Ordering::Relaxed),
            samples_expired: self.expired.load(Ordering::Relaxed),
            blocks: blocks.len() as u64,
            block_bytes: blocks.iter().map(|b| b.meta().bytes()).sum(),
            blocks_quarantined: self.sealed.quarantined.load(Ordering::Relaxed),
            blocks_missing: self.sealed.lost_ranges.len() as u64,
            chunks_damaged: blocks.iter().map(|b| b.lost_chunks()).sum(),
            wal_damaged: self.replayed.damaged,
            wal_damaged_bytes: self.replayed.damaged_bytes,
            wal_torn_bytes: self.replayed.torn_bytes,
            blocks_compacted: self.sealed.compacted.load(Ordering::Relaxed),
            newest_ms: self.newest.load(Ordering::Relaxed),
            oldest_ms: match self.newest.load(Ordering::Relaxed) {
                i64::MIN => i64::MAX,
                _ => self.oldest(),
            },
            files_missing: self.files_missing.load(Ordering::Relaxed),
            writes_failed: self.health.writes_failed(),
            upkeep_failed: self.health.upkeep_failed(),
            upkeep_succeeded_ms: self.health.upkeep_succeeded_ms(),
            clock_steps: self.health.clock_steps(),
            disk: self.health.disk(),
        }
    }

    fn expire(&self) {
        let _alone = self.gate.write();
        let oldest = self.oldest();
        let all: Vec<_> = self.registry().iter().cloned().collect();
        let mut empty = Vec::new();
        for series in all {
            let mut held = series.held();
            self.expired.fetch_add(held.runs.drop_before(oldest), Ordering::Relaxed);
            if held.is_empty() {
                empty.push(series.id());
            }
        }
        if !empty.is_empty() {
            let mut registry = self.registry_mut();
            for id in empty {
                registry.remove(id);
            }
            drop(registry);
            self.known.forget_removed();
        }
    }

    /// Samples older than this are gone or going.
    fn oldest(&self) -> i64 {
        let kept = i64::try_from(self.options.retention_ms).unwrap_or(i64::MAX);
        self.end().saturating_sub(kept)
    }

    /// The end of the head: the newest sample, but no sample moves it beyond the present.
    fn end(&self) -> i64 {
        self.newest.load(Ordering::Relaxed).min(self.earliest_present())
    }

    /// The earliest bound of the present, milliseconds since the Unix epoch.
    fn earliest_present(&self) -> i64 {
        present::ms((self.options.monotonic)()).saturating_add(self.earliest.load(Ordering::Relaxed))
    }

    /// The latest bound.
    fn latest_present(&self) -> i64 {
        present::ms((self.options.monotonic)()).saturating_add(self.latest.load(Ordering::Relaxed))
    }

    /// Takes a reading of the wall clock; by how many milliseconds it was stepped since the last one, if it was.
    fn read_clock(&self, wall_ms: i64) -> Option<i64> {
        let mut readings = self.readings.lock();
        let step = readings.add(wall_ms, (self.options.monotonic)());
        let bounds = readings.bounds();
        self.earliest.store(bounds.earliest, Ordering::Relaxed);
        self.latest.store(bounds.latest, Ordering::Relaxed);
        step
    }

    /// The blocks there are now.
    fn blocks(&self) -> Vec<Arc<Block>> {
        self.sealed.list().clone()
    }

    fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read()
    }

    fn registry_mut(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write()
    }
}
