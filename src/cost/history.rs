//! The observed cost of earlier runs of a query: a bounded store with decay, by backend.
//!
//! An observation is no bound. The largest run of late raises a number wherever the same query looks at a window of the
//! same length and age; a smaller one lowers a number only for the window that it was made in, and only while little can
//! have been written since.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    base::TimeRange,
    promql::{
        Fingerprint,
        shape::{Listed, Shape},
    },
};

/// An observation counts half after this time, milliseconds (six hours).
pub(super) const HALF_LIFE_MS: u64 = 21_600_000;
/// Older observations are forgotten, milliseconds (a week).
pub(super) const FORGET_MS: u64 = 604_800_000;
/// How long an observation of a window that reaches up to now lowers a number, milliseconds: as long as a probe's count
/// is kept by default.
pub(super) const OPEN_TRUST_MS: u64 = 300_000;
/// The same for a window that had ended [`SETTLED_MS`] before: only late samples can have been added, milliseconds.
pub(super) const CLOSED_TRUST_MS: u64 = 3_600_000;
/// Samples rarely come later than this, milliseconds: two hours, as far as Prometheus' head reaches back.
const SETTLED_MS: i64 = 7_200_000;
/// Runs of which the window is remembered, by query.
const RUNS: usize = 2;
/// Locks; queries wait for a sixteenth of the store at most.
const SHARDS: usize = 16;
/// Larger numbers than this are not observations but damage (2^53, the largest integer that JSON carries exactly).
const PLAUSIBLE_MAX: u64 = 1 << 53;
/// Queries that are kept for an offer to other proxies.
const OFFERS_MAX: usize = 64;
/// The beginning of a saved history: its format and version.
const HEADER: &str = "weir-learned 3 ";
/// Longest file read, for each entry of room: eleven numbers fit with ease.
const ENTRY_BYTES_MAX: usize = 512;

/// The identity of "the same query again, over a window of the same length and age", and the window itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryKey {
    pub(super) id: Fingerprint,
    pub(super) window: TimeRange,
}

impl HistoryKey {
    /// The key of a query: `backend` and `scope` say whose data it reads, the shape says which.
    pub fn new(backend: &str, scope: &str, fingerprint: Fingerprint, shape: &Shape, now_ms: i64) -> Self {
        let window = shape.window().unwrap_or(TimeRange { start: now_ms, end: now_ms });
        // Durations are no part of the fingerprint: the windows of the selectors relative to each other are.
        let granule = granule(window);
        let mut windows = SmallVec::<[u8; 64]>::new();
        windows.push(log2(window.len_ms() / 1_000));
        windows.push(log2(now_ms.saturating_sub(window.end).max(0) as u64 / OPEN_TRUST_MS));
        for selector in &shape.selectors {
            let before = selector.window.start.saturating_sub(window.start) / granule;
            let after = window.end.saturating_sub(selector.window.end) / granule;
            windows.extend_from_slice(&before.to_le_bytes());
            windows.extend_from_slice(&after.to_le_bytes());
        }
        let parts = [backend.as_bytes(), scope.as_bytes(), &fingerprint.to_bytes(), &windows];
        Self { id: Fingerprint::of_bytes(b"run", &parts), window }
    }

    /// The key of the bytes of an entry in a list of series or of a label's values, at whatever time; `None` for other lists.
    pub fn of_entries(backend: &str, scope: &str, fingerprint: Fingerprint, listed: &Listed) -> Option<Self> {
        let label = match listed {
            Listed::Series => "",
            Listed::Values(label) if !label.is_empty() => label,
            Listed::Values(_) | Listed::Names | Listed::Exemplars => return None,
        };
        let parts = [backend.as_bytes(), scope.as_bytes(), &fingerprint.to_bytes(), label.as_bytes()];
        Some(Self { id: Fingerprint::of_bytes(b"entries", &parts), window: TimeRange { start: 0, end: 0 } })
    }
}

/// How far a window may move and still be the same, milliseconds: a 32nd of its length, a minute to five.
fn granule(window: TimeRange) -> i64 {
    (window.len_ms() / 32).clamp(60_000, OPEN_TRUST_MS) as i64
}

