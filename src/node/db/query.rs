//! Queries that need no samples: cost, names, values, series.

use std::{collections::BinaryHeap, ops::Bound, sync::Arc};

use roaring::RoaringBitmap;

use super::{Db, cursor::translate};
use crate::{
    base::TimeRange,
    node::{
        head::{Description, Series},
        index::{self, BadMatcher},
    },
    series::{Labels, Matcher},
};

/// The volume of a selection, counted without looking at a sample's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Series with samples in the window.
    pub series: u64,
    /// Series times the blocks that hold samples of them in the window; memory counts as one block.
    pub blocks: u64,
    /// Samples in the window.
    pub samples: u64,
}

/// A list that may have been cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The items found, at most the number asked for.
    pub items: Vec<T>,
    /// Whether there is more.
    pub cut: bool,
}

impl<T> Listing<T> {
    fn of(mut items: Vec<T>, limit: usize) -> Self {
        let cut = items.len() > limit;
        items.truncate(limit);
        Self { items, cut }
    }
}

/// The series that a list is made from: those that satisfy any of its selectors, with samples or without.
#[derive(Clone, Debug)]
pub struct Candidates(RoaringBitmap);

impl Candidates {
    /// How many there are.
    pub fn series(&self) -> usize {
        usize::try_from(self.0.len()).unwrap_or(usize::MAX)
    }
}

/// Series that are looked at between two locks of the registry.
const VISITED: usize = 256;

impl Db {
    /// Metadata of one metric or of all, by metric. Each is copied when it is asked for, so that a list takes no memory.
    pub fn metadata(
        self: &Arc<Self>,
        metric: Option<&str>,
    ) -> impl Iterator<Item = (String, Description)> + use<> {
        let (db, one, mut last) = (Arc::clone(self), metric.map(str::to_owned), None::<String>);
        std::iter::from_fn(move || {
            let from = match (&last, &one) {
                (None, None) => Bound::Unbounded,
                (None, Some(metric)) => Bound::Included(metric.as_str()),
                (Some(last), _) => Bound::Excluded(last.as_str()),
            };
            let held = db.metadata.lock();
            let (name, description) = held.by_metric().range::<str, _>((from, Bound::Unbounded)).next()?;
            let wanted = one.as_ref().is_none_or(|metric| metric == name);
            let found = wanted.then(|| (name.clone(), description.clone()));
            drop(held);
            last = found.as_ref().map(|(name, _)| name.clone());
            found
        })
    }

    pub(super) fn resolve(&self, matchers: &[index::Matcher]) -> Vec<Arc<Series>> {
        let registry = self.registry();
        let ids = registry.index().resolve(matchers);
        // A list that grows takes up to twice its length, and the list before beside it.
        let mut series = Vec::with_capacity(usize::try_from(ids.len()).unwrap_or_default());
        series.extend(ids.iter().filter_map(|id| registry.get(id).cloned()));
        series
    }

    fn shown(&self, window: TimeRange) -> TimeRange {
        TimeRange { start: window.start.max(self.oldest()), end: window.end }
    }

    /// Most bytes that a set of series takes; a selection makes two of them at a time for each of its matchers.
    pub fn set_bytes(&self) -> u64 {
        // A roaring bitmap takes 8 KiB at most for each 65,536 numbers, and those of series are dense.
        (self.registry().len() as u64).div_ceil(1 << 16) * (8 << 10)
    }

    /// Shows each of the series that still exists, without a lock on the registry.
    fn visit(&self, ids: &RoaringBitmap, mut show: impl FnMut(&Arc<Series>)) {
        let mut ids = ids.iter().peekable();
        let mut some = Vec::with_capacity(VISITED);
        while ids.peek().is_some() {
            let registry = self.registry();
            some.extend(ids.by_ref().take(VISITED).filter_map(|id| registry.get(id).cloned()));
            drop(registry);
            some.drain(..).for_each(|series| show(&series));
        }
    }

