//! Why an evaluation stopped.

use std::fmt;

use crate::{node::pool::PoolExhausted, node::storage::StorageError};

/// Why an evaluation stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// The query makes no sense over these data; the text is Prometheus' where it has one.
    Execution(String),
    /// A limit of [`Limits`](super::Limits) was reached.
    Limit {
        /// `series`, `samples` or `points`.
        name: &'static str,
        /// The most that is allowed.
        max: u64,
    },
    /// The node has no memory left to lend, and did not get any back in time.
    Exhausted(PoolExhausted),
    /// The [`ReadObserver`](super::ReadObserver) stopped it.
    Stopped(String),
    /// The cancel flag was raised.
    Canceled,
    /// A selected series holds native histograms, which this engine does not evaluate.
    NativeHistogram {
        /// The series.
        series: String,
    },
    /// The storage failed.
    Storage(String),
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execution(text) | Self::Stopped(text) => f.write_str(text),
            Self::Limit { name, max } => write!(f, "the query touches more than {max} {name}"),
            Self::Exhausted(exhausted) => exhausted.fmt(f),
            Self::Canceled => f.write_str("the query was canceled"),
            Self::NativeHistogram { series } => {
                write!(f, "native histograms are not supported, but {series} holds some")
            }
            Self::Storage(text) => write!(f, "storage: {text}"),
        }
    }
}

impl std::error::Error for EvalError {}

impl From<StorageError> for EvalError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NativeHistogram { series } => Self::NativeHistogram { series },
            StorageError::Matcher(text) => Self::Execution(text),
            StorageError::Failed(text) => Self::Storage(text),
        }
    }
}

/// Bytes of a message that are kept: labels may be as long as a query makes them.
const TEXT_MAX: usize = 4 << 10;

/// Fails with the words of Prometheus.
pub(super) fn execution<T>(text: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Execution(shortened(text.into())))
}

/// A text cut to the bytes that an error keeps.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
    text
}
