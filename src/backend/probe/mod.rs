//! Small requests that ask a backend how many series a selector matches, before a query is let in.
//!
//! A probe costs the backend something too. So there are few at a time, each has a deadline, the same question is asked
//! once however many wait for the answer, answers are kept, failures too for a while, and a selector that matches
//! everything is never asked about.

mod ask;
mod counts;
mod kept;
mod kinds;
mod scan;

use std::{
    fmt,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Backend, BackendError, ProbeSettings, endpoint::Endpoint, error::Cause};
use crate::base::{Confidence, ErrorKind, Estimate, TimeRange};

use counts::Counters;
pub use counts::Counts;
use kept::{Answers, Kept, widened};

/// What is asked of a backend.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The selector, without range, offset and `@`.
    pub selector: &'a str,
    /// The time in which it is read.
    pub window: TimeRange,
    /// More series than this are refused, however many: they need not be told apart.
    pub limit: u64,
    /// Up to so many no limit is in doubt: fewer need not be told apart either.
    pub enough: u64,
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
    pub series: Estimate,
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
            Self::Late(after) => write!(f, "no count within {}", crate::base::duration::text(*after)),
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
    answers: Answers,
    counters: Counters,
    /// Whether the backend's `/api/v1/series` takes a limit, and when that was found out.
    series_limit: Mutex<Option<(bool, Instant)>>,
    /// Mimir's cardinality API.
    cardinality: Endpoint,
}

impl Probes {
    pub(super) fn new(settings: ProbeSettings) -> Self {
        Self {
            settings,
            places: Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            answers: Answers::new(&settings),
            counters: Counters::default(),
            series_limit: Mutex::new(None),
            cardinality: Endpoint::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.counts()
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
        if let Some(outcome) = probes.answers.of_other_window(question) {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
            return Ok(outcome);
        }
        let asked = Question { window: widened(question.window), ..question.clone() };
        // In a box, as the cache keeps a place for it whether it is asked or not.
        let ask = || Box::pin(self.ask_within_deadline(&asked, question.window.end));
        let (Kept { answer, open, up_to }, cached) = probes.answers.get(&asked, ask).await;
        if cached {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
        }
        let outcome = answer?;
        if !cached && up_to == outcome.series.value && !outcome.truncated {
            probes.answers.keep_whole(&asked, outcome, open);
        }
        Ok(outcome.as_seen(cached, open))
    }

    /// `end` is the last moment of the window before it was widened.
    async fn ask_within_deadline(&self, question: &Question<'_>, end: i64) -> Kept {
        let probes = &self.probes;
        let began = Instant::now();
        let deadline = began + probes.settings.deadline;
        let now_ms = now_ms();
        let asking = async {
            let Ok(Ok(_place)) = timeout_at(deadline, probes.places.acquire()).await else {
                return Err(ProbeError::Busy);
            };
            probes.counters.sent.fetch_add(1, Relaxed);
            let counted =
                match timeout_at(deadline, self.count_series(question, end.min(now_ms), deadline)).await {
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
        let up_to = counted.as_ref().map_or(0, |counted| counted.up_to);
        let answer = counted.map(|counted| ProbeOutcome {
            series: Estimate::new(counted.series, counted.class),
            truncated: counted.truncated,
            cached: false,
            took,
            bytes: counted.bytes,
        });
        Kept { answer, open: question.window.end >= now_ms, up_to }
    }
}

/// What one kind's way of asking brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    series: u64,
    class: Confidence,
    /// There are at least so many.
    truncated: bool,
    bytes: u64,
    /// More than so many there are hardly; the same as `series` where the count is of the whole window.
    up_to: u64,
}

impl ProbeOutcome {
    /// A kept count of a window that was not over yet is what was observed then, no more.
    fn as_seen(mut self, cached: bool, open: bool) -> Self {
        self.cached = cached;
        if cached && open {
            self.series.confidence = self.series.confidence.max(Confidence::Learned);
        }
        self
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}
