//! Answers to probes that are kept, and the requests that they answer.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::Duration,
};

use moka::{Expiry, future, sync};

use super::request::{ProbeError, ProbeOutcome, ProbeRequest};
use crate::{
    backend::ProbeSettings,
    base::{Confidence, TimeRange},
};

/// How long a failure is remembered: a backend that just failed is not asked again by each query.
const FAILURE_TTL: Duration = Duration::from_secs(10);
/// A wait for a place that was too long, or a backend that is down, says nothing of the selector.
const UNASKED_TTL: Duration = Duration::from_millis(100);
/// How long the share of native histograms is kept: the type of a metric changes with its exporter.
const SHARE_TTL: Duration = Duration::from_secs(600);
/// How long it is kept that there is no share: the selector had no series, or the backend did not answer.
const NONE_TTL: Duration = Duration::from_secs(10);
/// Windows of one selector of which the whole count is kept.
const WINDOWS_MAX: usize = 4;
/// How often a request waits for the answer to another one about the same selector before it takes the answer at hand.
const WAITS_MAX: u8 = 2;

/// Two keyed hashes of the request: selectors may be 64 KiB long, and thousands of answers are kept.
pub(super) type Key = [u64; 2];

#[derive(Debug, Default)]
struct Hashing([RandomState; 2]);

impl Hashing {
    fn key(&self, of: &impl Hash) -> Key {
        self.0.each_ref().map(|hashing| hashing.hash_one(of))
    }
}

/// A cached answer, or error.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) answer: Result<ProbeOutcome, ProbeError>,
    /// The window ended after the moment of asking: new series may have come since.
    pub(super) open: bool,
}

/// The whole count of a window.
#[derive(Clone, Copy, Debug)]
struct Whole {
    window: TimeRange,
    outcome: ProbeOutcome,
    open: bool,
}

/// The answers of one backend.
#[derive(Debug)]
pub(super) struct Answers {
    /// By selector, window and scope.
    exactly: future::Cache<Key, Kept>,
    /// By selector and scope.
    whole: sync::Cache<Key, Arc<[Whole]>>,
    /// Series of one instant, by selector, instant and scope: windows that end together share it.
    instants: future::Cache<Key, u64>,
    hashing: Hashing,
}

/// Answers live as long as configured, failures shorter.
#[derive(Debug)]
struct Lifetimes {
    ttl: Duration,
}

impl Expiry<Key, Kept> for Lifetimes {
    fn expire_after_create(&self, _: &Key, kept: &Kept, _: std::time::Instant) -> Option<Duration> {
        Some(match &kept.answer {
            Ok(_) => self.ttl,
            Err(error) if error.is_unasked() => UNASKED_TTL.min(self.ttl),
            Err(_) => FAILURE_TTL.min(self.ttl),
        })
    }

    fn expire_after_update(
        &self,
        key: &Key,
        kept: &Kept,
        now: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, kept, now)
    }
}

