//! What is known of a selector's series, and from where.

use std::fmt;

use super::{Model, Observed};
use crate::{
    base::{Confidence, Estimate},
    promql::shape::Shape,
};

/// Where a number of series comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The backend's table of series by metric name and label value.
    LabelTable,
    /// Earlier runs of the same query.
    Learned,
    /// The backend was asked about this selector.
    Probe,
    /// Nowhere: the configured assumption.
    Assumed,
}

impl Source {
    /// The word for metrics and JSON: `label_table`, `learned`, `probe`, `assumed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LabelTable => "label_table",
            Self::Learned => "learned",
            Self::Probe => "probe",
            Self::Assumed => "assumed",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LabelTable => "from the backend's label table",
            Self::Learned => "from earlier runs",
            Self::Probe => "counted by the backend",
            Self::Assumed => "nothing is known of it",
        })
    }
}

/// The series of one selector in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesKnowledge {
    /// How many.
    pub series: Estimate,
    /// How that came to be known.
    pub source: Source,
}

impl SeriesKnowledge {
    /// A number and where it comes from.
    pub const fn new(series: Estimate, source: Source) -> Self {
        Self { series, source }
    }

    /// Nothing is known: what the configuration says to assume.
    pub const fn assumed(model: &Model) -> Self {
        Self::new(Estimate::new(model.unknown.series(), Confidence::Assumed), Source::Assumed)
    }

    /// The better of two: a count beats everything, then the smaller number among what is known at all, and an
    /// assumption only stands alone.
    #[must_use]
    pub fn better(self, other: Self) -> Self {
        use Confidence::{Assumed, Exact};
        match (self.series.confidence, other.series.confidence) {
            (Exact, Exact) | (Assumed, Assumed) => self.smaller(other),
            (Exact, _) | (_, Assumed) => self,
            (_, Exact) | (Assumed, _) => other,
            _ => self.smaller(other),
        }
    }

    const fn smaller(self, other: Self) -> Self {
        if other.series.value < self.series.value { other } else { self }
    }

    /// Spreads what earlier runs of the whole query touched over its selectors: in proportion to what is already
    /// known of them, evenly when something is not.
    pub fn from_observed(shape: &Shape, observed: &Observed, known: &[Self]) -> Vec<Self> {
        let count = shape.selectors.len();
        let bound = |i: usize| {
            known.get(i).filter(|k| k.series.confidence != Confidence::Assumed).map(|k| k.series.value)
        };
        let total: Option<u128> = (0..count).map(|i| bound(i).map(u128::from)).sum();
        let share = |i: usize| match (total, bound(i)) {
            (Some(total), Some(own)) if total > 0 => {
                let part = (u128::from(observed.series) * u128::from(own)).div_ceil(total);
                u64::try_from(part).unwrap_or(u64::MAX)
            }
            _ => observed.series.div_ceil(count.max(1) as u64),
        };
        let learned = |i| Self::new(Estimate::new(share(i), Confidence::Learned), Source::Learned);
        (0..count).map(|i| known.get(i).map_or(learned(i), |k| k.better(learned(i)))).collect()
    }
}