/// The number of binary digits.
const fn log2(n: u64) -> u8 {
    (u64::BITS - n.leading_zeros()) as u8
}

/// The history of a query: series, summed over its selectors, or the bytes of an entry of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The largest run of late, as far as it has not faded.
    pub peak: u64,
    /// The largest run in this very window.
    pub here: Option<u64>,
}

/// Why bytes are no history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryError {
    /// Another format, or another version of it.
    Header,
    /// The checksum does not match the body.
    Corrupt,
    /// Larger than the store could ever write.
    TooLarge,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "not a file of learned costs, or of another version",
            Self::Corrupt => "the file of learned costs is damaged",
            Self::TooLarge => "the file of learned costs is larger than the store",
        })
    }
}

impl std::error::Error for HistoryError {}

/// The store. Shared freely: every operation is short and takes `&self`.
#[derive(Debug)]
pub struct History {
    /// Queries that one shard holds at most.
    capacity: usize,
    shards: [Mutex<Shard>; SHARDS],
    /// Queries in all shards.
    len: AtomicUsize,
    /// Those that ran since they were last offered to other proxies.
    offers: Mutex<Offers>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Where in `slots` a query lives.
    index: HashMap<Fingerprint, usize>,
    slots: Vec<Slot>,
    /// Where the search for a victim goes on.
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: Entry,
    /// Asked for or observed again since the hand last passed: survives it once more.
    used: bool,
}

/// The history of one query on disk.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Entry {
    id: [u64; 2],
    /// The largest run, which fades from `peak_ms` on.
    peak: u64,
    peak_ms: u64,
    /// The last runs, the newest first.
    runs: [Run; RUNS],
}

/// Series (`u64::MAX` in files of earlier versions where only some of them are known), when the run ended, and the window: start and end in
/// milliseconds. All zero for none.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Run(u64, u64, i64, i64);

impl Run {
    /// The run says how many series this window holds at most: it held the whole of it but for a granule at its end,
    /// and little can have been written since.
    fn bounds(self, window: TimeRange, now_ms: u64) -> bool {
        let Self(series, seen_ms, start, end) = self;
        let is_closed = end.saturating_add(SETTLED_MS) < i64::try_from(seen_ms).unwrap_or(i64::MAX);
        let trust = if is_closed { CLOSED_TRUST_MS } else { OPEN_TRUST_MS };
        let covers = start <= window.start && window.end <= end.saturating_add(granule(window));
        series < u64::MAX && seen_ms > 0 && covers && now_ms.saturating_sub(seen_ms) < trust
    }
}

impl Entry {
    fn peak(&self, now_ms: u64) -> u64 {
        let age = now_ms.saturating_sub(self.peak_ms) as f64;
        (self.peak as f64 * (-age / HALF_LIFE_MS as f64).exp2()).ceil() as u64
    }

    fn seen_ms(&self) -> u64 {
        self.runs[0].1.max(self.peak_ms)
    }

    /// Nothing is larger than can be, or later than now.
    fn limit(&mut self, now_ms: u64) {
        self.peak = self.peak.min(PLAUSIBLE_MAX);
        self.peak_ms = self.peak_ms.min(now_ms);
        for run in &mut self.runs {
            run.1 = run.1.min(now_ms);
        }
    }
}

/// The history of a query for another proxy, and the time by this one's clock.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Offered {
    now_ms: u64,
    entry: Entry,
}

/// The last queries of which the history changed, each once; bounded.
#[derive(Debug, Default)]
struct Offers(VecDeque<Fingerprint>);

