//! Small requests that ask a backend how many series a selector matches, before a query is let in.
//!
//! A probe costs the backend something too. So there are few at a time, their memory is booked, the same one is sent
//! once however many wait for the answer, answers are kept, failures too for a while, and a selector that matches
//! everything is never asked about. A crowd of probes waits for places; one that was late in a crowd is sent again
//! alone.

mod ask;
mod cache;
mod counts;
mod kinds;
mod scan;
mod types;
mod values;

use std::{
    fmt,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    Backend, BackendError, Kind, ProbeSettings, endpoint::Endpoint, error::Cause, parameters::DataScope,
};
use crate::base::{Confidence, ErrorKind, Estimate, LabelSize, TimeRange};

use cache::{Answers, Kept, widened};
use counts::Counters;
pub use counts::Counts;

/// A question to a backend.
#[derive(Clone, Copy, Debug)]
pub struct ProbeRequest<'a> {
    /// The selector, without range, offset and `@`.
    pub selector: &'a str,
    /// The metric that it names.
    pub metric: Option<&'a str>,
    /// The time in which it is read.
    pub window: TimeRange,
    /// A count may stop here: more series are refused, whatever their number.
    pub limit: u64,
    /// A number of series up to which no limit is in doubt: the count of a longer window is enough then.
    pub enough: u64,
    /// The selector matches everything: asking would itself be the attack.
    pub match_all: bool,
    /// The data scope, by which answers are cached. Nothing else of a client goes into a probe.
    pub scope: &'a DataScope,
    /// How long the probe may wait for its turn.
    pub deadline: Instant,
}

/// The answer of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// The series that the selector matches in the window.
    pub series: Estimate,
    /// A lower bound over the limit; counting stopped there.
    pub truncated: bool,
    /// The answer was kept from an earlier probe.
    pub cached: bool,
    /// The time of the probe; of a cached answer, the time it took then.
    pub took: Duration,
    /// Bytes of the answer.
    pub bytes: u64,
    /// The sizes of their label sets, where they were listed.
    pub labels: Option<LabelSize>,
}

/// Why there is no number.
#[derive(Clone, Debug)]
pub enum ProbeError {
    /// The selector matches everything.
    MatchAll,
    /// Its turn did not come in time: no place among the probes, or no room for its memory.
    Busy,
    /// No answer in time, though it was the only probe.
    Late(Duration),
    /// The backend failed.
    Backend(BackendError),
    /// The backend refused to count.
    Refused(u16, String),
    /// The backend's answer holds no number.
    Unreadable(String),
    /// The backend left series out.
    Incomplete,
}

