//! Places of things in a list, found by a hash: the list holds the things, the table their numbers alone.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, Hasher as _, RandomState},
};

use hashbrown::HashTable;

use super::{error::EvalError, meter::Held};

/// Numbers of the elements of a list.
#[derive(Default)]
pub(super) struct Places {
    hasher: RandomState,
    /// The hash of an element beside its number, so that the table can grow without a look at the list.
    table: HashTable<(u64, usize)>,
}

impl Places {
    /// The hash of everything in `parts`, in order.
    pub(super) fn hash<T: Hash>(&self, parts: impl IntoIterator<Item = T>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        parts.into_iter().for_each(|part| part.hash(&mut hasher));
        hasher.finish()
    }

    /// The number of the element with this hash that is the one looked for.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        self.table.find(hash, |(known, place)| *known == hash && is_it(*place)).map(|(_, place)| *place)
    }

    /// Adds an element that is not there yet; its memory is taken first.
    pub(super) fn insert(&mut self, hash: u64, place: usize, held: &mut Held<'_>) -> Result<(), EvalError> {
        if self.table.len() == self.table.capacity() {
            let before = self.table.allocation_size() as u64;
            // It doubles, and while it does there are both.
            held.borrow(before.saturating_mul(2).max(256))?;
            self.table.reserve(1, |(hash, _)| *hash);
            held.give_back(before);
        }
        self.table.insert_unique(hash, (hash, place), |(hash, _)| *hash);
        Ok(())
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("len", &self.table.len()).finish_non_exhaustive()
    }
}
