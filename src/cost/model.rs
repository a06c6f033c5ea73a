//! A backend as the estimator sees it.

use crate::base::{Kind, TimeRange};

/// The assumption about an unknown selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It costs nothing: let it pass.
    Allow,
    /// It costs more than any limit allows.
    Deny,
    /// It matches this many series.
    Number(u64),
}

/// The number of series that stands for "more than any limit".
pub const UNKNOWN_SERIES: u64 = u64::MAX;

impl Unknown {
    pub(super) const fn series(self) -> u64 {
        match self {
            Self::Allow => 0,
            Self::Deny => UNKNOWN_SERIES,
            Self::Number(n) => n,
        }
    }
}

/// A backend as the estimator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The engine of the formula.
    pub kind: Kind,
    /// Length of a storage block, milliseconds; 0 counts as one block for any window.
    pub block_duration_ms: u64,
    /// Time between two samples of a series, milliseconds; 0 counts as one.
    pub scrape_interval_ms: u64,
    /// For selectors of which nothing is known.
    pub unknown: Unknown,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            kind: Kind::Prometheus,
            block_duration_ms: 7_200_000,
            scrape_interval_ms: 15_000,
            unknown: Unknown::Allow,
        }
    }
}

impl Model {
    /// Storage blocks that a window overlaps, for one series.
    pub(super) fn blocks(&self, window: TimeRange) -> u64 {
        let Some(block) = i64::try_from(self.block_duration_ms).ok().filter(|b| *b > 0) else { return 1 };
        let first = window.start.div_euclid(block);
        (window.end.div_euclid(block).saturating_sub(first) as u64).saturating_add(1)
    }

    /// Raw samples in a window, for one series.
    pub(super) fn samples(&self, window: TimeRange) -> u64 {
        match self.scrape_interval_ms {
            0 => 1,
            // A window open to the left, as long as n intervals, holds n samples; its ends are inclusive here.
            interval => window.len_ms().saturating_add(1).div_ceil(interval),
        }
    }
}
