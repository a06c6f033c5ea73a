//! Small requests that ask a backend how many series a selector matches, before a query is let in.
//!
//! A probe costs the backend something too. So there are few at a time, each has a deadline, the same question is asked
//! once however many wait for the answer, answers are kept, failures too for a while, and a selector that matches
//! everything is never asked about.

mod ask;
mod counts;
mod kinds;
mod scan;

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use moka::{Expiry, future::Cache};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Backend, BackendError, ProbeSettings, error::Cause};
use crate::base::{ErrorKind, EstimateClass, Known, TimeRange};

use counts::Counters;
pub use counts::Counts;

/// How long a failure is remembered: a backend that just failed is not asked again by each query.
const FAILURE_TTL: Duration = Duration::from_secs(10);
/// A wait for a place that was too long says nothing of the selector.
const BUSY_TTL: Duration = Duration::from_millis(100);

/// What is asked of a backend.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The selector, without range, offset and `@`.
    pub selector: &'a str,
    /// The time in which it is read.
    pub window: TimeRange,
    /// More series than this need not be told apart.
    pub limit: u64,
    /// The selector matches everything: asking would itself be the attack.
    pub match_all: bool,
    /// Whose data; answers are kept apart by it.
    pub tenant: &'a str,
    /// Headers that the backend needs for that tenant.
    pub headers: &'a HeaderMap,
}

/// What the backend said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// The series that the selector matches in the window.
    pub series: Known,
    /// There are at least so many, which is over the limit; counting stopped there.
    pub truncated: bool,
    /// The answer was kept from an earlier question.
    pub cached: bool,
    /// What asking took; for a kept answer, what it took then.
    pub took: Duration,
    /// Bytes of the answer.
    pub bytes: u64,
}

/// Why there is no number.
#[derive(Clone, Debug)]
pub enum ProbeError {
    /// The selector matches everything.
    MatchAll,
    /// No place among the probes before the deadline.
    Busy,
    /// No answer before the deadline.
    Late(Duration),
    /// The backend failed.
    Backend(BackendError),
    /// The backend refused the question.
    Refused(u16, String),
    /// The backend's answer holds no number.
    Unreadable(String),
}