impl Answers {
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let (entries, ttl) = (settings.cache_entries, settings.ttl);
        Self {
            exactly: future::Cache::builder().max_capacity(entries).expire_after(Lifetimes { ttl }).build(),
            whole: sync::Cache::builder().max_capacity(entries).time_to_live(ttl).build(),
            instants: future::Cache::builder().max_capacity(entries).time_to_live(ttl).build(),
            hashing: Hashing::default(),
        }
    }

    /// The kept answer to this very request, or a new one, asked once however many wait for it; and whether it was
    /// kept.
    pub(super) async fn get<A: Future<Output = Kept>>(
        &self,
        request: &ProbeRequest<'_>,
        ask: impl Fn() -> A,
    ) -> (Kept, bool) {
        let key = self.hashing.key(&(request.selector, request.window, request.scope.key()));
        let mut waits = 0..WAITS_MAX;
        loop {
            let entry = self.exactly.entry(key).or_insert_with_if(ask(), |kept| !kept.answers(request)).await;
            // A request that waited for the same probe under a lower limit got a count that stopped there.
            let settles = entry.is_fresh() || entry.value().answers(request);
            if settles || waits.next().is_none() {
                return (entry.value().clone(), !entry.is_fresh());
            }
        }
    }

    /// The series of an instant, kept or asked for once.
    pub(super) async fn at_instant(
        &self,
        request: &ProbeRequest<'_>,
        at_ms: i64,
        asking: impl Future<Output = Result<u64, ProbeError>>,
    ) -> Result<u64, ProbeError> {
        let key = self.hashing.key(&(request.selector, at_ms, request.scope.key()));
        self.instants.try_get_with(key, asking).await.map_err(|error| ProbeError::clone(&error))
    }

    /// A longer window holds at least this number, a shorter one at most: where that settles a request, it is not
    /// asked.
    pub(super) fn of_other_window(&self, request: &ProbeRequest<'_>) -> Option<ProbeOutcome> {
        let kept = self.whole.get(&self.hashing.key(&(request.selector, request.scope.key())))?;
        let window = request.window;
        let same = widened(window);
        let of_one = |whole: &Whole| {
            let (there, mut outcome) = (whole.window, whole.outcome.as_seen(true, whole.open));
            let is_longer = there.start <= window.start && there.end >= window.end;
            let is_shorter = there.start >= window.start && there.end <= window.end;
            let series = outcome.series.value;
            if there == same {
                return None;
            }
            if is_longer && series <= request.enough {
                outcome.series.confidence = outcome.series.confidence.max(Confidence::UpperBound);
            } else if is_shorter && series > request.limit {
                outcome.truncated = true;
            } else {
                return None;
            }
            Some(outcome)
        };
        // The least of those that settle it.
        kept.iter().filter_map(of_one).min_by_key(|outcome| outcome.series.value)
    }

    /// Keeps the whole count of a window for requests about others.
    pub(super) fn keep_whole(&self, request: &ProbeRequest<'_>, outcome: ProbeOutcome, open: bool) {
        let key = self.hashing.key(&(request.selector, request.scope.key()));
        let before = self.whole.get(&key);
        let newest = Whole { window: request.window, outcome, open };
        let others = before.iter().flat_map(|kept| kept.iter().copied());
        let others = others.filter(|whole| whole.window != newest.window).take(WINDOWS_MAX - 1);
        self.whole.insert(key, std::iter::once(newest).chain(others).collect());
    }
}

impl Kept {
    /// Whether the kept answer is one to this request: a count that stopped at a lower limit is not.
    fn answers(&self, request: &ProbeRequest<'_>) -> bool {
        self.answer.as_ref().map_or(true, |outcome| {
            let series = outcome.series.value;
            series > request.limit || !outcome.truncated
        })
    }
}

/// Shares of native histograms that were asked for, by metric or selector, and scope; questions by their window as well.
#[derive(Debug)]
pub(super) struct Shares {
    pub(super) kept: future::Cache<Key, Option<f64>>,
    hashing: Hashing,
}

#[derive(Debug)]
struct ShareLifetimes;

impl Expiry<Key, Option<f64>> for ShareLifetimes {
    fn expire_after_create(&self, _: &Key, share: &Option<f64>, _: std::time::Instant) -> Option<Duration> {
        Some(if share.is_some() { SHARE_TTL } else { NONE_TTL })
    }
}

impl Shares {
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let kept = future::Cache::builder().max_capacity(settings.cache_entries).expire_after(ShareLifetimes);
        Self { kept: kept.build(), hashing: Hashing::default() }
    }

    pub(super) fn key(&self, text: &str, request: &ProbeRequest<'_>) -> Key {
        self.hashing.key(&(text, request.scope.key()))
    }

    pub(super) fn key_of_window(&self, request: &ProbeRequest<'_>) -> Key {
        self.hashing.key(&(request.selector, request.asked_window(), request.scope.key()))
    }
}

/// The numbers of values that were asked for, by expression, instants and scope.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) kept: future::Cache<Key, Option<Arc<[u64]>>>,
    hashing: Hashing,
}

impl Values {
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let kept = future::Cache::builder().max_capacity(settings.cache_entries).time_to_live(settings.ttl);
        Self { kept: kept.build(), hashing: Hashing::default() }
    }

    /// `instants` are those of all requests that are the same.
    pub(super) fn key(&self, request: &ProbeRequest<'_>, instants: &[i64]) -> Key {
        self.hashing.key(&(request.selector, instants, request.scope.key()))
    }
}

/// The window with both ends moved outwards to multiples of a granule that depends on its length only.
pub(super) fn widened(window: TimeRange) -> TimeRange {
    const MINUTE: u64 = 60_000;
    let part = (window.len_ms() / 32).max(MINUTE);
    let granule = i64::try_from(part / MINUTE * MINUTE).unwrap_or(i64::MAX).max(1);
    let start = window.start.div_euclid(granule).saturating_mul(granule);
    let end = window.end.saturating_add(granule - 1).div_euclid(granule).saturating_mul(granule);
    TimeRange { start, end: end.max(window.end) }
}
