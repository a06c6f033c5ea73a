//! The database on disk: everything through the log, and a checkpoint when the log has grown.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    Db, MaintainError, Options,
    block_store::BlockStore,
    manifest::{Manifest, compare},
    metadata, present, record,
};
use crate::{
    base::duration,
    node::{
        block, chunk,
        head::Series,
        wal::{LogError, Replayed, SyncPolicy, Wal},
    },
    series::Samples,
};

/// A checkpoint is written when the log has grown by this much, or doubled if that is more: samples take a fifth of the
/// bytes there that scrapes take in the log.
const GROWTH: u64 = 8 << 20;
/// Numbers in the log are dense, but for this many and three in four that are no longer used; others go into a map.
const NUMBER_GAP: usize = 1 << 16;
/// A node that was away for this long, milliseconds, or whose clock was stepped so far, says so.
const LONG_MS: u64 = 600_000;

impl Db {
    /// Opens the database in `dir`, made if it is missing, and returns the numbers of its log's records.
    ///
    /// # Errors
    /// The directory cannot be used, another process uses it, or another version of Weir wrote a file of it: then all
    /// files are unchanged. Damage is no error: it is in [`Replayed`].
    pub fn open(dir: &Path, options: Options) -> io::Result<(Self, Replayed)> {
        let mut db = Self::in_memory(options);
        db.sealed = BlockStore::lock(dir)?;
        let manifest = Manifest::read(dir)?;
        db.metadata = Mutex::new(metadata::read(dir)?);
        db.files_missing = AtomicU64::new(compare(dir, manifest.as_ref()) as u64);
        let opened = db.load_blocks()?;
        let mut target = Target {
            db: &db,
            by_number: Vec::new(),
            named: 0,
            far: HashMap::new(),
            current: None,
            pending: Vec::new(),
            chunk: Samples::default(),
        };
        let (wal, replayed) = Wal::open(&dir.join("wal"), options.sync, |payload| {
            let result = record::replay(payload, &mut target);
            target.flush();
            result
        })?;
        db.repair_blocks(opened)?;
        db.wal = Some(wal);
        db.dir = Some(dir.to_owned());
        db.replayed = replayed.clone();
        db.resume_clock(manifest.as_ref());
        if let Err(error) = db.write_manifest() {
            tracing::warn!(%error, "files that go missing are not noticed at the next start");
        }
        Ok((db, replayed))
    }

    /// Goes on where the clock was when the database was used last: nobody saw the time since then pass.
    fn resume_clock(&self, manifest: Option<&Manifest>) {
        let wall = (self.options.clock)();
        let newest = self.newest.load(Ordering::Relaxed);
        match manifest {
            Some(manifest) => {
                self.read_clock(manifest.latest_ms);
                self.read_clock(manifest.earliest_ms);
            }
            None if newest == i64::MIN => return,
            None => drop(self.read_clock(newest.min(wall))),
        }
        if let Some(step) = self.read_clock(wall).filter(|step| step.unsigned_abs() >= LONG_MS) {
            let (seconds, held) = (step / 1_000, duration::text(present::HELD));
            tracing::warn!(
                seconds,
                "by the clock the node was away for long: deletion by age waits until the clock has stayed so for {held}"
            );
        }
    }

    fn is_durable(&self) -> bool {
        self.options.sync != SyncPolicy::Never
    }

    /// Writes the manifest, if files came or went since the last one or it is old.
    pub(super) fn write_manifest(&self) -> Result<(), MaintainError> {
        let (Some(dir), Some(wal)) = (&self.dir, &self.wal) else { return Ok(()) };
        let mut written = self.written.lock();
        let mut blocks: Vec<String> = self.blocks().iter().map(|block| block::name_of(block)).collect();
        blocks.sort_unstable();
        let manifest = Manifest::of(blocks, wal.files(), self.earliest_present(), self.latest_present());
        Ok(written.write(dir, manifest, (self.options.monotonic)(), self.is_durable())?)
    }

    /// Writes the manifest once a new file of the log is acknowledged from. That it cannot be written refuses no write:
    /// upkeep tries again, and says so.
    pub(super) fn account_for_segment(&self) {
        let Some(wal) = &self.wal else { return };
        let number = wal.segment();
        if self.segment.swap(number, Ordering::Relaxed) != number
            && let Err(error) = self.write_manifest()
        {
            tracing::warn!(%error, "a new file of the log is not in the manifest yet");
        }
    }

