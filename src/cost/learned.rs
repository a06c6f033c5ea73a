//! What earlier runs of a query really touched: a bounded, slowly forgetting store.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{base::TenantId, promql::shape::Shape};

/// An observation counts half after this time without a new one, milliseconds (a day).
pub const HALF_LIFE_MS: u64 = 86_400_000;
/// So many runs in a row, each less than half of what was expected, contradict it: the expectation is halved. A poisoned
/// entry ten times too large is corrected within four times as many runs; a few runs over an empty window correct nothing.
pub const CONTRADICTIONS: u8 = 16;
/// Older observations are forgotten, milliseconds (a week).
pub const FORGET_MS: u64 = 7 * HALF_LIFE_MS;
/// Larger numbers than this are not observations but damage (2^53, what JSON carries exactly).
const PLAUSIBLE_MAX: u64 = 1 << 53;
const HEADER: &str = "weir-learned 2 ";
/// Longest file read, for each entry of room: a tenant of 150 bytes and seven numbers fit with ease.
const ENTRY_BYTES_MAX: usize = 512;

/// What identifies "the same query again".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LearnKey {
    /// Who asked: nobody learns from another tenant.
    pub tenant: TenantId,
    /// [`fingerprint`](crate::promql::fingerprint::fingerprint) of the query.
    pub fingerprint: u64,
    /// Power of two of the seconds of data touched, since the fingerprint knows no durations.
    pub range_bucket: u8,
}

impl LearnKey {
    /// The key of a query.
    pub fn new(tenant: TenantId, fingerprint: u64, shape: &Shape) -> Self {
        Self { tenant, fingerprint, range_bucket: (u64::BITS - shape.range_seconds.leading_zeros()) as u8 }
    }
}

/// What a run touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Series, over all selectors.
    pub series: u64,
    /// Raw samples.
    pub samples: u64,
    /// Bytes of the answer.
    pub bytes: u64,
    /// Bytes the backend held, when it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Observed {
    /// Field by field.
    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            series: f(self.series, other.series),
            samples: f(self.samples, other.samples),
            bytes: f(self.bytes, other.bytes),
            memory: match (self.memory, other.memory) {
                (Some(a), Some(b)) => Some(f(a, b)),
                (a, b) => a.or(b),
            },
        }
    }

    fn scaled(self, factor: f64) -> Self {
        self.zip(self, |n, _| (n as f64 * factor).ceil() as u64)
    }

    fn clamped(self) -> Self {
        self.zip(self, |n, _| n.min(PLAUSIBLE_MAX))
    }
}

/// Why bytes are no learned store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnedError {
    /// Another format, or another version of it.
    Header,
    /// The checksum does not match, or the body is not what the checksum was made for.
    Corrupt,
    /// Larger than the store could ever write.
    TooLarge,
}

impl fmt::Display for LearnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "not a file of learned costs, or of another version",
            Self::Corrupt => "the file of learned costs is damaged",
            Self::TooLarge => "the file of learned costs is larger than the store",
        })
    }
}

impl std::error::Error for LearnedError {}

/// The store. Shared freely: every operation is short and takes `&self`.
#[derive(Debug)]
pub struct Learned {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where in `slots` a key lives.
    index: HashMap<LearnKey, usize>,
    slots: Vec<Slot>,
    /// Where the search for a victim goes on.
    hand: usize,
    /// Stands for the limits that all of it was learned under.
    limits: u64,
}

#[derive(Debug)]
struct Slot {
    key: LearnKey,
    /// The largest run, which fades from `peak_ms` on.
    peak: Observed,
    peak_ms: u64,
    /// The last run.
    latest: Observed,
    seen_ms: u64,
    /// Runs in a row that were less than half of what was expected.
    contradicted: u8,
    /// Asked for or observed again since the hand last passed: survives it once more.
    used: bool,
}

impl Slot {
    /// What to expect now: the largest run, as far as it has not faded, and at least the last one.
    fn expected(&self, now_ms: u64) -> Observed {
        let left = fade(now_ms.saturating_sub(self.peak_ms));
        self.peak.scaled(left).zip(self.latest, u64::max)
    }
}

#[derive(Serialize, Deserialize)]
struct Row(String, u64, u8, Observed, u64);

