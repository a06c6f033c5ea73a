//! The series that carry each label: label → value → postings.
//!
//! Values are kept sorted, so that a literal, an alternation or a prefix of a pattern is looked up; only the rest of a
//! pattern is held against values. A label that a series lacks is an empty one, as in Prometheus.

mod matcher;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use roaring::{MultiOps as _, RoaringBitmap};

pub use matcher::{BadMatcher, Matcher};
pub use status::{Count, Key, Status, bytes as status_bytes};

use matcher::Test;

/// Number of a series; small and dense, because postings hold it.
pub type SeriesId = u32;

/// Series by label.
#[derive(Clone, Debug, Default)]
pub struct Index {
    all: RoaringBitmap,
    names: BTreeMap<Arc<str>, Values>,
}

/// The values and postings of one label name.
#[derive(Clone, Debug, Default)]
struct Values {
    /// Every series that has the label.
    all: RoaringBitmap,
    postings: BTreeMap<Arc<str>, RoaringBitmap>,
}

impl Index {
    /// Adds a series. Labels with an empty value count as absent.
    pub fn insert<'a>(
        &mut self,
        id: SeriesId,
        labels: impl IntoIterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
    ) {
        self.all.insert(id);
        for (name, value) in labels {
            if value.is_empty() {
                continue;
            }
            let values = self.names.entry(Arc::clone(name)).or_default();
            values.all.insert(id);
            values.postings.entry(Arc::clone(value)).or_default().insert(id);
        }
    }

    /// Forgets a series; `labels` are those it was inserted with.
    pub fn remove<'a>(&mut self, id: SeriesId, labels: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.all.remove(id);
        for (name, value) in labels {
            let Some(values) = self.names.get_mut(name) else { continue };
            values.all.remove(id);
            if let Some(postings) = values.postings.get_mut(value) {
                postings.remove(id);
                if postings.is_empty() {
                    values.postings.remove(value);
                }
            }
            if values.all.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// The strings already held for a label, so that equal text is kept in memory once.
    pub fn interned(&self, name: &str, value: &str) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let Some((held, values)) = self.names.get_key_value(name) else { return (None, None) };
        (Some(Arc::clone(held)), values.postings.get_key_value(value).map(|(v, _)| Arc::clone(v)))
    }

    /// Number of series.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Every series.
    pub fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The series that satisfy all matchers.
    pub fn resolve(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut kept: Option<RoaringBitmap> = None;
        let mut dropped: Vec<RoaringBitmap> = Vec::new();
        for matcher in matchers {
            let values = self.names.get(matcher.name());
            let found = values.map(|v| v.accepted_by(matcher.test())).unwrap_or_default();
            // A matcher that accepts a missing label drops the values that it rejects; any other keeps its matches.
            if matcher.accepts("") {
                dropped.push(if matcher.negative() { found } else { without(values, &found) });
            } else {
                let set = if matcher.negative() { without(values, &found) } else { found };
                kept = Some(match kept {
                    Some(kept) => kept & set,
                    None => set,
                });
                if kept.as_ref().is_some_and(RoaringBitmap::is_empty) {
                    return RoaringBitmap::new();
                }
            }
        }
        let mut kept = kept.unwrap_or_else(|| self.all.clone());
        for set in dropped {
            kept -= set;
        }
        kept
    }

    /// Sorted names of the labels that any of `among` carries (all series when `None`), at most `limit`.
    pub fn label_names(&self, among: Option<&RoaringBitmap>, limit: usize) -> Vec<Arc<str>> {
        let shown = self.names.iter().filter(|(_, v)| among.is_none_or(|a| !a.is_disjoint(&v.all)));
        listed(shown.map(|(name, _)| name), limit.min(self.names.len()))
    }

    /// Sorted values of a label among the given series (all when `None`), at most `limit`.
    pub fn label_values(&self, name: &str, among: Option<&RoaringBitmap>, limit: usize) -> Vec<Arc<str>> {
        let values = self.names.get(name).into_iter().flat_map(|v| &v.postings);
        let shown = values.filter(|(_, ids)| among.is_none_or(|a| !a.is_disjoint(ids)));
        listed(shown.map(|(value, _)| value), limit.min(self.labels(Some(name))))
    }

    /// How many names of labels there are, or values of one label.
    pub fn labels(&self, name: Option<&str>) -> usize {
        let Some(name) = name else { return self.names.len() };
        self.names.get(name).map_or(0, |values| values.postings.len())
    }

    /// The tables of Prometheus' `status/tsdb`: the `top` largest of each kind among the given series, or all.
    pub fn status(&self, among: Option<&RoaringBitmap>, top: usize) -> Status {
        status::of(self, among, top)
    }
}

/// A list of at most `limit` texts, which takes its memory at once.
fn listed<'a>(texts: impl Iterator<Item = &'a Arc<str>>, limit: usize) -> Vec<Arc<str>> {
    let mut list = Vec::with_capacity(limit);
    list.extend(texts.take(limit).cloned());
    list
}

/// The series that have the label, but none of the values found.
fn without(values: Option<&Values>, found: &RoaringBitmap) -> RoaringBitmap {
    values.map(|v| &v.all - found).unwrap_or_default()
}

impl Values {
    fn accepted_by(&self, test: &Test) -> RoaringBitmap {
        match test {
            Test::Any => self.all.clone(),
            Test::OneOf(set) => set.iter().filter_map(|v| self.postings.get(&**v)).union(),
            Test::Prefixed { prefixes, regex } => {
                let scanned = prefixes.iter().flat_map(|p| self.starting_with(p));
                scanned.filter(|(value, _)| regex.is_match(value)).map(|(_, ids)| ids).union()
            }
            Test::Pattern(regex) => {
                self.postings.iter().filter(|(value, _)| regex.is_match(value)).map(|(_, ids)| ids).union()
            }
        }
    }

    fn starting_with<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a RoaringBitmap)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.postings.range::<str, _>(from).take_while(move |(value, _)| value.starts_with(prefix))
    }
}
