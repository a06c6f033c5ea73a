//! A question to a backend, and its answer.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::cache::widened;
use crate::{
    backend::{BackendError, parameters::DataScope},
    base::{Confidence, ErrorKind, Estimate, LabelSize, TimeRange},
};

/// A question to a backend.
#[derive(Clone, Copy, Debug)]
pub struct ProbeRequest<'a> {
    /// The selector, without range, offset and `@`.
    pub selector: &'a str,
    /// The metric that it names.
    pub metric: Option<&'a str>,
    /// The time in which it is read.
    pub window: TimeRange,
    /// A count may stop here: more series are refused, in any number.
    pub limit: u64,
    /// A number of series up to which no limit is in doubt: the count of a longer window is enough then.
    pub enough: u64,
    /// The selector matches everything: asking would itself be the attack.
    pub match_all: bool,
    /// The data scope, by which answers are cached. Nothing else of a client goes into a probe.
    pub scope: &'a DataScope,
    /// The tenant that asks: tenants take turns.
    pub tenant: &'a str,
    /// How long the probe may wait for its turn.
    pub deadline: Instant,
}

impl ProbeRequest<'_> {
    /// The window that is asked about, up to a 32nd (at least a minute) longer at either end.
    pub fn asked_window(&self) -> TimeRange {
        widened(self.window)
    }
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
    /// No answer in time, though its tenant had no other probe.
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

impl ProbeOutcome {
    /// A cached count of a window that was not over yet is an observation, no more.
    pub(super) fn as_seen(mut self, cached: bool, open: bool) -> Self {
        self.cached = cached;
        if cached && open {
            self.series.confidence = self.series.confidence.max(Confidence::Learned);
        }
        self
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}
