//! What the engine asks of a storage.

use std::fmt;

use super::labels::Labels;
use crate::{base::TimeRange, promql::ast::Matcher};

/// Samples of one series in time order, a column each; buffers that are filled again for the next series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds since the Unix epoch, strictly rising.
    pub times: Vec<i64>,
    /// Values; [`STALE_NAN`](super::STALE_NAN) marks the end of a series.
    pub values: Vec<f64>,
    /// When each sample's counter started, 0 where unknown; empty when nothing is known.
    pub starts: Vec<i64>,
}

impl Samples {
    /// Forgets all samples and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.starts.clear();
    }

    /// Appends a sample whose start is not known.
    pub fn push(&mut self, time: i64, value: f64) {
        self.times.push(time);
        self.values.push(value);
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

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

    /// About how many samples of a series are in the window, told without reading them; 0 where nobody knows.
    fn expected(&self, _number: usize) -> usize {
        0
    }

    /// Bytes that the samples of a series take where they are stored; 0 where nobody knows.
    fn stored_bytes(&self, _number: usize) -> u64 {
        0
    }

    /// Puts the samples of a series in the window into `into`, which is cleared first, and says whose they are; `None`
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