impl Learned {
    /// An empty store with room for `capacity` queries (at least one).
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: Mutex::default() }
    }

    /// Number of queries known.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// These limits apply from now on. What was learned under others is forgotten: a count that was enough for them may
    /// not be for these.
    pub fn under(&self, limits: u64) {
        let mut inner = self.lock();
        if inner.limits != limits {
            *inner = Inner { limits, ..Inner::default() };
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to expect of a query: its largest recent run. `None` when it was never seen, or too long ago.
    pub fn get(&self, key: &LearnKey, now_ms: u64) -> Option<Observed> {
        let mut inner = self.lock();
        let at = *inner.index.get(key)?;
        let slot = inner.slots.get_mut(at)?;
        if now_ms.saturating_sub(slot.seen_ms) > FORGET_MS {
            return None;
        }
        slot.used = true;
        Some(slot.expected(now_ms))
    }

    /// Takes in what a run touched. A larger run counts at once; a smaller one only as fast as the old one fades,
    /// so that one run over an empty window does not open the gate for the next full one.
    pub fn observe(&self, key: LearnKey, observed: Observed, now_ms: u64) {
        let observed = observed.clamped();
        let mut inner = self.lock();
        if let Some(slot) = inner.index.get(&key).copied().and_then(|at| inner.slots.get_mut(at)) {
            let expected = slot.expected(now_ms);
            let larger = expected.zip(observed, u64::max);
            slot.latest = observed;
            let far_below = observed.series < expected.series / 2 && larger == expected;
            slot.contradicted = if far_below { slot.contradicted + 1 } else { 0 };
            // A smaller run leaves the peak and its time alone: resetting it would stop the fading.
            if larger != expected {
                (slot.peak, slot.peak_ms) = (larger, now_ms);
            } else if slot.contradicted >= CONTRADICTIONS {
                (slot.peak, slot.peak_ms) = (expected.scaled(0.5), now_ms);
                slot.contradicted = 0;
            }
            slot.seen_ms = slot.seen_ms.max(now_ms);
            slot.used = true;
            return;
        }
        let slot = Slot {
            key,
            peak: observed,
            peak_ms: now_ms,
            latest: observed,
            seen_ms: now_ms,
            contradicted: 0,
            used: false,
        };
        inner.insert(slot, self.capacity);
    }

    /// The store as bytes for a file: a header with a checksum, then JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let inner = self.lock();
        let rows: Vec<Row> = inner
            .slots
            .iter()
            .map(|s| {
                let LearnKey { tenant, fingerprint, range_bucket } = &s.key;
                Row(tenant.as_str().to_owned(), *fingerprint, *range_bucket, s.expected(s.seen_ms), s.seen_ms)
            })
            .collect();
        // Strings and integers always serialise; an empty body would be refused on reading, which is right.
        let body = serde_json::to_vec(&(inner.limits, rows)).unwrap_or_default();
        let mut out = format!("{HEADER}{:08x}\n", crc32fast::hash(&body)).into_bytes();
        out.extend(body);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote. Whatever does not fit in (more entries than room, names or
    /// numbers that cannot be) is left out; times of the future count as now. On an error, start empty.
    pub fn from_bytes(bytes: &[u8], capacity: usize, now_ms: u64) -> Result<Self, LearnedError> {
        let store = Self::new(capacity);
        if bytes.len() > store.capacity.saturating_mul(ENTRY_BYTES_MAX).max(1 << 20) {
            return Err(LearnedError::TooLarge);
        }
        let rest = bytes.strip_prefix(HEADER.as_bytes()).ok_or(LearnedError::Header)?;
        let (sum, body) = rest.split_at_checked(8).ok_or(LearnedError::Header)?;
        let body = body.strip_prefix(b"\n").ok_or(LearnedError::Header)?;
        if sum != format!("{:08x}", crc32fast::hash(body)).as_bytes() {
            return Err(LearnedError::Corrupt);
        }
        let (limits, rows): (u64, Vec<Row>) =
            serde_json::from_slice(body).map_err(|_| LearnedError::Corrupt)?;
        store.under(limits);
        for Row(tenant, fingerprint, range_bucket, observed, seen_ms) in rows {
            let Some(tenant) = TenantId::new(&tenant) else { continue };
            let key = LearnKey { tenant, fingerprint, range_bucket };
            let seen_ms = seen_ms.min(now_ms);
            if now_ms.saturating_sub(seen_ms) <= FORGET_MS && range_bucket <= u64::BITS as u8 {
                store.observe(key, observed, seen_ms);
            }
        }
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, slot: Slot, capacity: usize) {
        if self.slots.len() < capacity {
            self.index.insert(slot.key.clone(), self.slots.len());
            self.slots.push(slot);
            return;
        }
        // Second chance: ends within one round, because every slot passed loses its mark. The store is full and has
        // room for one at least, so there are slots, and the hand is always one of them.
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            let victim = &mut self.slots[self.hand];
            if std::mem::take(&mut victim.used) {
                continue;
            }
            let old = std::mem::replace(victim, slot);
            self.index.remove(&old.key);
            self.index.insert(self.slots[self.hand].key.clone(), self.hand);
            return;
        }
    }
}

/// How much of an observation is left after some time: halves with every half-life.
fn fade(age_ms: u64) -> f64 {
    (-(age_ms as f64) / HALF_LIFE_MS as f64).exp2()
}
