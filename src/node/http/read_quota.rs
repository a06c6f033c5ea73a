//! Recent reads by source and in all: m3dbnode's limits on recently queried series and bytes, over a window that
//! slides. There it tumbles: twice the limit passes around a reset, and after a trip everybody waits for the next.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::error::Failure;
use crate::{
    base::{ErrorKind, units},
    node::engine::{EvalError, ReadObserver, ReadVolume},
};

/// The window slides by this part of itself.
const SLICES: usize = 10;
/// The most sources with a window of their own; the others share one.
const SOURCES_MAX: usize = 1_000;
/// The name of the window that the others share.
const OTHERS: &str = "other";

/// Most that may be read within the window; `u64::MAX` is no limit.
pub type QuotaLimit = ReadVolume;

/// Settings of the quota of reads in a sliding window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaSettings {
    /// How far back it reaches.
    pub window: Duration,
    /// The header that names the source; without it, the address does.
    pub header: String,
    /// Of one source.
    pub source: QuotaLimit,
    /// Of all together.
    pub all: QuotaLimit,
}

impl Default for QuotaSettings {
    fn default() -> Self {
        let none = ReadVolume { series: u64::MAX, samples: u64::MAX, bytes: u64::MAX };
        Self { window: Duration::from_secs(15), header: "X-Scope-OrgID".to_owned(), source: none, all: none }
    }
}

/// The volume read in each slice of a window.
#[derive(Debug, Default)]
struct Window {
    /// By slice number, modulo their number.
    slices: [ReadVolume; SLICES],
    sum: ReadVolume,
    /// The newest slice.
    at: u64,
}

impl Window {
    /// Forgets the reads that have slid out by slice `now`.
    fn slide(&mut self, now: u64) {
        for gone in (self.at + 1..=now).take(SLICES) {
            self.sum = self.sum.minus(std::mem::take(&mut self.slices[gone as usize % SLICES]));
        }
        self.at = self.at.max(now);
    }

    fn add(&mut self, touched: ReadVolume) {
        let slice = &mut self.slices[self.at as usize % SLICES];
        *slice = slice.plus(touched);
        self.sum = self.sum.plus(touched);
    }

    /// How many slices from now on it takes until no more than the limit is left.
    fn slices_until(&self, within: impl Fn(ReadVolume) -> bool) -> u64 {
        let mut left = self.sum;
        let gone = (1..=SLICES as u64).find(|ahead| {
            left = left.minus(self.slices[(self.at + ahead) as usize % SLICES]);
            within(left)
        });
        gone.unwrap_or(SLICES as u64)
    }
}

