//! Blocks: sealing, compaction, retention.
//!
//! Upkeep runs on one thread at a time and off the runtime. Every step leaves the folder whole: a block gets its name
//! when it is complete, names the blocks that it replaces, and only then do the replaced ones, or the log, go.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Db, MaintainError, health::Disk, lost_ranges::time, present};
use crate::{
    base::{TimeRange, duration},
    node::{
        block::{self, Block, BlockError, BlockWriter},
        head::{Part, Series},
        wal::Wal,
    },
    series::Samples,
};

/// The number of adjacent blocks that are merged into one.
const FAN: i64 = 3;
/// Blocks do not grow beyond this many times the sealed length: 54 h at 2 h.
const LENGTH_MAX: i64 = FAN * FAN * FAN;

/// A new block, and the series in it, in the order of their numbers there.
type NewBlock = (Arc<Block>, Vec<Written>);

/// The chunks of a series for a block that is being written.
struct Written {
    series: Arc<Series>,
    samples: u64,
}

impl Db {
    /// Seals samples that are old enough, merges blocks, drops those past their retention, and series left without
    /// samples; keeps the log short. Meant to run every few seconds; does nothing where nothing is due.
    ///
    /// # Errors
    /// Something could not be written; everything that was there is still there.
    pub fn maintain(&self) -> Result<(), MaintainError> {
        let _turn = self.sealed.turn.lock();
        self.watch_clock();
        let disk = self.examine_disk();
        // A block that cannot be set aside holds up nothing else.
        let quarantined = self.quarantine_damaged();
        let rest = self.tidy_up();
        let metadata = self.write_metadata();
        let quarantined = quarantined.map_err(MaintainError::from);
        let result = self.write_manifest().and(rest).and(metadata).and(quarantined).and(disk);
        self.health.upkeep_ended(&result, (self.options.clock)());
        result
    }

    /// Looks at the disk, and whether it would take a write.
    fn examine_disk(&self) -> Result<(), MaintainError> {
        let (Some(dir), Some(wal)) = (&self.dir, &self.wal) else { return Ok(()) };
        self.health.set_disk(Disk::of(dir));
        let probed = wal.probe();
        match &probed {
            Ok(()) => self.health.write_taken(),
            Err(error) => self.health.refuse(&error.clone().into()),
        }
        Ok(probed?)
    }

    fn watch_clock(&self) {
        let Some(step) = self.read_clock((self.options.clock)()) else { return };
        self.health.clock_stepped();
        let (seconds, held) = (step / 1_000, duration::text(present::HELD));
        tracing::warn!(
            seconds,
            "the clock was stepped: deletion by age follows the earlier time until this has lasted for {held}"
        );
    }

    fn tidy_up(&self) -> Result<(), MaintainError> {
        self.sealed.lost_ranges.look_again();
        self.expire_blocks()?;
        self.expire();
        if self.seal()? {
            self.checkpoint()?;
        }
        self.checkpoint_if_due()?;
        while self.compact()? {}
        // Again, since sealing and merging take room.
        self.expire_blocks()?;
        Ok(())
    }

    /// Opens the blocks in the folder and makes their series known; nothing there is changed before
    /// [`repair_blocks`](Self::repair_blocks).
    pub(super) fn load_blocks(&self) -> io::Result<block::Opened> {
        let Some(path) = &self.sealed.path else { return Ok(block::Opened::default()) };
        let mut opened = block::open_all(path).map_err(io::Error::other)?;
        for block in opened.blocks.drain(..) {
            let number = block::number(&block::name_of(&block)).unwrap_or(0);
            self.sealed.next.fetch_max(number.saturating_add(1), Ordering::Relaxed);
            self.newest.fetch_max(block.meta().max_time_ms, Ordering::Relaxed);
            let block = Arc::new(block);
            for number in 0..block.series_count() {
                let labels = block.labels(number).map_err(io::Error::other)?;
                let (first, last, _) = block.extent(number).map_err(io::Error::other)?;
                if let Some(series) = self.registry_mut().find_or_insert(&labels) {
                    series.held().attach(Part { block: Arc::clone(&block), number, first, last });
                }
            }
            self.sealed.list().push(block);
        }
        Ok(opened)
    }

    /// Sets damaged blocks aside and removes unfinished ones.
    pub(super) fn repair_blocks(&self, mut opened: block::Opened) -> io::Result<()> {
        opened.repair().map_err(io::Error::other)?;
        for (place, error) in &opened.damaged {
            tracing::error!(place = %place.display(), %error, "a block is damaged and set aside");
        }
        self.sealed.quarantined.store(opened.damaged.len() as u64, Ordering::Relaxed);
        for block in &opened.quarantined {
            let place = block.place.display();
            let time = |of: fn(TimeRange) -> i64| {
                block.range.map_or_else(|| "unknown".to_owned(), |range| time(of(range)))
            };
            let (from, to) = (time(|range| range.start), time(|range| range.end));
            tracing::warn!(%place, from, to, "a damaged block lies here; answers about its times carry a warning");
        }
        self.sealed.lost_ranges.set(opened.quarantined);
        if !opened.foreign.is_empty() {
            let folders: Vec<String> = opened.foreign.iter().map(|path| path.display().to_string()).collect();
            let folders = folders.join(", ");
            tracing::warn!(folders, "folders that are not blocks are left alone");
        }
        Ok(())
    }

