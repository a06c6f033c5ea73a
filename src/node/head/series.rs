//! Every series the node knows, found by its labels or through the index.

use std::{
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::held::Held;
use crate::{
    node::index::{Index, SeriesId},
    series::{Label, Labels},
};

/// One series.
#[derive(Debug)]
pub struct Series {
    id: SeriesId,
    labels: Labels,
    held: Mutex<Held>,
    /// How many records of the log say which labels the number stands for.
    logged: AtomicU8,
    removed: AtomicBool,
}

impl Series {
    /// Its number.
    pub fn id(&self) -> SeriesId {
        self.id
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its samples.
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// Whether the registry has forgotten it: nobody reads samples that are added now.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Whether the log has its labels, twice: one damaged record must not cost the series those after it.
    pub fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Acquire) >= 2
    }

    /// Says that one more record of the log has its labels.
    pub fn logged_once_more(&self) {
        let held = self.logged.load(Ordering::Acquire);
        // Two writers may both count from the same number; then the labels are said once too often.
        self.logged.store(held.saturating_add(1), Ordering::Release);
    }

    /// Says that the log has its labels nowhere.
    pub fn not_logged(&self) {
        self.logged.store(0, Ordering::Release);
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        self.labels.iter().map(|l| (&*l.name, &*l.value)).eq(labels.iter().copied())
    }
}

/// Series by number and by labels. Numbers of removed series are given again.
#[derive(Debug, Default)]
pub struct Registry {
    index: Index,
    hasher: RandomState,
    /// Numbers beside the hashes of their labels, so that growing needs no labels.
    by_labels: HashTable<(u64, SeriesId)>,
    slots: Vec<Option<Arc<Series>>>,
    free: Vec<SeriesId>,
}

impl Registry {
    /// Postings of all series.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A series by number.
    pub fn get(&self, id: SeriesId) -> Option<&Arc<Series>> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// A series by its labels, which are sorted by name and without empty values.
    pub fn find(&self, labels: &[(&str, &str)]) -> Option<&Arc<Series>> {
        self.find_hashed(self.hasher.hash_one(labels), labels)
    }

    fn find_hashed(&self, hash: u64, labels: &[(&str, &str)]) -> Option<&Arc<Series>> {
        let is_it =
            |(other, id): &(u64, SeriesId)| *other == hash && self.get(*id).is_some_and(|s| s.has(labels));
        self.get(self.by_labels.find(hash, is_it)?.1)
    }

    /// All series.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.slots.iter().flatten()
    }

    /// The series with these labels (sorted by name, without empty values), made if there is none. `None` when no
    /// number is left.
    pub fn find_or_insert(&mut self, labels: &[(&str, &str)]) -> Option<Arc<Series>> {
        let hash = self.hasher.hash_one(labels);
        if let Some(found) = self.find_hashed(hash, labels) {
            return Some(Arc::clone(found));
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None => SeriesId::try_from(self.slots.len()).ok()?,
        };
        let intern = |(name, value): &(&str, &str)| {
            let (held_name, held_value) = self.index.interned(name, value);
            Label {
                name: held_name.unwrap_or_else(|| (*name).into()),
                value: held_value.unwrap_or_else(|| (*value).into()),
            }
        };
        let own: Labels = labels.iter().map(intern).collect();
        self.index.insert(id, own.iter().map(|l| (&l.name, &l.value)));
        self.by_labels.insert_unique(hash, (hash, id), |(hash, _)| *hash);
        let series = Arc::new(Series {
            id,
            labels: own,
            held: Mutex::default(),
            logged: AtomicU8::new(0),
            removed: AtomicBool::new(false),
        });
        if id as usize == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = Some(Arc::clone(&series));
        }
        Some(series)
    }

    /// Forgets a series.
    pub fn remove(&mut self, id: SeriesId) {
        let Some(series) = self.slots.get_mut(id as usize).and_then(Option::take) else { return };
        series.removed.store(true, Ordering::Release);
        let pairs: Vec<(&str, &str)> = series.labels.iter().map(|l| (&*l.name, &*l.value)).collect();
        self.index.remove(id, pairs.iter().copied());
        let hash = self.hasher.hash_one(pairs.as_slice());
        if let Ok(found) = self.by_labels.find_entry(hash, |(_, held)| *held == id) {
            found.remove();
        }
        self.free.push(id);
    }
}
