//! Meters an answer until its last byte: counts its contents, stops it at a limit, settles its cost.
//!
//! The bytes pass through as they came: they are looked at, never buffered whole, never written anew.
//!
//! ```text
//! AnswerMeter::new(limits, on_end) ─ wrap(headers, body) ─▶ MeteredBody ─ peek().await ──▶ the client
//!                                                                      │ a limit was hit before the first byte
//!                                                                      ▼
//!                                                                  Unsent: a clean 422 or 502
//! ```

mod answer_counter;
mod body;
mod byte_masks;
mod cancel;
mod gzip;
pub(in crate::proxy) mod layer;
mod progress;
mod scan;
pub(in crate::proxy) mod settlement;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU64, sync::Arc};

use http::HeaderMap;

use self::answer_counter::AnswerCounter;
pub use self::{
    body::{BodyError, MeteredBody, Unsent},
    cancel::{Cancellation, Kill},
    progress::Progress,
    scan::{Counts, Scanner},
};
use crate::limit::LimitName;

/// The limits of one answer; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterLimits {
    /// Bytes, after decompression where Weir can decompress.
    pub bytes: Option<NonZeroU64>,
    /// Series.
    pub series: Option<NonZeroU64>,
    /// Points: samples of all its series.
    pub points: Option<NonZeroU64>,
}

/// Why an answer was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// Which limit; [`LimitName::Cancelled`] and [`LimitName::Killed`] are none, but cancellations.
    pub limit: LimitName,
    /// The count when the answer was stopped: a lower bound of its size.
    pub observed: u64,
    /// The limit; 0 where it was none.
    pub max: u64,
    /// The part of the answer until then.
    pub came: Actual,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            LimitName::Cancelled => return f.write_str(cancel::FOR_BACKEND),
            LimitName::Killed => return f.write_str("an operator stopped the query (weir-killed)"),
            _ => {}
        }
        let (observed, max) = (self.limit.show(self.observed), self.limit.show(self.max));
        match self.limit {
            LimitName::MaxResponse => {
                write!(f, "the answer is at least {observed} long, the limit is {max}")?;
            }
            limit => write!(f, "the answer holds at least {observed} {}, the limit is {max}", limit.noun())?,
        }
        write!(f, "; aggregate, narrow the selectors or shorten the range ({}", self.limit.id())?;
        if let Some(id) = self.limit.grafana_id() {
            write!(f, ", {id}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for CutOff {}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The last byte was handed on.
    Complete,
    /// The backend broke off.
    Failed,
    /// The client left, or the request was given up.
    Dropped,
    /// The client did not take it in time.
    Late,
    /// A limit stopped it.
    CutOff(LimitName),
}

impl Outcome {
    /// Metric and log label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Late => "late",
            Self::CutOff(_) => "cut_off",
        }
    }
}

/// The actual size of an answer, up to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Bytes received from the backend.
    pub bytes_wire: u64,
    /// Bytes after decompression; those on the wire where nothing was decompressed.
    pub bytes_decoded: u64,
    /// Series in the answer.
    pub series: u64,
    /// Samples in the answer.
    pub samples: u64,
    /// Names or values of labels in the answer.
    pub items: u64,
    /// Series that the backend fetched for it, by its own account (VictoriaMetrics).
    pub series_fetched: Option<u64>,
    /// Whether series and samples cover the whole answer: it was read to its end and understood. Learn only then.
    pub counted: bool,
}

/// Called once with the end of an answer. It owns the permit, so that the budget is given back with the last byte.
pub type OnEnd = Box<dyn FnOnce(Outcome, Actual) + Send>;

/// A record on which the end of an answer goes.
pub trait EndRecord: Send {
    /// It ended so, and its client has seen this status.
    fn ended(&mut self, status: u16, outcome: Outcome, actual: Actual);
}

/// The limits of one answer, and the action at its end.
///
/// Dropped before it is wrapped around a body, it ends as [`Outcome::Dropped`].
pub struct AnswerMeter {
    limits: MeterLimits,
    counter: AnswerCounter,
    on_end: Option<OnEnd>,
    progress: Arc<Progress>,
    /// Series and points are looked at before the first byte is sent only.
    before_the_first_byte: bool,
    /// Where the end goes on record, and the status that the client has seen.
    log: Option<(Box<dyn EndRecord>, u16)>,
}

impl AnswerMeter {
    /// A meter that calls `on_end` exactly once, at any end of the answer.
    pub fn new(limits: MeterLimits, on_end: OnEnd) -> Self {
        Self::reporting_to(Arc::default(), limits, on_end)
    }

    /// The same, which reports to `progress`, and stops when that is cancelled.
    pub fn reporting_to(progress: Arc<Progress>, limits: MeterLimits, on_end: OnEnd) -> Self {
        Self {
            limits,
            counter: AnswerCounter::default(),
            on_end: Some(on_end),
            progress,
            before_the_first_byte: false,
            log: None,
        }
    }

    /// The same meter for a list, which is refused before its first byte or not for its length at all: its cost is paid
    /// when it begins to come, and half a list helps nobody.
    #[must_use]
    pub const fn judging_before_the_first_byte(mut self) -> Self {
        self.before_the_first_byte = true;
        self
    }

    /// Puts the meter around an answer; `headers` are the answer's own and say how to read it. In a box, since it moves
    /// through every layer.
    pub fn wrap<B: http_body::Body>(mut self, headers: &HeaderMap, body: B) -> Box<MeteredBody<B>> {
        self.counter = AnswerCounter::for_answer(headers);
        Box::new(MeteredBody::new(self, body))
    }

    /// Ends without an answer: the backend gave none.
    pub fn fail(mut self) {
        self.end(Outcome::Failed);
    }

    fn end(&mut self, outcome: Outcome) {
        self.progress.end();
        if let Some(on_end) = self.on_end.take() {
            let actual = self.counter.actual(outcome == Outcome::Complete);
            on_end(outcome, actual);
            if let Some((mut log, status)) = self.log.take() {
                log.ended(status, outcome, actual);
            }
        }
    }
}

impl Drop for AnswerMeter {
    fn drop(&mut self) {
        self.end(Outcome::Dropped);
    }
}

impl fmt::Debug for AnswerMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerMeter")
            .field("limits", &self.limits)
            .field("ended", &self.on_end.is_none())
            .finish_non_exhaustive()
    }
}
