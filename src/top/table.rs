//! The heaviest keys of one slot, by each measure at once.
//!
//! Space-saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005), once for each measure over
//! one set of entries: a key that a measure does not keep takes the place of that measure's smallest, and with it its
//! count as the most that it can have had before. So no number lacks more than the total divided by [`KEYS_MAX`]. Crates that
//! count so (`topk`) rank by one count and keep nothing else of a key.

use std::sync::Arc;

use hashbrown::HashTable;

use super::{
    dimensions::{KEYS_MAX, Measure, Observation},
    stats::{Amounts, Details, Worst},
};

/// A key, and its numbers since it is here: each is the least.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    hash: u64,
    pub(super) seen: Amounts,
    pub(super) details: Details,
    /// Its place in the rank of each measure that keeps it.
    places: [Option<u8>; Measure::ALL.len()],
}

/// A place in the rank of a measure.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Whose it is: an index into the entries.
    entry: usize,
    /// The key has had this at most.
    at_most: u64,
}

/// The heaviest keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    index: HashTable<usize>,
    entries: Vec<Entry>,
    ranks: [Vec<Place>; Measure::ALL.len()],
}

const _: () = assert!(KEYS_MAX <= u8::MAX as usize, "a place fits a byte");

impl Table {
    /// Keys that are here: at most [`KEYS_MAX`] for each measure.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A key that is not kept by a measure has had this at most.
    pub(super) fn floor(&self) -> Amounts {
        let floor = |rank: &Vec<Place>| match rank.iter().map(|place| place.at_most).min() {
            Some(least) if rank.len() >= KEYS_MAX => least,
            _ => 0,
        };
        Amounts(self.ranks.each_ref().map(floor))
    }

    /// The most that a key of this table has had beside its numbers; `floor` is that of the table.
    pub(super) fn missed(&self, entry: &Entry, floor: &Amounts) -> Amounts {
        let mut at_most = self.at_most(entry, floor);
        at_most.subtract(&entry.seen);
        at_most
    }

    fn at_most(&self, entry: &Entry, floor: &Amounts) -> Amounts {
        let mut at_most = *floor;
        for ((of, rank), place) in at_most.0.iter_mut().zip(&self.ranks).zip(entry.places) {
            if let Some(place) = place.and_then(|place| rank.get(usize::from(place))) {
                *of = place.at_most;
            }
        }
        at_most
    }

    /// For each measure that keeps an entry, the most that it has had.
    pub(super) fn kept(&self, entry: &Entry) -> [Option<u64>; Measure::ALL.len()] {
        let at_most = self.at_most(entry, &Amounts::default());
        std::array::from_fn(|measure| entry.places[measure].map(|_| at_most.0[measure]))
    }

    /// Counts a query of this key.
    pub(super) fn observe(
        &mut self,
        (key, hash): (&str, u64),
        query: &Observation<'_>,
        added: &Amounts,
        worst: impl FnOnce() -> Arc<Worst>,
    ) {
        let known = self.index.find(hash, |at| *self.entries[*at].key == *key).copied();
        let at = known.unwrap_or_else(|| self.insert(key, hash));
        let entry = &mut self.entries[at];
        entry.seen.add(added);
        entry.details.observe(query, worst);
        let (places, mut homeless) = (entry.places, [None; Measure::ALL.len()]);
        for (measure, (rank, weight)) in self.ranks.iter_mut().zip(added.0).enumerate() {
            match places[measure] {
                _ if weight == 0 => {}
                Some(place) => {
                    let at_most = &mut rank[usize::from(place)].at_most;
                    *at_most = at_most.saturating_add(weight);
                }
                None => {
                    let (place, before) = take_place(rank, at, weight);
                    self.entries[at].places[measure] = Some(place as u8);
                    if let Some(before) = before {
                        self.entries[before].places[measure] = None;
                        homeless[measure] = Some(self.entries[before].hash);
                    }
                }
            }
        }
        // By their hashes: each removal moves the last entry.
        for hash in homeless.into_iter().flatten() {
            self.remove_homeless(hash);
        }
    }

    fn insert(&mut self, key: &str, hash: u64) -> usize {
        let at = self.entries.len();
        self.entries.push(Entry {
            key: key.into(),
            hash,
            seen: Amounts::default(),
            details: Details::default(),
            places: [None; Measure::ALL.len()],
        });
        let entries = &self.entries;
        self.index.insert_unique(hash, at, |at| entries[*at].hash);
        at
    }

    /// Takes an entry of this hash out that no measure keeps any more.
    fn remove_homeless(&mut self, hash: u64) {
        let entries = &self.entries;
        let is_homeless =
            |at: &usize| entries[*at].hash == hash && entries[*at].places.iter().all(Option::is_none);
        let Ok(found) = self.index.find_entry(hash, is_homeless) else { return };
        let (at, _) = found.remove();
        self.entries.swap_remove(at);
        let last = self.entries.len();
        let Some(moved) = self.entries.get(at) else { return };
        for (rank, place) in self.ranks.iter_mut().zip(moved.places) {
            if let Some(place) = place.and_then(|place| rank.get_mut(usize::from(place))) {
                place.entry = at;
            }
        }
        if let Some(index) = self.index.find_mut(moved.hash, |index| *index == last) {
            *index = at;
        }
    }

    /// Puts back an entry that [`kept`](Self::kept) says this of; one that no measure keeps, or that is here already, is left out.
    pub(super) fn restore(
        &mut self,
        (key, hash): (&str, u64),
        seen: Amounts,
        details: Details,
        kept: [Option<u64>; Measure::ALL.len()],
    ) {
        let has_room = |(rank, kept): (&Vec<Place>, &Option<u64>)| kept.is_none() || rank.len() < KEYS_MAX;
        let fits = self.ranks.iter().zip(&kept).all(has_room) && kept.iter().any(Option::is_some);
        if !fits || self.index.find(hash, |at| *self.entries[*at].key == *key).is_some() {
            return;
        }
        let at = self.insert(key, hash);
        let entry = &mut self.entries[at];
        (entry.seen, entry.details) = (seen, details);
        for ((rank, place), at_most) in self.ranks.iter_mut().zip(&mut entry.places).zip(kept) {
            if let Some(at_most) = at_most {
                *place = Some(rank.len() as u8);
                rank.push(Place { entry: at, at_most });
            }
        }
    }
}

/// A place in a rank for an entry of this weight: a free one, or that of the smallest, which is given back.
fn take_place(rank: &mut Vec<Place>, entry: usize, weight: u64) -> (usize, Option<usize>) {
    if rank.len() < KEYS_MAX {
        rank.push(Place { entry, at_most: weight });
        return (rank.len() - 1, None);
    }
    // There are places: a rank holds at least one key.
    let (at, least) = rank
        .iter()
        .enumerate()
        .min_by_key(|(_, place)| place.at_most)
        .map_or((0, rank[0]), |(at, place)| (at, *place));
    rank[at] = Place { entry, at_most: least.at_most.saturating_add(weight) };
    (at, Some(least.entry))
}
