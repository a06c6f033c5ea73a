//! A batch of writes: many series with their samples, labels borrowed from the request.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    sync::Arc,
};

use super::{MetadataField, Series};
use crate::series::METRIC_NAME;

/// The most labels of one batch. With the limits below, and the data derived on the way to the log, a batch takes a few
/// MiB.
const LABELS_FULL: usize = 131_072;
/// The most samples of one batch.
const SAMPLES_FULL: usize = 65_536;
/// The most metrics with metadata of one batch.
const METADATA_FULL: usize = 4_096;

/// Limits on labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels of one series.
    pub labels: usize,
    /// Bytes of a label name.
    pub name_bytes: usize,
    /// Bytes of a label value.
    pub value_bytes: usize,
}

impl Default for LabelLimits {
    fn default() -> Self {
        Self { labels: 128, name_bytes: 1_024, value_bytes: 16_384 }
    }
}

/// Why a series is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelProblem {
    /// A label without a name.
    EmptyName,
    /// The same name twice.
    Duplicate(String),
    /// No metric name.
    NoName,
    /// More labels than allowed: how many.
    TooMany(usize),
    /// A name longer than allowed: its beginning and length in bytes.
    NameTooLong(String, usize),
    /// A value longer than allowed: the label's name and the length in bytes.
    ValueTooLong(String, usize),
    /// A name or a value that is no text.
    NotUtf8,
    /// Native histograms among its samples.
    NativeHistograms,
}

impl fmt::Display for LabelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyName => f.write_str("a label has an empty name"),
            Self::Duplicate(name) => write!(f, "label name {name:?} is not unique"),
            Self::NoName => f.write_str("a series has no metric name"),
            Self::TooMany(count) => write!(f, "a series has {count} labels, too many"),
            Self::NameTooLong(head, bytes) => write!(f, "label name {head:?}… of {bytes} bytes is too long"),
            Self::ValueTooLong(name, bytes) => {
                write!(f, "the value of label {name:?} is too long: {bytes} bytes")
            }
            Self::NotUtf8 => f.write_str("a label is not UTF-8"),
            Self::NativeHistograms => f.write_str("native histograms are not stored by this node"),
        }
    }
}

impl std::error::Error for LabelProblem {}

impl LabelLimits {
    /// Sorts labels by name; the error is their mistake.
    fn check(self, own: &mut [(&str, &str)]) -> Result<(), LabelProblem> {
        if own.len() > self.labels {
            return Err(LabelProblem::TooMany(own.len()));
        }
        if !own.is_sorted_by(|a, b| a.0 < b.0) {
            own.sort_unstable();
        }
        for (i, (name, value)) in own.iter().enumerate() {
            if name.is_empty() {
                return Err(LabelProblem::EmptyName);
            }
            if i > 0 && own.get(i - 1).is_some_and(|before| before.0 == *name) {
                return Err(LabelProblem::Duplicate(beginning(name)));
            }
            if name.len() > self.name_bytes {
                return Err(LabelProblem::NameTooLong(beginning(name), name.len()));
            }
            if value.len() > self.value_bytes {
                return Err(LabelProblem::ValueTooLong(beginning(name), value.len()));
            }
        }
        match own.iter().find(|(name, _)| *name == METRIC_NAME) {
            Some((_, value)) if !value.is_empty() => Ok(()),
            _ => Err(LabelProblem::NoName),
        }
    }
}

/// Series that were sent for a batch and are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedSeries {
    /// How many.
    pub series: u64,
    /// Their samples.
    pub samples: u64,
    /// The first refused series, and its problem.
    pub first: Option<String>,
}

/// Series and samples to write, in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    labels: Vec<(&'a str, &'a str)>,
    samples: Vec<(i64, f64)>,
    ends: Vec<End<'a>>,
    limits: LabelLimits,
    refused: RefusedSeries,
    exemplars: u64,
    metadata: Vec<(&'a str, MetadataField<'a>)>,
}

/// Where the labels and samples of a series end.
#[derive(Clone, Debug)]
struct End<'a> {
    labels: usize,
    samples: usize,
    named: NamedBy<'a>,
}

/// How a batch names a series.
#[derive(Clone, Debug)]
pub enum NamedBy<'a> {
    /// By its labels.
    Labels,
    /// By its labels, which were read from this text: a look-up may note the series.
    Text(&'a str),
    /// It is known; the batch has no labels of it.
    Known(Arc<Series>),
}

/// One series of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeries<'b, 'a> {
    labels: &'b [(&'a str, &'a str)],
    /// How it is named.
    pub named: &'b NamedBy<'a>,
    /// Time in milliseconds and value.
    pub samples: &'b [(i64, f64)],
}

impl<'b, 'a> BatchSeries<'b, 'a> {
    /// Sorted by name, names distinct and not empty, values not empty.
    pub fn labels(&self) -> Cow<'b, [(&'b str, &'b str)]>
    where
        'a: 'b,
    {
        match self.named {
            NamedBy::Labels | NamedBy::Text(_) => Cow::Borrowed(self.labels),
            NamedBy::Known(series) => series.labels().iter().map(|l| (&*l.name, &*l.value)).collect(),
        }
    }
}

impl<'a> Batch<'a> {
    /// The most series of one batch.
    pub const SERIES_FULL: usize = 16_384;