    fn by_labels(&self) -> Vec<Arc<Series>> {
        let mut all: Vec<Arc<Series>> = self.registry().iter().cloned().collect();
        all.sort_by(|a, b| a.labels().cmp(b.labels()));
        all
    }

    fn length(&self) -> i64 {
        i64::try_from(self.options.block_ms).unwrap_or(i64::MAX).max(1)
    }

    /// Moves whole blocks' worth of samples from memory to disk; whether any were.
    fn seal(&self) -> Result<bool, BlockError> {
        if self.sealed.path.is_none() {
            return Ok(false);
        }
        let length = self.length();
        let late = i64::try_from(self.options.out_of_order_ms).unwrap_or(i64::MAX).max(length / 2);
        // Nothing late is accepted behind this, so that blocks hardly ever overlap.
        let end = self.end().saturating_sub(late);
        let end = end.saturating_sub(end.rem_euclid(length));
        let from = |time: i64| {
            let firsts = self.registry().iter().filter_map(|s| s.held().runs.next_time(time)).min();
            firsts.filter(|first| *first < end)
        };
        let Some(mut first) = from(i64::MIN) else { return Ok(false) };
        let all = self.by_labels();
        let mut sealed = false;
        loop {
            let upto = first.saturating_sub(first.rem_euclid(length)).saturating_add(length).min(end);
            let start = upto.saturating_sub(length);
            sealed |= self.seal_window(&all, TimeRange { start, end: upto - 1 })?;
            match from(upto) {
                Some(next) => first = next,
                None => return Ok(sealed),
            }
        }
    }

    fn seal_window(&self, all: &[Arc<Series>], window: TimeRange) -> Result<bool, BlockError> {
        let write = |series: &Series, into: &mut Samples| {
            series.held().runs.collect(window, into);
            Ok(())
        };
        let Some((block, written)) = self.write_block(all, &[], write)? else { return Ok(false) };
        let end = window.end.saturating_add(1);
        for (number, one) in written.iter().enumerate() {
            let number = number as u32;
            let (first, last, _) = block.extent(number)?;
            let part = Part { block: Arc::clone(&block), number, first, last };
            one.series.held().seal(part, end, one.samples);
        }
        self.sealed.list().push(block);
        Ok(true)
    }

    /// Writes a block of the samples that `read` finds of each series, and opens it; `None` when there are none.
    fn write_block(
        &self,
        all: &[Arc<Series>],
        replaced: &[Arc<Block>],
        read: impl Fn(&Series, &mut Samples) -> Result<(), BlockError>,
    ) -> Result<Option<NewBlock>, BlockError> {
        let Some(folder) = &self.sealed.path else { return Ok(None) };
        let name_of_new = self.sealed.next.fetch_add(1, Ordering::Relaxed).to_string();
        let replaces = replaced.iter().map(|block| block::name_of(block)).collect();
        let mut writer = BlockWriter::create(folder, &name_of_new, replaces)?;
        let mut samples = Samples::default();
        let mut written = Vec::new();
        for series in all {
            samples.clear();
            read(series, &mut samples)?;
            if !samples.is_empty() {
                let labels: Vec<(&str, &str)> =
                    series.labels().iter().map(|l| (&*l.name, &*l.value)).collect();
                writer.series(&labels, &samples.times, &samples.values)?;
                written.push(Written { series: Arc::clone(series), samples: samples.len() as u64 });
            }
        }
        let Some(path) = writer.finish()? else { return Ok(None) };
        Ok(Some((Arc::new(Block::open(&path)?), written)))
    }

