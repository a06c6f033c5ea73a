//! The abstract values of the interpretation: bounds of a node's result, and the memory alive while it is computed.
//!
//! All arithmetic saturates: `u64::MAX` stands for "more than any limit".

/// Bounds of the result of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// Distinct series over all steps.
    pub(super) series: u64,
    /// Label sets that may take each other's place from step to step, for one series at a time: 1 where series stay.
    pub(super) churn: u64,
    /// Points of one series.
    pub(super) points: u64,
    /// Points of all series together, where they are fewer than series × points: of series that come and go.
    pub(super) present: u64,
    /// Different values among the points of one series.
    pub(super) distinct: u64,
    /// Different values among the points of all series.
    pub(super) domain: u64,
    /// Points have times of their own, where the engine keeps those of a row once.
    pub(super) stamped: bool,
    /// Bytes of one label set.
    pub(super) labels: u64,
    /// Bytes of the longest label value.
    pub(super) longest: u64,
    /// The label sets are new strings, not those of a selector.
    pub(super) fresh: bool,
    /// Labels that the query made.
    pub(super) made: MadeLabels,
    /// Buckets of a native histogram; 0 for floats.
    pub(super) buckets: u64,
    /// Histogram objects of one series, which points may share.
    pub(super) objects: u64,
}

/// Labels that a query made: the backend's table of labels says nothing of their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MadeLabels {
    #[default]
    None,
    /// One label, with at most this many different values.
    Label(&'static str, u64),
    /// Labels of any name.
    Any,
}

impl MadeLabels {
    /// The labels that two operands make.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, made) | (made, Self::None) => made,
            (Self::Label(a, most), Self::Label(b, more)) if a == b => Self::Label(a, most.max(more)),
            _ => Self::Any,
        }
    }
}

impl Value {
    /// One series without labels: a scalar, `vector(1)`, `sum(…)`.
    pub(super) const fn one(points: u64) -> Self {
        Self {
            series: 1,
            churn: 1,
            points,
            present: u64::MAX,
            distinct: points,
            domain: u64::MAX,
            stamped: false,
            labels: 0,
            longest: 0,
            fresh: false,
            made: MadeLabels::None,
            buckets: 0,
            objects: 0,
        }
    }

    /// The same series with one float at each step, under label sets without the metric's name.
    pub(super) fn floats(self, points: u64) -> Self {
        Self {
            points,
            distinct: self.distinct.min(points),
            domain: u64::MAX,
            stamped: false,
            fresh: true,
            buckets: 0,
            objects: 0,
            ..self
        }
    }

    /// Points of all series.
    pub(super) fn all_points(&self) -> u64 {
        times(self.series, self.points).min(self.present)
    }

    /// Bytes of all label sets.
    pub(super) const fn all_labels(&self) -> u64 {
        self.series.saturating_mul(self.labels)
    }

    /// Bytes of the label sets that the node has made, or taken from one that has.
    pub(super) const fn own_labels(&self) -> u64 {
        if self.fresh { self.all_labels() } else { 0 }
    }
}

/// Memory: bytes, and the points among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: u64,
    pub(super) points: u64,
}

impl Load {
    pub(super) const fn bytes(bytes: u64) -> Self {
        Self { bytes, points: 0 }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            points: self.points.saturating_add(other.points),
        }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), points: self.points.max(other.points) }
    }
}

/// A node, priced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Priced {
    pub(super) value: Value,
    /// Alive from the node's end to that of its parent.
    pub(super) held: Load,
    /// The most alive at a time until the node's end.
    pub(super) peak: Load,
    /// Its rows are not in `held`: the consumer takes one series at a time, or holds them itself.
    pub(super) lazy: bool,
}

impl Priced {
    /// A literal: no series, and its bytes.
    pub(super) fn string(text: &str) -> Self {
        let held = Load::bytes(text.len() as u64);
        Self { held, peak: held, ..Self::default() }
    }
}

/// Several operands, evaluated one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operands {
    /// Alive when the last one is there.
    pub(super) held: Load,
    /// The most alive at a time until then.
    pub(super) peak: Load,
    /// Series of all of them.
    pub(super) series: u64,
    /// One of them is yet to be read, series by series.
    pub(super) lazy: bool,
}

impl Operands {
    pub(super) fn then(self, next: &Priced) -> Self {
        Self {
            held: self.held.plus(next.held),
            peak: self.peak.max(self.held.plus(next.peak)),
            series: self.series.saturating_add(next.value.series),
            lazy: self.lazy || next.lazy,
        }
    }
}

/// The product, or the largest number.
pub(super) const fn times(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

/// The sum of all, or the largest number.
pub(super) fn sum<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}
