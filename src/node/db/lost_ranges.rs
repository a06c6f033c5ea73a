//! Warnings for readers about samples that were lost with a damaged block or chunk.

use std::path::PathBuf;

use parking_lot::{Mutex, MutexGuard};

use super::Db;
use crate::{
    base::TimeRange,
    node::block::{Quarantined, joined},
};

/// The damaged blocks that lie in the folder.
#[derive(Debug, Default)]
pub(super) struct LostRanges(Mutex<Vec<Quarantined>>);

impl LostRanges {
    fn list(&self) -> MutexGuard<'_, Vec<Quarantined>> {
        self.0.lock()
    }

    pub(super) fn len(&self) -> usize {
        self.list().len()
    }

    pub(super) fn add(&self, place: PathBuf, range: Option<TimeRange>) {
        self.list().push(Quarantined { place, range });
    }

    pub(super) fn set(&self, quarantined: Vec<Quarantined>) {
        *self.list() = quarantined;
    }

    /// Forgets blocks that an operator has taken out of the folder.
    pub(super) fn look_again(&self) {
        let held: Vec<PathBuf> = self.list().iter().map(|block| block.place.clone()).collect();
        let gone: Vec<PathBuf> = held.into_iter().filter(|place| !place.exists()).collect();
        self.list().retain(|block| !gone.contains(&block.place));
    }

    fn ranges(&self) -> Vec<Option<TimeRange>> {
        self.list().iter().map(|block| block.range).collect()
    }
}

impl Db {
    /// The warnings of an answer about these windows: the times whose samples may be missing by damage. Asked after
    /// reading, since reading finds the damage.
    pub fn warnings(&self, windows: impl IntoIterator<Item = TimeRange>) -> Vec<String> {
        let mut lost = self.sealed.lost_ranges.ranges();
        for block in self.blocks() {
            // Found damaged a moment ago, and not set aside yet.
            lost.extend(block.is_damaged().then(|| Some(block.meta().range())));
            lost.extend(block.lost_ranges().into_iter().map(Some));
        }
        if lost.is_empty() {
            return Vec::new();
        }
        let mut cut = Vec::new();
        for window in windows {
            let start = window.start.max(self.oldest());
            for range in lost.iter().flatten() {
                let (start, end) = (range.start.max(start), range.end.min(window.end));
                if start <= end {
                    cut.push(TimeRange { start, end });
                }
            }
        }
        let mut texts: Vec<String> = joined(cut).into_iter().map(text).collect();
        if lost.contains(&None) {
            texts.push(
                "samples may be missing: a damaged block, whose times are not known, is set aside".into(),
            );
        }
        texts
    }
}

/// A time as people read it.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

fn text(range: TimeRange) -> String {
    let (start, end) = (time(range.start), time(range.end));
    format!("samples from {start} to {end} may be missing: a block that held them is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_told() {
        let said = text(TimeRange { start: 1_700_000_000_000, end: 1_700_000_000_500 });
        assert!(
            said.starts_with("samples from 2023-11-14T22:13:20Z to 2023-11-14T22:13:20.5Z may"),
            "{said}"
        );
    }
}