    /// Writes the metadata of metrics, if something was said since the last time.
    pub(super) fn write_metadata(&self) -> Result<(), MaintainError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let metrics = {
            let mut held = self.metadata.lock();
            if !held.take_changed() {
                return Ok(());
            }
            held.by_metric().clone()
        };
        let written = metadata::write(dir, metrics, self.is_durable());
        Ok(written.inspect_err(|_| self.metadata.lock().set_changed())?)
    }

    /// Writes a checkpoint if the log has grown enough since the last, or differs from the content of memory.
    pub(super) fn checkpoint_if_due(&self) -> Result<(), MaintainError> {
        let Some(wal) = &self.wal else { return Ok(()) };
        let last = self.checkpointed.load(Ordering::Relaxed);
        let differs = self.log_differs.load(Ordering::Relaxed);
        if !differs && wal.size() < last.saturating_add(GROWTH.max(last)) {
            return Ok(());
        }
        self.checkpoint()
    }

    /// Replaces the log by the content of memory.
    ///
    /// # Errors
    /// The old log stays in place.
    pub fn checkpoint(&self) -> Result<(), MaintainError> {
        let Some(wal) = &self.wal else { return Ok(()) };
        self.rewrite_log(wal)?;
        // The manifest first: it must not name files that are gone.
        if let Err(error) = self.write_manifest() {
            tracing::debug!(%error, "the log is shortened before the manifest says so");
        }
        Ok(wal.clear()?)
    }

    fn rewrite_log(&self, wal: &Wal) -> Result<(), LogError> {
        let _alone = self.gate.write();
        let all: Vec<Arc<Series>> = self.registry().iter().cloned().collect();
        let result = wal.checkpoint(|put| {
            let mut records = record::HeldRecords::new();
            for series in &all {
                let held = series.held();
                if !held.runs.is_empty()
                    && let Some(record) = records.add(series, &held.runs)
                {
                    put(&record)?;
                }
            }
            records.finish().map_or(Ok(()), |record| put(&record))
        });
        // Whether or not it worked, saying labels again does no harm; not saying them would.
        for series in &all {
            series.not_logged();
            if result.is_ok() && !series.held().runs.is_empty() {
                series.logged_once_more();
            }
        }
        self.checkpointed.store(wal.size(), Ordering::Relaxed);
        if result.is_ok() {
            self.log_differs.store(false, Ordering::Relaxed);
        }
        result
    }
}

/// Puts back the content of the log.
struct Target<'a> {
    db: &'a Db,
    /// Series by the number they had when the log was written.
    by_number: Vec<Option<Arc<Series>>>,
    /// Occurrences of labels: a damaged number must not reserve memory for labels that are not there.
    named: usize,
    /// Those with numbers far beyond the others.
    far: HashMap<usize, Arc<Series>>,
    current: Option<Arc<Series>>,
    /// Samples of the current series that are not in it yet.
    pending: Vec<(i64, f64)>,
    chunk: Samples,
}

impl Target<'_> {
    fn flush(&mut self) {
        if let Some(series) = self.current.take() {
            self.db.put_back(&series, self.pending.drain(..));
        }
        self.pending.clear();
    }
}

impl record::Replay for Target<'_> {
    fn series(&mut self, number: u64, labels: Option<&[(&str, &str)]>) -> bool {
        self.flush();
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(labels) = labels {
            self.named += 1;
            let series = self.db.registry_mut().find_or_insert(labels);
            let near = number < self.named.saturating_mul(4).saturating_add(NUMBER_GAP);
            if near && number >= self.by_number.len() {
                self.by_number.resize(number + 1, None);
            }
            if let Some(slot) = self.by_number.get_mut(number) {
                *slot = series;
            } else {
                self.far.extend(series.map(|series| (number, series)));
            }
        }
        // A sample in both was written near the last.
        let found = self.by_number.get(number).and_then(Option::as_ref).or_else(|| self.far.get(&number));
        self.current = found.cloned();
        self.current.is_some()
    }

    fn sample(&mut self, time: i64, value: f64) {
        self.pending.push((time, value));
    }

    fn chunk(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.chunk.clear();
        chunk::decode_into(bytes, &mut self.chunk.times, &mut self.chunk.values)
            .map_err(|e| e.to_string())?;
        if let Some(series) = &self.current {
            let samples = self.chunk.times.iter().copied().zip(self.chunk.values.iter().copied());
            self.db.put_back(series, samples);
        }
        Ok(())
    }
}