    /// An empty batch that holds labels to these limits.
    pub fn new(limits: LabelLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds a label to the series being built.
    pub fn label(&mut self, name: &'a str, value: &'a str) {
        self.labels.push((name, value));
    }

    /// Adds a sample to the series being built.
    pub fn sample(&mut self, time_ms: i64, value: f64) {
        self.samples.push((time_ms, value));
    }

    /// Ends the series being built; a refused one leaves no trace.
    ///
    /// # Errors
    /// The problem with its labels.
    pub fn end_series(&mut self) -> Result<(), LabelProblem> {
        self.end_series_named(NamedBy::Labels)
    }

    /// The same for a series whose labels were read from a text.
    ///
    /// # Errors
    /// The problem with its labels.
    pub fn end_series_of(&mut self, text: &'a str) -> Result<(), LabelProblem> {
        self.end_series_named(NamedBy::Text(text))
    }

    /// Adds a series that is known.
    pub fn known_series(&mut self, series: Arc<Series>) {
        let (labels, samples) = (self.labels.len(), self.samples.len());
        self.ends.push(End { labels, samples, named: NamedBy::Known(series) });
    }

    fn end_series_named(&mut self, named: NamedBy<'a>) -> Result<(), LabelProblem> {
        let (labels_from, samples_from) = self.ends.last().map_or((0, 0), |end| (end.labels, end.samples));
        let own = self.labels.get_mut(labels_from..).unwrap_or_default();
        if let Err(problem) = self.limits.check(own) {
            self.labels.truncate(labels_from);
            self.samples.truncate(samples_from);
            return Err(problem);
        }
        if own.iter().any(|(_, value)| value.is_empty()) {
            let kept: Vec<_> = own.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
            self.labels.truncate(labels_from);
            self.labels.extend(kept);
        }
        self.ends.push(End { labels: self.labels.len(), samples: self.samples.len(), named });
        Ok(())
    }

    /// Counts a series that is refused, with its samples; the others of the batch are taken.
    pub fn refuse(&mut self, labels: &[(&str, &str)], samples: u64, why: &LabelProblem) {
        self.refused.series += 1;
        self.refused.samples += samples;
        self.refused.first.get_or_insert_with(|| format!("{why}: {}", shown(labels)));
    }

    /// Notes exemplars, which are not stored.
    pub fn refuse_exemplars(&mut self, exemplars: u64) {
        self.exemplars += exemplars;
    }

    /// Exemplars that were not taken.
    pub fn refused_exemplars(&self) -> u64 {
        self.exemplars
    }

    /// Adds the metadata of a metric.
    pub fn describe(&mut self, metric: &'a str, field: MetadataField<'a>) {
        self.metadata.push((metric, field));
    }

    /// Metadata of metrics.
    pub fn metadata(&self) -> &[(&'a str, MetadataField<'a>)] {
        &self.metadata
    }

    /// Gives series that were ended without samples theirs: the number of the series, time and value of each. The order
    /// within a series stays.
    pub fn distribute(&mut self, samples: &[(u32, i64, f64)]) {
        let mut ends = vec![0_usize; self.ends.len() + 1];
        for (series, ..) in samples {
            if let Some(count) = ends.get_mut(*series as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut ends {
            sum += *start;
            *start = sum;
        }
        // From here on each entry is where the next sample of its series goes, and in the end where they end.
        self.samples.clear();
        self.samples.resize(sum, (0, 0.0));
        for (series, time, value) in samples {
            let Some(next) = ends.get_mut(*series as usize) else { continue };
            if let Some(place) = self.samples.get_mut(*next) {
                *place = (*time, *value);
            }
            *next += 1;
        }
        for (end, samples_end) in self.ends.iter_mut().zip(ends) {
            end.samples = samples_end;
        }
    }

    /// Those that were not taken.
    pub fn refused(&self) -> &RefusedSeries {
        &self.refused
    }

    /// Whether the next sample should go into another batch.
    pub fn is_full(&self) -> bool {
        self.is_full_with(self.samples.len())
    }

    /// The same with this number of samples.
    pub fn is_full_with(&self, samples: usize) -> bool {
        self.ends.len() >= Self::SERIES_FULL
            || self.labels.len() >= LABELS_FULL
            || samples >= SAMPLES_FULL
            || self.metadata.len() >= METADATA_FULL
    }

    /// The series, in order.
    pub fn series(&self) -> impl Iterator<Item = BatchSeries<'_, 'a>> {
        let starts = std::iter::once((0, 0)).chain(self.ends.iter().map(|end| (end.labels, end.samples)));
        starts.zip(&self.ends).map(|((labels, samples), end)| BatchSeries {
            labels: self.labels.get(labels..end.labels).unwrap_or_default(),
            named: &end.named,
            samples: self.samples.get(samples..end.samples).unwrap_or_default(),
        })
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Enough of labels to find their series by.
pub fn shown(labels: &[(&str, &str)]) -> String {
    let mut text = "{".to_owned();
    for (i, (name, value)) in labels.iter().enumerate() {
        if text.len() > 300 {
            text.push('…');
            break;
        }
        let comma = if i > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{}={:?}", beginning(name), beginning(value));
    }
    text.push('}');
    text
}

/// Enough of a long text to recognise it.
fn beginning(text: &str) -> String {
    text.chars().take(64).collect()
}
