//! The known number of a selector's series, and its source.

use std::fmt;

use super::{Model, Remembered};
use crate::base::{Confidence, Estimate, LabelSize};

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

/// Buckets of a native histogram of which nothing more is known: client libraries keep to 100 or 160.
const BUCKETS_ASSUMED: u32 = 100;

/// The samples of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleType {
    /// Nobody said.
    Unknown,
    /// Floats alone.
    Float,
    /// Native histograms with this many buckets, on average over all series.
    Histogram(u32),
    /// Nobody could say: taken for native histograms of the usual size.
    Assumed,
}

impl SampleType {
    /// Buckets of a sample, on average.
    pub const fn buckets(self) -> u32 {
        match self {
            Self::Unknown | Self::Float => 0,
            Self::Histogram(buckets) => buckets,
            Self::Assumed => BUCKETS_ASSUMED,
        }
    }

    /// Native histograms of the usual size.
    pub const HISTOGRAM: Self = Self::Histogram(BUCKETS_ASSUMED);

    /// Of series of which this share, 0 to 1, are native histograms.
    pub fn of_share(share: f64) -> Self {
        match (share.clamp(0.0, 1.0) * f64::from(BUCKETS_ASSUMED)).ceil() as u32 {
            0 => Self::Float,
            buckets => Self::Histogram(buckets),
        }
    }
}

/// The series of one selector in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesKnowledge {
    /// How many.
    pub series: Estimate,
    /// How that came to be known.
    pub source: Source,
    /// Their contents.
    pub samples: SampleType,
    /// The sizes of their label sets, where they were listed.
    pub labels: Option<LabelSize>,
    /// Different values that `count_values` finds in them, where that was asked.
    pub values: Option<u64>,
}

impl SeriesKnowledge {
    /// A number and where it comes from.
    pub const fn new(series: Estimate, source: Source) -> Self {
        Self { series, source, samples: SampleType::Unknown, labels: None, values: None }
    }

    /// The same series, known to hold these samples.
    #[must_use]
    pub const fn holding(self, samples: SampleType) -> Self {
        Self { samples, ..self }
    }

    /// The same series, known to have label sets of these sizes.
    #[must_use]
    pub const fn labelled(self, labels: Option<LabelSize>) -> Self {
        Self { labels, ..self }
    }

    /// The assumption of the configuration, where nothing is known.
    pub const fn assumed(model: &Model) -> Self {
        Self::new(Estimate::new(model.unknown.series(), Confidence::Assumed), Source::Assumed)
    }

    /// An assumption, or the number of a table for times that it does not cover.
    pub fn is_guess(&self) -> bool {
        self.series.confidence == Confidence::Assumed
    }

    /// Adds a backend's count for this window: it replaces everything but a lower bound from above. A `truncated` count
    /// stopped over its limit; where the upper bound is over it too, the bound is kept.
    #[must_use]
    pub fn counted(self, series: Estimate, truncated: bool) -> Self {
        let is_bound = self.series.confidence == Confidence::UpperBound;
        let counted = Self { series, source: Source::Probe, ..self };
        match truncated {
            true if is_bound && self.series.value > series.value => self,
            true => Self { series: Estimate::new(series.value, Confidence::AtLeast), ..counted },
            false if series.confidence == Confidence::Exact => counted,
            false if is_bound && self.series.value < series.value => self,
            false => counted,
        }
    }

    /// Takes in the observed cost of earlier runs of the whole query, in series over all selectors; whether that changed
    /// anything. An observation is no bound:
    ///
    /// - a run in this very window is the most that each selector has;
    /// - another run raises the sum to its own, at the selector whose series cost most (`heaviest`), and lowers nothing.
    pub fn remember(known: &mut [Self], remembered: Remembered, heaviest: usize) -> bool {
        let learned = |known: &Self, series, confidence| Self {
            series: Estimate::new(series, confidence),
            source: Source::Learned,
            ..*known
        };
        if let Some(most) = remembered.here {
            let is_lower = |known: &&mut Self| known.is_guess() || most < known.series.value;
            let lower = known.iter_mut().filter(|known| known.series.confidence != Confidence::Exact);
            let lowered =
                lower.filter(is_lower).map(|known| *known = learned(known, most, Confidence::Learned));
            return lowered.count() > 0;
        }
        let total = known.iter().fold(0_u64, |sum, known| sum.saturating_add(known.series.value));
        let Some(raised) = known.get_mut(heaviest).filter(|_| total < remembered.peak) else { return false };
        let series = raised.series.value.saturating_add(remembered.peak - total);
        let confidence = raised.series.confidence.max(Confidence::Learned);
        *raised = learned(raised, series, confidence);
        true
    }
}
