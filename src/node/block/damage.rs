//! Which chunks of a block cannot be read. They are found when they are read, and left out from then on; all others
//! stay readable.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use super::index::ChunkRef;
use crate::base::TimeRange;

/// The most ranges that are kept; beyond it the last one reaches to the end of all.
const RANGES_MAX: usize = 8;
/// Chunks of one block that the log names; more are only counted.
const NAMED_MAX: u64 = 5;

/// The chunks of a block that cannot be read.
#[derive(Debug, Default)]
pub(super) struct Damage {
    count: AtomicU64,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// Where they start; there are never more than the block has chunks.
    offsets: HashSet<u64>,
    /// Their times, joined.
    ranges: Vec<TimeRange>,
}

impl Damage {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock()
    }

    /// How many are known.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the chunk is one of them, as far as is known.
    pub(super) fn has(&self, chunk: &ChunkRef) -> bool {
        self.count() > 0 && self.found().offsets.contains(&chunk.offset)
    }

    /// The times of their samples.
    pub(super) fn ranges(&self) -> Vec<TimeRange> {
        if self.count() == 0 { Vec::new() } else { self.found().ranges.clone() }
    }

    /// Adds one; whether the log should name it, which it does once.
    pub(super) fn add(&self, chunk: &ChunkRef) -> Option<Named> {
        let mut found = self.found();
        if !found.offsets.insert(chunk.offset) {
            return None;
        }
        let mut ranges = std::mem::take(&mut found.ranges);
        ranges.push(TimeRange { start: chunk.min_time_ms, end: chunk.max_time_ms });
        found.ranges = joined(ranges);
        match self.count.fetch_add(1, Ordering::Relaxed) + 1 {
            NAMED_MAX => Some(Named::Last),
            number => (number < NAMED_MAX).then_some(Named::OneOfFew),
        }
    }
}

/// A chunk that the log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    OneOfFew,
    /// More of this block are not named.
    Last,
}

/// Ranges in order, those that meet made one, at most `RANGES_MAX`.
pub fn joined(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<TimeRange> = Vec::new();
    for range in ranges {
        let full = joined.len() == RANGES_MAX;
        match joined.last_mut() {
            Some(last) if full || range.start <= last.end.saturating_add(1) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_are_one_and_there_are_never_many() {
        let range = |start, end| TimeRange { start, end };
        assert_eq!(joined(vec![range(5, 9), range(0, 4), range(11, 12)]), [range(0, 9), range(11, 12)]);
        let many = joined((0..100).map(|i| range(i * 10, i * 10 + 1)).collect());
        assert_eq!((many.len(), many.last()), (RANGES_MAX, Some(&range(70, 991))));
    }

    #[test]
    fn a_chunk_counts_once_and_the_log_names_few() {
        let damage = Damage::default();
        let chunk = |offset: u64| ChunkRef {
            min_time_ms: offset as i64 * 10,
            max_time_ms: offset as i64 * 10 + 3,
            samples: 1,
            offset,
            bytes: 1,
            crc: 0,
        };
        let named: Vec<_> = (0..50).filter_map(|offset| damage.add(&chunk(offset))).collect();
        assert_eq!((named.len() as u64, named.last()), (NAMED_MAX, Some(&Named::Last)));
        assert_eq!((damage.add(&chunk(7)), damage.count()), (None, 50));
        assert!(damage.has(&chunk(49)) && !damage.has(&chunk(50)));
        assert_eq!(damage.ranges().len(), RANGES_MAX);
    }
}
