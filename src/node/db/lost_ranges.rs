//! The times of damaged blocks.

use std::path::PathBuf;

use parking_lot::{Mutex, MutexGuard};

use crate::{base::TimeRange, node::block::Quarantined};

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

    /// Their times; `None` where they are not known.
    pub(super) fn ranges(&self) -> Vec<Option<TimeRange>> {
        self.list().iter().map(|block| block.range).collect()
    }
}

/// A time as people read it.
pub(super) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}
