//! Series by the text in which a sender names them, so that a series sent again is found without reading its labels.

use std::{
    fmt,
    hash::BuildHasher as _,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::RwLock;

use super::Series;

/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// Bytes of one part: all of them together take 64 MiB, some 400,000 series.
const SHARD_BYTES: usize = 4 << 20;
/// Bytes of an entry beside its text: the entry, and the table's free places.
const ENTRY_BYTES: usize = 64;
/// A part that is full is emptied this long after the last time, in case nobody sends its series any more; until then
/// it takes no others, so that one sender of more series than fit does not empty it over and over.
const KEPT: Duration = Duration::from_secs(600);

/// The cache of a database.
pub struct KnownSeries {
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
}

struct Shard {
    entries: HashTable<Entry>,
    bytes: usize,
    emptied: Instant,
}

struct Entry {
    hash: u64,
    text: Box<str>,
    series: Arc<Series>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.text.len() + ENTRY_BYTES
    }
}

impl Default for KnownSeries {
    fn default() -> Self {
        let emptied = Instant::now();
        let shard = |_| RwLock::new(Shard { entries: HashTable::new(), bytes: 0, emptied });
        Self { hasher: RandomState::default(), shards: std::array::from_fn(shard) }
    }
}

impl KnownSeries {
    /// The hash of a text.
    pub fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    fn shard(&self, hash: u64) -> Option<&RwLock<Shard>> {
        // The table looks at the other bits.
        self.shards.get((hash >> 32) as usize % SHARDS)
    }

    /// The series that was learned for a text; it may be removed since.
    pub fn find(&self, hash: u64, text: &str) -> Option<Arc<Series>> {
        let shard = self.shard(hash)?.read();
        let found = shard.entries.find(hash, |entry| entry.hash == hash && *entry.text == *text)?;
        Some(Arc::clone(&found.series))
    }

    /// Notes which series a text stands for.
    pub fn learn(&self, text: &str, series: &Arc<Series>) {
        let hash = self.hash(text);
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.write();
        let entry = Entry { hash, text: text.into(), series: Arc::clone(series) };
        if let Ok(mut known) = shard.entries.find_entry(hash, |known| known.text == entry.text) {
            known.get_mut().series = entry.series;
            return;
        }
        if shard.bytes + entry.bytes() > SHARD_BYTES {
            if shard.emptied.elapsed() < KEPT {
                return;
            }
            *shard = Shard { entries: HashTable::new(), bytes: 0, emptied: Instant::now() };
        }
        shard.bytes += entry.bytes();
        shard.entries.insert_unique(hash, entry, |entry| entry.hash);
    }

    /// Forgets series that were removed, so that their memory comes back.
    pub fn forget_removed(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            shard.entries.retain(|entry| !entry.series.is_removed());
            shard.bytes = shard.entries.iter().map(Entry::bytes).sum();
        }
    }
}

impl fmt::Debug for KnownSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.shards.iter().map(|shard| shard.read().entries.len()).sum::<usize>();
        f.debug_struct("KnownSeries").field("entries", &entries).finish_non_exhaustive()
    }
}