impl Offers {
    fn push(&mut self, id: Fingerprint) {
        if self.0.contains(&id) {
            return;
        }
        if self.0.len() == OFFERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    fn latest(self, max: usize) -> impl Iterator<Item = Fingerprint> {
        self.0.into_iter().rev().take(max)
    }
}

impl History {
    /// An empty store with room for about `capacity` queries.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.div_ceil(SHARDS).max(1),
            shards: Default::default(),
            len: AtomicUsize::new(0),
            offers: Mutex::default(),
        }
    }

    /// Number of queries known.
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The history of a query; `None` when it never ran, or too long ago.
    pub fn get(&self, key: &HistoryKey, now_ms: i64) -> Option<Remembered> {
        let now_ms = now_ms.max(0) as u64;
        let mut shard = self.shard(key.id);
        let at = *shard.index.get(&key.id)?;
        let slot = shard.slots.get_mut(at)?;
        if now_ms.saturating_sub(slot.entry.seen_ms()) > FORGET_MS {
            return None;
        }
        slot.used = true;
        let here = slot.entry.runs.iter().filter(|run| run.bounds(key.window, now_ms));
        Some(Remembered { peak: slot.entry.peak(now_ms), here: here.map(|run| run.0).max() })
    }

    /// Takes in how many series a run touched, over all of its selectors; a number that is not `whole` is the least,
    /// and bounds no window. A probe's count is no run.
    pub fn observe(&self, key: &HistoryKey, series: u64, whole: bool, now_ms: i64) {
        let (series, now_ms) = (series.min(PLAUSIBLE_MAX), now_ms.max(0) as u64);
        let run = whole.then_some(Run(series, now_ms, key.window.start, key.window.end));
        let mut shard = self.shard(key.id);
        if let Some(slot) = shard.index.get(&key.id).copied().and_then(|at| shard.slots.get_mut(at)) {
            let entry = &mut slot.entry;
            if series >= entry.peak(now_ms) {
                (entry.peak, entry.peak_ms) = (series, now_ms);
            }
            if let Some(run) = run {
                entry.runs = [run, entry.runs[0]];
            }
            slot.used = true;
            return;
        }
        let runs = [run.unwrap_or_default(), Run::default()];
        let entry = Entry { id: key.id.to_words(), peak: series, peak_ms: now_ms, runs };
        let is_new = shard.insert(entry, self.capacity);
        self.len.fetch_add(usize::from(is_new), Relaxed);
    }

    /// The store as bytes for a file: a header with a checksum, then JSON. Each shard is copied under its lock, and
    /// nothing is serialised under one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        for shard in &self.shards {
            entries.extend(shard.lock().slots.iter().map(|slot| slot.entry));
        }
        // Integers always serialise; an empty body would be refused on reading, which is right.
        let body = serde_json::to_vec(&entries).unwrap_or_default();
        let mut out = format!("{HEADER}{:08x}\n", crc32fast::hash(&body)).into_bytes();
        out.extend(body);
        out
    }

    /// Reads the bytes that [`to_bytes`](Self::to_bytes) wrote. Entries beyond the room and impossible numbers are left
    /// out; times of the future count as now. On an error, start empty.
    pub fn from_bytes(bytes: &[u8], capacity: usize, now_ms: i64) -> Result<Self, HistoryError> {
        let (store, now_ms) = (Self::new(capacity), now_ms.max(0) as u64);
        if bytes.len() > capacity.saturating_mul(ENTRY_BYTES_MAX).max(1 << 20) {
            return Err(HistoryError::TooLarge);
        }
        let rest = bytes.strip_prefix(HEADER.as_bytes()).ok_or(HistoryError::Header)?;
        let (sum, body) = rest.split_at_checked(8).ok_or(HistoryError::Header)?;
        let body = body.strip_prefix(b"\n").ok_or(HistoryError::Header)?;
        if sum != format!("{:08x}", crc32fast::hash(body)).as_bytes() {
            return Err(HistoryError::Corrupt);
        }
        let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|_| HistoryError::Corrupt)?;
        for mut entry in entries {
            entry.limit(now_ms);
            if now_ms.saturating_sub(entry.seen_ms()) <= FORGET_MS {
                let is_new = store.shard(Fingerprint::from_words(entry.id)).insert(entry, store.capacity);
                store.len.fetch_add(usize::from(is_new), Relaxed);
            }
        }
        Ok(store)
    }

    /// A query that was observed is offered to other proxies.
    pub fn offer(&self, key: &HistoryKey) {
        self.offers.lock().push(key.id);
    }

    /// The history of the queries that were offered last, at most this number, under their names; the others are not offered.
    pub fn take_offers(&self, max: usize, now_ms: i64) -> Vec<(String, Vec<u8>)> {
        let ids = std::mem::take(&mut *self.offers.lock());
        let entries = ids.latest(max).filter_map(|id| {
            let shard = self.shard(id);
            shard.index.get(&id).and_then(|at| shard.slots.get(*at)).map(|slot| slot.entry)
        });
        let offered = entries.map(|entry| {
            let [high, low] = entry.id;
            // Integers always serialise.
            let text = serde_json::to_vec(&Offered { now_ms: now_ms.max(0) as u64, entry });
            (format!("{high:016x}{low:016x}"), text.unwrap_or_default())
        });
        offered.collect()
    }

    /// Takes the history of a query that another proxy offered `age_ms` ago, by its clock. Its runs count as if they were
    /// observed here: the larger peak, and the last runs. Whether it can be read.
    pub fn take(&self, offered: &[u8], age_ms: u64, now_ms: i64) -> bool {
        let offered = Some(offered).filter(|text| text.len() <= ENTRY_BYTES_MAX);
        let offered = offered.and_then(|text| serde_json::from_slice::<Offered>(text).ok());
        let Some(Offered { now_ms: then_ms, mut entry }) = offered else { return false };
        let now_ms = now_ms.max(0) as u64;
        // By this clock, whatever the other says: an observation is as old as it is.
        let here = |at: u64| now_ms.saturating_sub(age_ms.saturating_add(then_ms.saturating_sub(at)));
        entry.peak_ms = here(entry.peak_ms);
        for run in entry.runs.iter_mut().filter(|run| **run != Run::default()) {
            run.1 = here(run.1);
        }
        entry.limit(now_ms);
        if now_ms.saturating_sub(entry.seen_ms()) <= FORGET_MS {
            let is_new = self.shard(Fingerprint::from_words(entry.id)).merge(entry, self.capacity, now_ms);
            self.len.fetch_add(usize::from(is_new), Relaxed);
        }
        true
    }

    fn shard(&self, id: Fingerprint) -> MutexGuard<'_, Shard> {
        // The remainder is smaller than the number of shards.
        self.shards[(id.to_words()[1] % SHARDS as u64) as usize].lock()
    }
}

