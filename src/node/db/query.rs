//! Queries that need no samples: cost, names, values, series.

use std::{collections::BTreeSet, sync::Arc};

use roaring::RoaringBitmap;

use super::{Db, cursor::translate};
use crate::{
    base::TimeRange,
    node::{
        head::Series,
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

impl Db {
    pub(super) fn resolve(&self, matchers: &[index::Matcher]) -> Vec<Arc<Series>> {
        let registry = self.registry();
        registry.index().resolve(matchers).iter().filter_map(|id| registry.get(id).cloned()).collect()
    }

    fn shown(&self, window: TimeRange) -> TimeRange {
        TimeRange { start: window.start.max(self.oldest()), end: window.end }
    }

    /// The exact series and samples that reading the selection would take.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn query_cost(&self, matchers: &[Matcher], window: TimeRange) -> Result<Cost, BadMatcher> {
        let window = self.shown(window);
        let mut cost = Cost::default();
        for series in self.resolve(&translate(matchers)?) {
            let (blocks, samples) = series.count(window);
            cost.series += u64::from(samples > 0);
            cost.blocks += blocks;
            cost.samples += samples;
        }
        Ok(cost)
    }

    /// How many series a list is made from: those that satisfy any of the selectors, whatever their samples.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn candidates(&self, selectors: &[Vec<Matcher>]) -> Result<u64, BadMatcher> {
        let compiled = compile(selectors)?;
        Ok(union(self.registry().index(), &compiled).len())
    }

    /// The series that satisfy any of the selectors (all when there is none) and have samples in the window, sorted.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn series(
        &self,
        selectors: &[Vec<Matcher>],
        window: TimeRange,
        limit: usize,
    ) -> Result<Listing<Labels>, BadMatcher> {
        let window = self.shown(window);
        let mut found: BTreeSet<Labels> = BTreeSet::new();
        for series in self.present(selectors, window)? {
            found.insert(series.labels().clone());
            // The smallest stay, one more than asked for, which shows that there were more.
            if found.len() > limit.saturating_add(1) {
                found.pop_last();
            }
        }
        Ok(Listing::of(found.into_iter().collect(), limit))
    }

    /// Sorted names of labels among the series of the selectors in the window.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        window: TimeRange,
        limit: usize,
    ) -> Result<Listing<Arc<str>>, BadMatcher> {
        let ids = self.present_ids(selectors, window)?;
        let names = self.registry().index().label_names(Some(&ids), limit.saturating_add(1));
        Ok(Listing::of(names, limit))
    }

    /// Sorted values of a label among the series of the selectors in the window.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn label_values(
        &self,
        name: &str,
        selectors: &[Vec<Matcher>],
        window: TimeRange,
        limit: usize,
    ) -> Result<Listing<Arc<str>>, BadMatcher> {
        let ids = self.present_ids(selectors, window)?;
        let values = self.registry().index().label_values(name, Some(&ids), limit.saturating_add(1));
        Ok(Listing::of(values, limit))
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

    fn present(&self, selectors: &[Vec<Matcher>], window: TimeRange) -> Result<Vec<Arc<Series>>, BadMatcher> {
        let compiled = compile(selectors)?;
        let candidates: Vec<Arc<Series>> = {
            let registry = self.registry();
            union(registry.index(), &compiled).iter().filter_map(|id| registry.get(id).cloned()).collect()
        };
        Ok(candidates.into_iter().filter(|s| s.touches(window)).collect())
    }

    fn present_ids(
        &self,
        selectors: &[Vec<Matcher>],
        window: TimeRange,
    ) -> Result<RoaringBitmap, BadMatcher> {
        let window = self.shown(window);
        Ok(self.present(selectors, window)?.iter().map(|series| series.id()).collect())
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
