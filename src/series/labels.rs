//! Label sets: sorted by name, without empty values, cheap to clone.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The label that holds the name of a metric.
pub const METRIC_NAME: &str = "__name__";
/// The label that holds the upper bound of a histogram's bucket.
pub const BUCKET: &str = "le";

/// One label.
#[derive(Clone)]
pub struct Label {
    /// Its name.
    pub name: Arc<str>,
    /// Its value, never empty inside [`Labels`].
    pub value: Arc<str>,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        // Labels of stored series share their text.
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.name, &other.name) && same(&self.value, &other.value)
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.name.hash(hasher);
        self.value.hash(hasher);
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |a: &Arc<str>, b: &Arc<str>| if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) };
        order(&self.name, &other.name).then_with(|| order(&self.value, &other.value))
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A label set; ordered as Prometheus orders series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl FromIterator<Label> for Labels {
    /// Sorts, and drops empty values; of labels with the same name the first stays.
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut labels: Vec<Label> = labels.into_iter().filter(|l| !l.value.is_empty()).collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels.dedup_by(|b, a| a.name == b.name);
        Self(labels.into())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(labels: I) -> Self {
        labels.into_iter().map(|(name, value)| Label { name: name.into(), value: value.into() }).collect()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Labels {
    /// The labels, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// Bytes of memory that they take, shared with others or not.
    pub fn bytes(&self) -> usize {
        // A shared string or list has two counts in front.
        const COUNTS: usize = 16;
        let texts = |label: &Label| 2 * COUNTS + label.name.len() + label.value.len();
        self.iter().map(|label| size_of::<Label>() + texts(label)).sum::<usize>() + COUNTS
    }

    /// The value of a label, empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .binary_search_by(|l| (*l.name).cmp(name))
            .map_or("", |i| self.0.get(i).map_or("", |l| &l.value))
    }

    /// The metric name, empty when there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// The labels whose names satisfy `keep`.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.0.iter().all(|l| keep(&l.name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|l| keep(&l.name)).cloned().collect())
    }

    /// Only the named labels.
    #[must_use]
    pub fn only(&self, names: &[Box<str>]) -> Self {
        self.filtered(|name| names.iter().any(|n| **n == *name))
    }

    /// All but the named labels and the metric name.
    #[must_use]
    pub fn except(&self, names: &[Box<str>]) -> Self {
        self.filtered(|name| name != METRIC_NAME && !names.iter().any(|n| **n == *name))
    }

    /// Without the labels that describe the metric rather than the series: its name, type and unit.
    #[must_use]
    pub fn without_metadata(&self) -> Self {
        self.filtered(|name| !matches!(name, METRIC_NAME | "__type__" | "__unit__"))
    }

    /// With one label set; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        if self.get(name) == value {
            return self.clone();
        }
        let at = self.0.partition_point(|l| *l.name < *name);
        let (before, rest) = self.0.split_at(at);
        let after = rest.split_first().filter(|(l, _)| *l.name == *name).map_or(rest, |(_, after)| after);
        let set = (!value.is_empty()).then(|| Label { name: name.into(), value: value.into() });
        let all: Vec<Label> = before.iter().cloned().chain(set).chain(after.iter().cloned()).collect();
        Self(all.into())
    }

    /// A number that depends on nothing but the labels, spread over all of `u64`; the same on every machine.
    pub fn stable_hash(&self) -> u64 {
        // FNV-1a, then a finalizer: FNV alone leaves the high bits of short keys uneven.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes.iter().chain([&0xff]) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for label in self {
            eat(label.name.as_bytes());
            eat(label.value.as_bytes());
        }
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let plain = label.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if plain && !label.name.starts_with(|c: char| c.is_ascii_digit()) {
                write!(f, "{comma}{}={:?}", label.name, &*label.value)?;
            } else {
                write!(f, "{comma}{:?}={:?}", &*label.name, &*label.value)?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}", self.name, &*self.value)
    }
}