impl ProbeError {
    /// The kind of failure, for metrics: a probe's failure is not the query's.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::MatchAll => ErrorKind::LimitExceeded,
            Self::Busy | Self::Late(_) => ErrorKind::UpstreamTimeout,
            Self::Backend(error) => error.kind(),
            Self::Refused(..) | Self::Unreadable(_) => ErrorKind::UpstreamDead,
        }
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchAll => f.write_str("a selector that matches everything is not counted"),
            Self::Busy => f.write_str("too many probes at a time"),
            Self::Late(after) => write!(f, "no count within {}", crate::base::units::duration(*after)),
            Self::Backend(error) => error.fmt(f),
            Self::Refused(status, why) => write!(f, "the backend refused to count ({status}): {why}"),
            Self::Unreadable(why) => write!(f, "the backend's count cannot be read: {why}"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// The probes of one backend.
#[derive(Debug)]
pub(super) struct Probes {
    settings: ProbeSettings,
    places: Semaphore,
    cache: Cache<Key, Kept>,
    hashing: [RandomState; 2],
    counters: Counters,
    /// Whether the backend's `/api/v1/series` takes a limit, and when that was found out.
    series_limit: Mutex<Option<(bool, Instant)>>,
}

/// Two keyed hashes of the question: selectors may be 64 KiB long, and thousands of answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key([u64; 2]);

#[derive(Clone, Debug)]
struct Kept {
    answer: Result<ProbeOutcome, ProbeError>,
    /// The window ended after the moment of asking: new series may have come since.
    open: bool,
}

/// Answers live as long as configured, failures shorter.
#[derive(Debug)]
struct Lifetimes {
    ttl: Duration,
}

impl Expiry<Key, Kept> for Lifetimes {
    fn expire_after_create(&self, _: &Key, kept: &Kept, _: std::time::Instant) -> Option<Duration> {
        Some(match kept.answer {
            Ok(_) => self.ttl,
            Err(ProbeError::Busy) => BUSY_TTL.min(self.ttl),
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

impl Probes {
    pub(super) fn new(settings: ProbeSettings) -> Self {
        Self {
            settings,
            places: Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            cache: Cache::builder()
                .max_capacity(settings.cache_entries)
                .expire_after(Lifetimes { ttl: settings.ttl })
                .build(),
            hashing: [RandomState::new(), RandomState::new()],
            counters: Counters::default(),
            series_limit: Mutex::new(None),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.counts()
    }

    fn key(&self, question: &Question<'_>, window: TimeRange) -> Key {
        let whole = (question.selector, window, question.tenant);
        Key([self.hashing[0].hash_one(whole), self.hashing[1].hash_one(whole)])
    }
}

impl Backend {
    /// How many series a selector matches in a window, from the cache or from the backend, within the configured
    /// deadline. The window asked about is up to a 32nd (at least a minute) longer at either end, so that a dashboard
    /// that reloads asks the same question again.
    pub async fn probe(&self, question: &Question<'_>) -> Result<ProbeOutcome, ProbeError> {
        let probes = &self.probes;
        if question.match_all {
            probes.counters.refused.fetch_add(1, Relaxed);
            return Err(ProbeError::MatchAll);
        }
        let window = widened(question.window);
        let asking = self.ask_within_deadline(Question { window, ..question.clone() });
        let entry = probes
            .cache
            .entry(probes.key(question, window))
            .or_insert_with_if(asking, |kept| !kept.answers(question.limit))
            .await;
        let cached = !entry.is_fresh();
        let Kept { answer, open } = entry.into_value();
        if cached {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
        }
        answer.map(|outcome| outcome.as_seen(cached, open))
    }

    async fn ask_within_deadline(&self, question: Question<'_>) -> Kept {
        let probes = &self.probes;
        let began = Instant::now();
        let deadline = began + probes.settings.deadline;
        let now_ms = now_ms();
        let asking = async {
            let Ok(Ok(_place)) = timeout_at(deadline, probes.places.acquire()).await else {
                return Err(ProbeError::Busy);
            };
            probes.counters.sent.fetch_add(1, Relaxed);
            let counted = match timeout_at(deadline, self.count_series(&question, deadline, now_ms)).await {
                Ok(Err(ProbeError::Backend(error)))
                    if matches!(error.cause(), Cause::Late(_) | Cause::LateBody) =>
                {
                    Err(ProbeError::Late(began.elapsed()))
                }
                Ok(counted) => counted,
                Err(_) => Err(ProbeError::Late(began.elapsed())),
            };
            if counted.is_err() {
                probes.counters.failures.fetch_add(1, Relaxed);
            }
            counted
        };
        let counted = asking.await;
        let took = began.elapsed();
        probes.counters.micros.fetch_add(took.as_micros() as u64, Relaxed);
        let answer = counted.map(|counted| ProbeOutcome {
            series: Known::new(counted.series, counted.class),
            truncated: counted.truncated,
            cached: false,
            took,
            bytes: counted.bytes,
        });
        Kept { answer, open: question.window.end >= now_ms }
    }
}

/// What one kind's way of asking brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    series: u64,
    class: EstimateClass,
    /// There are at least so many.
    truncated: bool,
    bytes: u64,
}

impl Kept {
    /// Whether the kept answer is one to a question with this limit: a count that stopped at a lower one is not.
    fn answers(&self, limit: u64) -> bool {
        self.answer.as_ref().map_or(true, |outcome| !outcome.truncated || outcome.series.value > limit)
    }
}

impl ProbeOutcome {
    /// A kept count of a window that was not over yet is what was observed then, no more.
    fn as_seen(mut self, cached: bool, open: bool) -> Self {
        self.cached = cached;
        if cached && open {
            self.series.class = self.series.class.max(EstimateClass::Learned);
        }
        self
    }
}

/// The window with both ends moved outwards to multiples of a granule that depends on its length only.
fn widened(window: TimeRange) -> TimeRange {
    const MINUTE: u64 = 60_000;
    let part = (window.len_ms() / 32).max(MINUTE);
    let granule = i64::try_from(part / MINUTE * MINUTE).unwrap_or(i64::MAX).max(1);
    let start = window.start.div_euclid(granule).saturating_mul(granule);
    let end = window.end.saturating_add(granule - 1).div_euclid(granule).saturating_mul(granule);
    TimeRange { start, end: end.max(window.end) }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}