    /// The series, chunks and samples that reading the selection would touch.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn query_cost(&self, matchers: &[Matcher], window: TimeRange) -> Result<Cost, BadMatcher> {
        let window = self.shown(window);
        let matchers = translate(matchers)?;
        let ids = self.registry().index().resolve(&matchers);
        let mut cost = Cost::default();
        self.visit(&ids, |series| {
            let (blocks, samples) = series.count(window);
            cost.series += u64::from(samples > 0);
            cost.blocks += blocks;
            cost.samples += samples;
        });
        Ok(cost)
    }

    /// The series that satisfy any of the selectors; all when there is none.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn candidates(&self, selectors: &[Vec<Matcher>]) -> Result<Candidates, BadMatcher> {
        let compiled = compile(selectors)?;
        Ok(Candidates(union(self.registry().index(), &compiled)))
    }

    /// The labels of the candidates with samples in the window, sorted. The list takes its memory at once, for `limit` and one
    /// more, or for all candidates.
    pub fn series(&self, candidates: &Candidates, window: TimeRange, limit: usize) -> Listing<Labels> {
        let window = self.shown(window);
        let most = limit.saturating_add(1);
        let mut found = BinaryHeap::with_capacity(candidates.series().min(most));
        self.visit(&candidates.0, |series| {
            if !series.touches(window) {
                return;
            }
            // The smallest stay, one more than asked for, which shows that there were more.
            if found.len() < most {
                found.push(series.labels().clone());
            } else if let Some(mut largest) = found.peek_mut()
                && *series.labels() < *largest
            {
                *largest = series.labels().clone();
            }
        });
        Listing::of(found.into_sorted_vec(), limit)
    }

    /// Sorted names of labels among the candidates with samples in the window. The list takes no more than
    /// [`labels`](Self::labels) entries.
    pub fn label_names(&self, candidates: &Candidates, window: TimeRange, limit: usize) -> Listing<Arc<str>> {
        let ids = self.present(candidates, window);
        Listing::of(self.registry().index().label_names(Some(&ids), limit.saturating_add(1)), limit)
    }

    /// Sorted values of a label among the candidates with samples in the window, likewise.
    pub fn label_values(
        &self,
        name: &str,
        candidates: &Candidates,
        window: TimeRange,
        limit: usize,
    ) -> Listing<Arc<str>> {
        let ids = self.present(candidates, window);
        Listing::of(self.registry().index().label_values(name, Some(&ids), limit.saturating_add(1)), limit)
    }

    /// How many names of labels there are, or values of one label.
    pub fn labels(&self, name: Option<&str>) -> usize {
        self.registry().index().labels(name)
    }

    /// Cardinality at a glance, of all series or of those that satisfy any of the selectors.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn tsdb_status(&self, selectors: &[Vec<Matcher>], top: usize) -> Result<index::Status, BadMatcher> {
        let compiled = compile(selectors)?;
        let registry = self.registry();
        let among = (!compiled.is_empty()).then(|| union(registry.index(), &compiled));
        Ok(registry.index().status(among.as_ref(), top))
    }

    /// The candidates with samples in the window.
    fn present(&self, candidates: &Candidates, window: TimeRange) -> RoaringBitmap {
        let window = self.shown(window);
        let mut present = RoaringBitmap::new();
        self.visit(&candidates.0, |series| {
            if series.touches(window) {
                present.insert(series.id());
            }
        });
        present
    }
}

fn compile(selectors: &[Vec<Matcher>]) -> Result<Vec<Vec<index::Matcher>>, BadMatcher> {
    selectors.iter().map(|matchers| translate(matchers)).collect()
}

fn union(index: &index::Index, selectors: &[Vec<index::Matcher>]) -> RoaringBitmap {
    if selectors.is_empty() {
        return index.all().clone();
    }
    selectors.iter().map(|matchers| index.resolve(matchers)).fold(RoaringBitmap::new(), |a, b| a | b)
}
