//! All samples of one series: those in memory, and where the sealed ones are.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    samples::{Refusal, Rules, Runs},
    series::Series,
};
use crate::{
    base::TimeRange,
    node::block::{Block, BlockError},
    series::Samples,
};

/// The samples of a series for a block.
#[derive(Clone, Debug)]
pub struct Part {
    /// The block.
    pub block: Arc<Block>,
    /// The number of the series in it.
    pub number: u32,
    /// Time of its first sample there.
    pub first: i64,
    /// Time of its last sample there.
    pub last: i64,
}

impl Part {
    fn touches(&self, window: TimeRange) -> bool {
        self.first <= window.end && self.last >= window.start && !self.block.is_damaged()
    }

    /// The block leaves damaged chunks out. One with a damaged index is left out, and out of every later read; upkeep
    /// sets it aside.
    fn read(&self, window: TimeRange, into: &mut Samples) {
        let before = into.len();
        if self.block.read(self.number, window, &mut into.times, &mut into.values).is_err() {
            into.times.truncate(before);
            into.values.truncate(before);
            self.block.damaged();
        }
    }
}

/// The samples of a series. A sample may be in several places (a block that came late, or a restart between sealing
/// and shortening the log); then the oldest place counts, and it counts once.
#[derive(Debug, Default)]
pub struct Held {
    /// The samples in memory.
    pub runs: Runs,
    /// By rising first time.
    parts: Vec<Part>,
}

impl Held {
    /// Whether there is nothing anywhere.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.parts.is_empty()
    }

    /// As [`Runs::check`]; sealed samples count for the order although their values are not looked at.
    pub fn check(
        &self,
        time: i64,
        value: f64,
        pending: Option<(i64, f64)>,
        rules: Rules,
    ) -> Result<bool, Refusal> {
        if self.runs.last().is_none()
            && let Some(sealed) = self.parts.iter().map(|part| part.last).max()
            && time <= sealed
        {
            match rules.late_from {
                _ if time == sealed => return Ok(false),
                i64::MAX => return Err(Refusal::OutOfOrder),
                from if time < from => return Err(Refusal::TooOld),
                _ => {}
            }
        }
        self.runs.check(time, value, pending, rules)
    }

    /// The parts that may hold samples of the window.
    fn parts_in(&self, window: TimeRange) -> Parts {
        self.parts.iter().filter(|part| part.touches(window)).cloned().collect()
    }

    /// Adds a block's chunks.
    pub fn attach(&mut self, part: Part) {
        let at = self.parts.partition_point(|held| held.first <= part.first);
        self.parts.insert(at, part);
    }

    /// Forgets a block's chunks.
    pub fn detach(&mut self, block: &Arc<Block>) {
        self.parts.retain(|part| !Arc::ptr_eq(&part.block, block));
    }

    /// Moves samples into a block that has `samples` of this series, all that were here before `end` when it was
    /// written. If more came meanwhile all stay in memory as well, for the next block.
    pub fn seal(&mut self, part: Part, end: i64, samples: u64) {
        self.attach(part);
        let before = TimeRange { start: i64::MIN, end: end.saturating_sub(1) };
        if self.runs.count(before) == samples {
            self.runs.drop_before(end);
        }
    }

    /// Appends the samples of the given blocks, merged, to `into`, which is empty.
    ///
    /// # Errors
    /// A block is damaged: nothing may take its place, since the loss would no longer be seen.
    pub fn collect_blocks(&self, blocks: &[Arc<Block>], into: &mut Samples) -> Result<(), BlockError> {
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let chosen = |part: &&Part| blocks.iter().any(|block| Arc::ptr_eq(block, &part.block));
        for part in self.parts.iter().filter(chosen) {
            let read = part.block.read(part.number, all, &mut into.times, &mut into.values);
            read.inspect_err(|_| part.block.damaged())?;
            part.block.intact()?;
        }
        if !into.times.is_sorted_by(|a, b| a < b) {
            merge(into);
        }
        Ok(())
    }
}

/// The parts that a read looks at, as a rule few.
type Parts = SmallVec<[Part; 4]>;

/// Reads. The lock of the series is held to see where its samples are and to copy those in memory; blocks, whose pages
/// may have to come from the disk, are decoded without it, since appends wait for it.
impl Series {
    fn inside<T>(&self, window: TimeRange, in_memory: impl FnOnce(&Runs) -> T) -> (Parts, T) {
        let held = self.held();
        (held.parts_in(window), in_memory(&held.runs))
    }

    /// Appends the samples of the window to `into`, which is empty.
    pub fn collect(&self, window: TimeRange, into: &mut Samples) {
        let (parts, ()) = self.inside(window, |runs| runs.collect(window, into));
        if parts.is_empty() {
            return;
        }
        let in_memory = into.len();
        for part in &parts {
            part.read(window, into);
        }
        into.times.rotate_left(in_memory);
        into.values.rotate_left(in_memory);
        // In all but a few cases one place ends where the next begins.
        if !into.times.is_sorted_by(|a, b| a < b) {
            merge(into);
        }
    }

    /// In how many places there are samples of the window, and how many they are.
    pub fn count(&self, window: TimeRange) -> (u64, u64) {
        let (parts, (in_memory, first)) = self.inside(window, |runs| (runs.count(window), runs.first_time()));
        let (mut places, mut samples) = (u64::from(in_memory > 0), in_memory);
        let mut end = i64::MIN;
        let mut apart = true;
        for part in &parts {
            match part.block.count(part.number, window) {
                Ok(count) => {
                    places += u64::from(count > 0);
                    samples += count;
                }
                Err(_) => part.block.damaged(),
            }
            apart &= part.first > end;
            end = end.max(part.last);
        }
        apart &= in_memory == 0 || first.is_none_or(|first| first > end);
        if !apart {
            let mut all = Samples::default();
            self.collect(window, &mut all);
            samples = all.len() as u64;
        }
        (places, samples)
    }

    /// At least the samples of the window, as a rule; read from the index alone.
    pub fn expected(&self, window: TimeRange) -> usize {
        let (parts, in_memory) = self.inside(window, |runs| runs.expected(window));
        let sealed = parts.iter().filter_map(|part| part.block.cost(part.number, window).ok());
        (sealed.map(|cost| cost.samples).sum::<u64>() as usize).saturating_add(in_memory)
    }

    /// Bytes of the chunks that reading the window takes.
    pub fn stored_bytes(&self, window: TimeRange) -> u64 {
        let (parts, in_memory) = self.inside(window, |runs| runs.stored_bytes(window));
        let sealed = parts.iter().filter_map(|part| part.block.cost(part.number, window).ok());
        sealed.map(|cost| cost.bytes).sum::<u64>().saturating_add(in_memory)
    }

    /// Whether there is a sample in the window.
    pub fn touches(&self, window: TimeRange) -> bool {
        let (parts, in_memory) = self.inside(window, |runs| runs.touches(window));
        in_memory || !parts.is_empty() && self.count(window).1 > 0
    }
}

/// Sorts by time; of samples with the same time the first stays.
fn merge(samples: &mut Samples) {
    let mut pairs: Vec<(i64, f64)> =
        samples.times.iter().copied().zip(samples.values.iter().copied()).collect();
    pairs.sort_by_key(|pair| pair.0);
    pairs.dedup_by_key(|pair| pair.0);
    samples.clear();
    for (time, value) in pairs {
        samples.push(time, value);
    }
}
