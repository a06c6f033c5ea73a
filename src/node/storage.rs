//! The interface of a storage to the engine.

use std::fmt;

use crate::{
    base::TimeRange,
    series::{Labels, Matcher, Samples},
};

/// Where series come from.
pub trait Storage: Sync {
    /// The series that match all `matchers` and may have samples in `window` (both ends included), each once.
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        window: TimeRange,
    ) -> Result<Box<dyn Selection + 'a>, StorageError>;
}

/// Selected series, to be read in any order and by several threads.
pub trait Selection: Send + Sync {
    /// How many series there are.
    fn series(&self) -> usize;

    /// The labels of the series.
    fn labels(&self, number: usize) -> Option<&Labels>;

    /// About how many samples of a series are in the window, without reading them; 0 is unknown.
    fn expected(&self, _number: usize) -> usize {
        0
    }

    /// Bytes that the samples of a series take where they are stored; 0 where nobody knows.
    fn stored_bytes(&self, _number: usize) -> u64 {
        0
    }

    /// Puts the samples of a series in the window into `into`, which is cleared first, and returns its labels; `None`
    /// when there are none.
    fn read(&self, number: usize, into: &mut Samples) -> Result<Option<&Labels>, StorageError>;
}

/// Why a storage did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// A selected series holds native histograms.
    NativeHistogram {
        /// The series.
        series: String,
    },
    /// A matcher is malformed.
    Matcher(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NativeHistogram { series } => write!(f, "{series} holds native histograms"),
            Self::Matcher(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StorageError {}
