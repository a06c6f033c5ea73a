//! What is to be written: many series with their samples, labels borrowed from the request.

use std::fmt;

/// What labels may be.
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

/// Why a label set is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelProblem {
    /// A label without a name.
    EmptyName,
    /// The same name twice.
    Duplicate(String),
    /// No labels at all, or only empty ones.
    NoLabels,
    /// More labels than allowed: how many.
    TooMany(usize),
    /// A name longer than allowed: its beginning and length in bytes.
    NameTooLong(String, usize),
    /// A value longer than allowed: the label's name and the length in bytes.
    ValueTooLong(String, usize),
}

impl fmt::Display for LabelProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyName => f.write_str("a label has an empty name"),
            Self::Duplicate(name) => write!(f, "label name {name:?} is not unique"),
            Self::NoLabels => f.write_str("a series has no labels"),
            Self::TooMany(count) => write!(f, "a series has {count} labels, too many"),
            Self::NameTooLong(head, bytes) => write!(f, "label name {head:?}… of {bytes} bytes is too long"),
            Self::ValueTooLong(name, bytes) => {
                write!(f, "the value of label {name:?} is too long: {bytes} bytes")
            }
        }
    }
}

impl std::error::Error for LabelProblem {}

/// Series and samples to write, in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    labels: Vec<(&'a str, &'a str)>,
    samples: Vec<(i64, f64)>,
    /// Where the labels and samples of each series end.
    ends: Vec<(usize, usize)>,
    limits: LabelLimits,
}

/// One series of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeries<'b, 'a> {
    /// Sorted by name, names distinct and not empty, values not empty.
    pub labels: &'b [(&'a str, &'a str)],
    /// Time in milliseconds and value.
    pub samples: &'b [(i64, f64)],
}

impl<'a> Batch<'a> {
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
    /// What is wrong with its labels.
    pub fn end_series(&mut self) -> Result<(), LabelProblem> {
        let (labels_from, samples_from) = self.ends.last().copied().unwrap_or_default();
        match self.check(labels_from) {
            Ok(()) => {
                self.ends.push((self.labels.len(), self.samples.len()));
                Ok(())
            }
            Err(problem) => {
                self.labels.truncate(labels_from);
                self.samples.truncate(samples_from);
                Err(problem)
            }
        }
    }

    fn check(&mut self, from: usize) -> Result<(), LabelProblem> {
        let limits = self.limits;
        let own = self.labels.get_mut(from..).unwrap_or_default();
        if own.len() > limits.labels {
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
            if name.len() > limits.name_bytes {
                return Err(LabelProblem::NameTooLong(beginning(name), name.len()));
            }
            if value.len() > limits.value_bytes {
                return Err(LabelProblem::ValueTooLong(beginning(name), value.len()));
            }
        }
        if own.iter().any(|(_, value)| value.is_empty()) {
            let kept: Vec<_> = own.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
            self.labels.truncate(from);
            self.labels.extend(kept);
        }
        if self.labels.len() == from { Err(LabelProblem::NoLabels) } else { Ok(()) }
    }

    /// The series, in order.
    pub fn series(&self) -> impl Iterator<Item = BatchSeries<'_, 'a>> {
        let starts = std::iter::once((0, 0)).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|((labels, samples), end)| BatchSeries {
            labels: self.labels.get(labels..end.0).unwrap_or_default(),
            samples: self.samples.get(samples..end.1).unwrap_or_default(),
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

/// Enough of a long text to recognise it.
fn beginning(text: &str) -> String {
    text.chars().take(64).collect()
}