    /// Merges blocks that overlap, or else the oldest neighbours that fill a larger window; returns whether there were
    /// any.
    fn compact(&self) -> Result<bool, BlockError> {
        let Some(chosen) = self.choose() else { return Ok(false) };
        let read = |series: &Series, into: &mut Samples| series.held().collect_blocks(&chosen, into);
        let merged = match self.write_block(&self.by_labels(), &chosen, read) {
            Ok(merged) => merged,
            // From now on it is not chosen: the warning about the loss hangs on the damaged block.
            Err(_) if chosen.iter().any(|block| !is_sound(block)) => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some((block, written)) = merged else { return Ok(false) };
        for (number, one) in written.iter().enumerate() {
            let number = number as u32;
            let (first, last, _) = block.extent(number)?;
            let mut held = one.series.held();
            for old in &chosen {
                held.detach(old);
            }
            held.attach(Part { block: Arc::clone(&block), number, first, last });
        }
        self.sealed.list().push(block);
        self.sealed.compacted.fetch_add(chosen.len() as u64, Ordering::Relaxed);
        self.remove(&chosen)?;
        Ok(true)
    }

    fn choose(&self) -> Option<Vec<Arc<Block>>> {
        let mut blocks: Vec<Arc<Block>> = self.blocks().into_iter().filter(is_sound).collect();
        blocks.sort_by_key(|block| (block.meta().min_time_ms, block.meta().max_time_ms));
        for pair in blocks.windows(2) {
            if let [a, b] = pair
                && a.meta().max_time_ms >= b.meta().min_time_ms
            {
                return Some(pair.to_vec());
            }
        }
        let sealed_to = blocks.last()?.meta().max_time_ms;
        let mut length = self.length();
        for _ in 0..LENGTH_MAX.ilog(FAN) {
            length = length.saturating_mul(FAN);
            let window_of = |time: i64| time.div_euclid(length);
            for group in
                blocks.chunk_by(|a, b| window_of(a.meta().min_time_ms) == window_of(b.meta().min_time_ms))
            {
                let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
                let window = window_of(first.meta().min_time_ms);
                let inside = window_of(last.meta().max_time_ms) == window;
                // A window that may still get a block waits for it.
                if group.len() > 1 && inside && window_of(sealed_to) > window {
                    return Some(group.to_vec());
                }
            }
        }
        None
    }

    /// Removes blocks whose last sample is past the retention, and the oldest while all take more than they may.
    fn expire_blocks(&self) -> Result<(), BlockError> {
        let oldest = self.oldest();
        let mut blocks = self.blocks();
        blocks.sort_by_key(|block| block.meta().max_time_ms);
        let log = self.wal.as_ref().map_or(0, Wal::size);
        let mut total = blocks.iter().map(|block| block.meta().bytes()).fold(log, u64::saturating_add);
        let (mut old, mut large) = (Vec::new(), Vec::new());
        for block in blocks {
            let group = match (block.meta().max_time_ms < oldest, total > self.options.size_bytes) {
                (true, _) => &mut old,
                (false, true) => &mut large,
                (false, false) => break,
            };
            total = total.saturating_sub(block.meta().bytes());
            group.push(block);
        }
        let kept = duration::text(Duration::from_millis(self.options.retention_ms));
        self.delete(&old, &format!("all of their samples are older than the retention, {kept}"))?;
        let most = self.options.size_bytes;
        self.delete(&large, &format!("blocks and log together took more than {most} bytes"))
    }

    fn delete(&self, blocks: &[Arc<Block>], why: &str) -> Result<(), BlockError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let range = TimeRange::new(first.meta().min_time_ms, last.meta().max_time_ms);
        for block in blocks {
            self.detach(block);
            self.expired.fetch_add(block.meta().samples, Ordering::Relaxed);
        }
        let (count, bytes) = (blocks.len(), blocks.iter().map(|block| block.meta().bytes()).sum::<u64>());
        let (from, to) = (time(range.start), time(range.end));
        tracing::info!(blocks = count, bytes, from, to, why, "deleting blocks");
        self.remove(blocks)
    }

    /// Renames blocks that a reader found damaged in more than chunks, all that can be; the first error.
    fn quarantine_damaged(&self) -> Result<(), BlockError> {
        let mut result = Ok(());
        for damaged in self.blocks().iter().filter(|block| block.is_damaged()) {
            match block::quarantine(damaged.path()) {
                Ok(place) => {
                    tracing::error!(place = %place.display(), "a block is damaged and set aside");
                    // Said before it leaves the list, so that no reader finds it in neither.
                    self.sealed.lost_ranges.add(place, Some(damaged.meta().range()));
                    self.sealed.quarantined.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.is_gone() => {
                    tracing::warn!(block = %damaged.path().display(), "somebody removed a damaged block");
                }
                Err(error) if result.is_ok() => {
                    result = Err(error);
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "another damaged block cannot be set aside either");
                    continue;
                }
            }
            self.detach(damaged);
            self.sealed.list().retain(|block| !Arc::ptr_eq(block, damaged));
        }
        result
    }

    fn detach(&self, block: &Arc<Block>) {
        for series in self.registry().iter() {
            series.held().detach(block);
        }
    }

    fn remove(&self, blocks: &[Arc<Block>]) -> Result<(), BlockError> {
        self.sealed.list().retain(|held| !blocks.iter().any(|block| Arc::ptr_eq(held, block)));
        if let Err(error) = self.write_manifest() {
            // On a full disk the files removed now make room for it.
            tracing::debug!(%error, "blocks are removed before the manifest says so");
        }
        for block in blocks {
            match block::remove(block.path()) {
                Err(error) if error.is_gone() => {
                    tracing::warn!(block = %block.path().display(), "somebody removed a block");
                }
                result => result?,
            }
        }
        Ok(())
    }
}

fn is_sound(block: &Arc<Block>) -> bool {
    !block.is_damaged() && block.intact().is_ok()
}