/// A limited resource: its name, and its number.
type Resource = (&'static str, fn(ReadVolume) -> u64);

const RESOURCES: [Resource; 3] =
    [("series", |t| t.series), ("samples", |t| t.samples), ("bytes", |t| t.bytes)];

/// Counts series, samples and bytes of reads, and stops them at the limits.
pub(super) struct ReadQuota {
    settings: QuotaSettings,
    now: Box<dyn Fn() -> Duration + Send + Sync>,
    all: Mutex<Window>,
    sources: Mutex<HashMap<Box<str>, Arc<Mutex<Window>>>>,
    refused: AtomicU64,
}

/// A read that is counted.
#[derive(Debug)]
pub(super) struct Counted {
    recent: Arc<ReadQuota>,
    source: Box<str>,
    window: Arc<Mutex<Window>>,
    own: Mutex<ReadVolume>,
    /// Why it had to stop.
    stopped: Mutex<Option<Refusal>>,
}

impl ReadQuota {
    pub(super) fn new(settings: QuotaSettings) -> Arc<Self> {
        let start = Instant::now();
        Self::with_clock(settings, move || start.elapsed())
    }

    fn with_clock(settings: QuotaSettings, now: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        let (all, sources) = (Mutex::default(), Mutex::default());
        Arc::new(Self { settings, now: Box::new(now), all, sources, refused: AtomicU64::new(0) })
    }

    /// Reads refused or stopped.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// The volume that all sources have read within the window.
    pub(super) fn touched(&self) -> ReadVolume {
        let mut all = self.all.lock();
        all.slide(self.slice());
        all.sum
    }

    /// Begins a read; nothing where there is no limit to hold it against.
    ///
    /// # Errors
    /// The quota of the window is used up.
    pub(super) fn begin(self: &Arc<Self>, source: &str) -> Result<Option<Arc<Counted>>, Failure> {
        if self.settings.source == self.settings.all && self.settings.all == QuotaSettings::default().all {
            return Ok(None);
        }
        let (source, window) = self.window_of(source);
        let (own, stopped) = (Mutex::default(), Mutex::default());
        let counted = Counted { recent: Arc::clone(self), source, window, own, stopped };
        counted.count(ReadVolume::default()).map_err(Refusal::failure)?;
        Ok(Some(Arc::new(counted)))
    }

    fn slice(&self) -> u64 {
        let length = self.settings.window.as_millis().max(SLICES as u128) / SLICES as u128;
        u64::try_from((self.now)().as_millis() / length).unwrap_or(u64::MAX)
    }

    fn window_of(&self, source: &str) -> (Box<str>, Arc<Mutex<Window>>) {
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES_MAX && !sources.contains_key(source) {
            let now = self.slice();
            sources.retain(|_, window| {
                let mut window = window.lock();
                window.slide(now);
                window.sum != ReadVolume::default()
            });
        }
        let name = if sources.len() < SOURCES_MAX || sources.contains_key(source) { source } else { OTHERS };
        let window = sources.entry(name.into()).or_default();
        (name.into(), Arc::clone(window))
    }
}

impl fmt::Debug for ReadQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadQuota").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    message: String,
    /// Asking again will not help.
    for_good: bool,
    wait: Duration,
}

impl Refusal {
    fn failure(self) -> Failure {
        let kind = if self.for_good { ErrorKind::LimitExceeded } else { ErrorKind::RateLimited };
        Failure { retry_after: self.wait, ..Failure::new(kind, self.message) }
    }
}

/// An error of a query, with the details of the limit that stopped it.
pub(super) fn explained(error: EvalError, counted: Option<&Counted>) -> Failure {
    let refusal = counted
        .filter(|_| matches!(error, EvalError::Stopped(_)))
        .and_then(|counted| counted.stopped.lock().take());
    refusal.map_or_else(|| error.into(), Refusal::failure)
}

impl ReadObserver for Counted {
    fn read(&self, touched: ReadVolume) -> Result<(), String> {
        self.count(touched).map_err(|refusal| {
            let message = refusal.message.clone();
            *self.stopped.lock() = Some(refusal);
            message
        })
    }
}