impl Shard {
    /// Puts an entry of another proxy beside what is known here. Whether there is one more than before.
    fn merge(&mut self, mut entry: Entry, capacity: usize, now_ms: u64) -> bool {
        let known = self.index.get(&Fingerprint::from_words(entry.id)).copied();
        if let Some(known) = known.and_then(|at| self.slots.get(at)).map(|slot| slot.entry) {
            if known.peak(now_ms) >= entry.peak(now_ms) {
                (entry.peak, entry.peak_ms) = (known.peak, known.peak_ms);
            }
            let mut runs = [known.runs, entry.runs].concat();
            runs.sort_by_key(|run| std::cmp::Reverse(run.1));
            runs.dedup();
            runs.resize(RUNS, Run::default());
            entry.runs = runs.try_into().unwrap_or(entry.runs);
        }
        self.insert(entry, capacity)
    }

    /// Whether there is one more than before.
    fn insert(&mut self, entry: Entry, capacity: usize) -> bool {
        let (id, slot) = (Fingerprint::from_words(entry.id), Slot { entry, used: false });
        if let Some(known) = self.index.get(&id).copied().and_then(|at| self.slots.get_mut(at)) {
            *known = slot;
            return false;
        }
        if self.slots.len() < capacity {
            self.index.insert(id, self.slots.len());
            self.slots.push(slot);
            return true;
        }
        // Second chance: ends within one round, because every slot passed loses its mark. The shard is full and has
        // room for one at least, so there are slots, and the hand is always one of them.
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            let victim = &mut self.slots[self.hand];
            if std::mem::take(&mut victim.used) {
                continue;
            }
            let old = std::mem::replace(victim, slot);
            self.index.remove(&Fingerprint::from_words(old.entry.id));
            self.index.insert(id, self.hand);
            return false;
        }
    }
}