impl ProbeError {
    /// The kind of failure.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::MatchAll => ErrorKind::LimitExceeded,
            Self::Busy => ErrorKind::QueueTimeout,
            Self::Late(_) => ErrorKind::UpstreamTimeout,
            Self::Backend(error) => error.kind(),
            Self::Refused(..) | Self::Unreadable(_) | Self::Incomplete => ErrorKind::UpstreamDead,
        }
    }

    /// The backend was not asked, or there is nobody to answer: the selector stays unknown, and every waiter for the
    /// number has to ask again.
    pub const fn is_unasked(&self) -> bool {
        matches!(self, Self::Busy | Self::Backend(_))
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MatchAll => f.write_str("a selector that matches everything is not counted"),
            Self::Busy => f.write_str("too many others were counted before it"),
            Self::Late(after) => write!(f, "no count within {}", crate::base::duration::text(*after)),
            Self::Backend(error) => error.fmt(f),
            Self::Refused(status, why) => write!(f, "the backend refused to count ({status}): {why}"),
            Self::Unreadable(why) => write!(f, "the backend's count cannot be read: {why}"),
            Self::Incomplete => f.write_str("the backend left series out of its count"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// Most probes at a time, whatever is configured.
const CONCURRENCY_MAX: u32 = 1_024;
/// Bytes that all probes of a backend may make it hold at a time; a larger one comes alone.
const PROBES_BYTES_MAX: u64 = 64 << 20;
/// Their unit.
const BYTES_UNIT: u64 = 1 << 10;
/// Bytes that a backend holds for a series of a list: 188 MiB for 200,000, measured on Prometheus 2.42.
const LISTED_BYTES: u64 = 1 << 10;
/// Series of the list that is asked for first, where lists are cut. Most selectors match fewer, and their counts do not
/// wait for those that would hold much.
const SHORT_LIST: u64 = 1_000;
/// Series that a list is taken to hold at a backend that cannot cut it.
const UNCUT_SERIES: u64 = 100_000;
/// Bytes of a probe that is answered from an index or from counters.
const COUNTED_BYTES: u64 = 64 << 10;

/// The probes of one backend.
#[derive(Debug)]
pub(super) struct Probes {
    settings: ProbeSettings,
    places: Semaphore,
    concurrency: u32,
    /// The memory that all probes make the backend hold, in [`BYTES_UNIT`]s.
    memory: Semaphore,
    answers: Answers,
    shares: types::Shares,
    values: values::Values,
    counters: Counters,
    /// Whether the backend's `/api/v1/series` takes a limit, and when that was found out.
    series_limit: Mutex<Option<(bool, Instant)>>,
    /// Mimir's cardinality API.
    cardinality: Endpoint,
}

impl Probes {
    pub(super) fn new(settings: ProbeSettings) -> Self {
        let concurrency = u32::try_from(settings.concurrency).unwrap_or(CONCURRENCY_MAX);
        let concurrency = concurrency.clamp(1, CONCURRENCY_MAX);
        Self {
            settings,
            places: Semaphore::new(concurrency as usize),
            concurrency,
            memory: Semaphore::new((PROBES_BYTES_MAX / BYTES_UNIT) as usize),
            answers: Answers::new(&settings),
            shares: types::Shares::new(&settings),
            values: values::Values::new(&settings),
            counters: Counters::default(),
            series_limit: Mutex::new(None),
            cardinality: Endpoint::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counters.counts()
    }
}

/// Acquires this number of permits, first come, first served.
async fn taken(of: &Semaphore, count: u32, deadline: Instant) -> Result<SemaphorePermit<'_>, ProbeError> {
    match timeout_at(deadline, of.acquire_many(count)).await {
        Ok(Ok(permits)) => Ok(permits),
        _ => Err(ProbeError::Busy),
    }
}

impl Backend {
    /// How many series a selector matches in a window, from the cache or from the backend. The window asked about is up
    /// to a 32nd (at least a minute) longer at either end, so that a dashboard that reloads asks the same again.
    pub async fn probe(&self, request: &ProbeRequest<'_>) -> Result<ProbeOutcome, ProbeError> {
        let probes = &self.probes;
        if request.match_all {
            probes.counters.refused.fetch_add(1, Relaxed);
            return Err(ProbeError::MatchAll);
        }
        if let Some(outcome) = probes.answers.of_other_window(request) {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
            return Ok(outcome);
        }
        let asked = ProbeRequest { window: widened(request.window), ..*request };
        // In a box, as the cache keeps a place for it whether it is asked or not.
        let ask = || Box::pin(self.ask_in_turn(&asked, request.window.end));
        let answered = timeout_at(request.deadline, probes.answers.get(&asked, ask)).await;
        let (Kept { answer, open }, cached) = answered.map_err(|_| ProbeError::Busy)?;
        if cached {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
        }
        let outcome = answer?;
        if !cached && !outcome.truncated {
            probes.answers.keep_whole(&asked, outcome, open);
        }
        Ok(outcome.as_seen(cached, open))
    }

    /// `end` is the last moment of the window before it was widened.
    async fn ask_in_turn(&self, request: &ProbeRequest<'_>, end: i64) -> Kept {
        let probes = &self.probes;
        let (began, now_ms) = (Instant::now(), now_ms());
        let asking = async {
            let first = if self.cuts_lists() { request.limit.min(SHORT_LIST) } else { request.limit };
            let short = ProbeRequest { limit: first, ..*request };
            let mut counted = self.ask_booked(&short, end.min(now_ms)).await;
            if first < request.limit && counted.as_ref().is_ok_and(|counted| counted.truncated) {
                counted = self.ask_booked(request, end.min(now_ms)).await;
            }
            // Its own crowd may have made it late. Alone, it is the selector or the backend.
            if !matches!(counted, Err(ProbeError::Late(_))) || probes.concurrency == 1 {
                return counted;
            }
            let _all = taken(&probes.places, probes.concurrency, request.deadline).await?;
            self.ask_within_deadline(request, end.min(now_ms)).await
        };
        let counted = asking.await;
        let took = began.elapsed();
        probes.counters.micros.fetch_add(took.as_micros() as u64, Relaxed);
        let answer = counted.map(|counted| ProbeOutcome {
            series: Estimate::new(counted.series, counted.class),
            truncated: counted.truncated,
            cached: false,
            took,
            bytes: counted.bytes,
            labels: counted.labels,
        });
        Kept { answer, open: request.window.end >= now_ms }
    }

    /// Whether it is counted by a list that ends at a limit.
    fn cuts_lists(&self) -> bool {
        matches!(self.kind(), Kind::Prometheus | Kind::Thanos | Kind::Cortex | Kind::M3)
    }

    /// Asks as soon as there is room for the memory of the probe, and then a place. A short list takes a place only: who
    /// waits for memory would hold it up.
    async fn ask_booked(&self, request: &ProbeRequest<'_>, end_ms: i64) -> Result<Counted, ProbeError> {
        let Probes { memory, places, .. } = &self.probes;
        let bytes = self.probe_bytes(request).await.min(PROBES_BYTES_MAX);
        let mut booked = None;
        if bytes > (SHORT_LIST + 1) * LISTED_BYTES {
            booked = Some(taken(memory, (bytes / BYTES_UNIT) as u32, request.deadline).await?);
        }
        let place = taken(places, 1, request.deadline).await?;
        let counted = self.ask_within_deadline(request, end_ms).await;
        drop((place, booked));
        counted
    }

    async fn ask_within_deadline(
        &self,
        request: &ProbeRequest<'_>,
        end_ms: i64,
    ) -> Result<Counted, ProbeError> {
        let (probes, began) = (&self.probes, Instant::now());
        let deadline = began + probes.settings.deadline;
        probes.counters.sent.fetch_add(1, Relaxed);
        let counted = match timeout_at(deadline, self.count_series(request, end_ms, deadline)).await {
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
    }

    /// Bytes that the backend is expected to hold for a probe.
    async fn probe_bytes(&self, request: &ProbeRequest<'_>) -> u64 {
        let deadline = Instant::now() + self.probes.settings.deadline;
        let series = match self.kind() {
            Kind::Weir => return COUNTED_BYTES,
            Kind::Prometheus if self.obeys_series_limit(request, deadline).await => request.limit,
            Kind::Prometheus => request.limit.max(UNCUT_SERIES),
            Kind::VictoriaMetrics => request.limit.min(kinds::VICTORIA_LISTS_CHEAPLY),
            Kind::Thanos | Kind::Mimir | Kind::Cortex | Kind::M3 => request.limit,
        };
        series.saturating_add(1).saturating_mul(LISTED_BYTES).max(COUNTED_BYTES)
    }
}

/// The result of one kind's probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    series: u64,
    class: Confidence,
    /// The number is a lower bound.
    truncated: bool,
    bytes: u64,
    /// Of the series that were listed.
    labels: Option<LabelSize>,
}

impl ProbeOutcome {
    /// A cached count of a window that was not over yet is an observation, no more.
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