impl Counted {
    /// Counts a read.
    fn count(&self, more: ReadVolume) -> Result<(), Refusal> {
        let settings = &self.recent.settings;
        let now = self.recent.slice();
        let mut own = self.own.lock();
        *own = own.plus(more);
        let places = [
            (&*self.window, settings.source, format_args!("source {}", self.source).to_string()),
            (&self.recent.all, settings.all, "all sources".to_owned()),
        ];
        let mut refusal = None;
        for (window, limit, whose) in places {
            let mut window = window.lock();
            window.slide(now);
            window.add(more);
            let over = RESOURCES.into_iter().find(|(_, of)| of(window.sum) > of(limit));
            if let (None, Some((resource, of))) = (&refusal, over) {
                let slices = window.slices_until(|left| of(left) <= of(limit));
                refusal = Some(self.refuse(resource, &whose, (of(window.sum), of(limit), of(*own)), slices));
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn refuse(
        &self,
        resource: &str,
        whose: &str,
        (sum, limit, own): (u64, u64, u64),
        slices: u64,
    ) -> Refusal {
        self.recent.refused.fetch_add(1, Relaxed);
        let window = self.recent.settings.window;
        let message = format!(
            "{whose} read {} {resource} within {} s, and may read {} (recent); ask later, or for fewer series or a \
             shorter range",
            units::count(sum),
            window.as_secs_f64(),
            units::count(limit),
        );
        Refusal {
            message,
            for_good: own > limit,
            wait: window * u32::try_from(slices).unwrap_or(1) / SLICES as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u64 = u64::MAX;

    fn limit(series: u64, samples: u64, bytes: u64) -> QuotaLimit {
        QuotaLimit { series, samples, bytes }
    }

    fn read(recent: &Arc<ReadQuota>, source: &str, touched: ReadVolume) -> Result<(), Failure> {
        let counted = recent.begin(source)?.unwrap();
        counted.read(touched).map_err(|text| explained(EvalError::Stopped(text), Some(&counted)))
    }

    fn over_ten_seconds(source: QuotaLimit, all: QuotaLimit) -> (Arc<ReadQuota>, Arc<AtomicU64>) {
        let clock = Arc::new(AtomicU64::new(0));
        let now = Arc::clone(&clock);
        let settings =
            QuotaSettings { window: Duration::from_secs(10), source, all, ..QuotaSettings::default() };
        (ReadQuota::with_clock(settings, move || Duration::from_secs(now.load(Relaxed))), clock)
    }

    #[test]
    fn nothing_is_counted_where_nothing_is_limited() {
        assert!(ReadQuota::new(QuotaSettings::default()).begin("a").unwrap().is_none());
    }

    #[test]
    fn the_window_slides_and_sources_do_not_share() {
        let (recent, clock) = over_ten_seconds(limit(10, NONE, NONE), limit(NONE, NONE, NONE));
        let five = ReadVolume { series: 5, ..ReadVolume::default() };
        read(&recent, "a", five).unwrap();
        clock.store(4, Relaxed);
        read(&recent, "a", five).unwrap();
        let refused = read(&recent, "a", five).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (ErrorKind::RateLimited, Duration::from_secs(6)));
        assert!(
            refused.message.starts_with("source a read 15 series within 10 s, and may read 10"),
            "{}",
            refused.message
        );
        read(&recent, "b", five).unwrap();
        clock.store(10, Relaxed);
        // The first five have slid out, the ten at 4 s have not.
        assert!(recent.begin("a").is_ok());
        read(&recent, "a", five).unwrap_err();
        clock.store(100, Relaxed);
        read(&recent, "a", five).unwrap();
        assert_eq!((recent.refused(), recent.touched().series), (2, 5));
    }

    #[test]
    fn what_alone_is_too_much_is_no_use_to_repeat() {
        let (recent, clock) = over_ten_seconds(limit(NONE, NONE, NONE), limit(NONE, 100, 1_000));
        let refused = read(&recent, "a", ReadVolume { series: 1, samples: 1, bytes: 1_001 }).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::LimitExceeded);
        assert!(refused.message.starts_with("all sources read "), "{}", refused.message);
        // It counts all the same, as in m3dbnode, and later reads wait.
        assert_eq!(recent.begin("b").unwrap_err().kind, ErrorKind::RateLimited);
        clock.store(11, Relaxed);
        assert!(recent.begin("b").is_ok());
    }

    #[test]
    fn sources_are_bounded() {
        let (recent, clock) = over_ten_seconds(limit(1, NONE, NONE), limit(NONE, NONE, NONE));
        let one = ReadVolume { series: 1, ..ReadVolume::default() };
        for number in 0..SOURCES_MAX {
            read(&recent, &number.to_string(), one).unwrap();
        }
        read(&recent, "late", one).unwrap();
        assert!(read(&recent, "later", one).unwrap_err().message.starts_with("source other"));
        clock.store(60, Relaxed);
        read(&recent, "much later", one).unwrap();
        assert!(recent.sources.lock().len() <= 2);
    }
}
