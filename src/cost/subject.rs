//! A request as the estimator sees it.

use super::{
    Estimated, Knowledge, LabelTable, MetricTypes, Model, QuerySplit, SampleType, SeriesKnowledge, Source,
    UNKNOWN_SERIES, estimate,
};
use crate::{
    base::{Confidence, Estimate},
    promql::{
        enforce::LabelEnforcement,
        shape::{SelectorShape, Shape},
    },
    series::Matcher,
};

/// The subject of an estimate.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its reads.
    pub shape: &'a Shape,
    /// It lists label sets and reads no samples.
    pub listing: bool,
    /// Nothing in it could be read: its selector stands for all that it may read.
    pub opaque: bool,
    /// How it may be split, and the bytes beyond which it is.
    pub split: Option<(&'a QuerySplit, u64)>,
    /// The backend's formulas.
    pub model: &'a Model,
    /// The backend's label table, which bounds the groups of aggregations.
    pub table: Option<&'a LabelTable>,
    /// Bytes of an entry in earlier answers, where it is a listing.
    pub entry_bytes: Option<u64>,
    /// Whether the backend may be asked for the types of samples.
    pub asks_types: bool,
    /// The labels that it is confined to: the table's other counts are of all series, and would say how many others have.
    pub enforced: Option<&'a LabelEnforcement>,
}

impl Subject<'_> {
    /// The price with this knowledge of its selectors.
    pub(super) fn price(&self, known: &[SeriesKnowledge]) -> Estimated {
        // The table's labels and their values are everybody's.
        let table = self.table.filter(|_| self.enforced.is_none());
        let known = Knowledge { series: known, table, entry_bytes: self.entry_bytes };
        let whole = estimate(self.shape, &known, self.model);
        match self.split {
            Some((split, most)) => split.split(whole, &known, self.model, most),
            None => whole,
        }
    }

    /// One entry for each selector, from the label table, `gone_since`, the series that left it since a time, and the
    /// types of metrics; without these the backend holds floats alone.
    pub fn from_table(
        &self,
        types: Option<&MetricTypes>,
        gone_since: impl Fn(i64) -> Option<u64>,
    ) -> Vec<SeriesKnowledge> {
        let unnamed = MetricTypes::default();
        // The names of metrics are everybody's, too: a confined query's are asked for within its labels.
        let types = types.map(|types| if self.enforced.is_some() { &unnamed } else { types });
        let samples = |selector: &SelectorShape| match types {
            Some(types) if !self.listing => types.of(&selector.matchers),
            _ => SampleType::Float,
        };
        let one = |selector| self.series(selector, &gone_since).holding(samples(selector));
        self.shape.selectors.iter().map(one).collect()
    }

    fn series(&self, selector: &SelectorShape, gone_since: impl Fn(i64) -> Option<u64>) -> SeriesKnowledge {
        let (table, window) = (self.table, selector.window);
        let own: Vec<Matcher>;
        let matchers: &[Matcher] = match self.enforced {
            Some(labels) => {
                own = labels.matchers().cloned().collect();
                &own
            }
            None => &selector.matchers,
        };
        if let Some(bound) = table.and_then(|table| table.bound(matchers, window)) {
            return SeriesKnowledge::new(bound, Source::LabelTable);
        }
        // Label browsers list everything; a query of everything is an attack.
        if selector.match_all && !self.listing {
            let unknown = Estimate::new(UNKNOWN_SERIES, Confidence::Assumed);
            return SeriesKnowledge::new(unknown, Source::Assumed);
        }
        let gone = gone_since(window.start);
        let observed = table.zip(gone).and_then(|(table, gone)| table.observed(matchers, window, gone));
        if let Some(observed) = observed {
            return SeriesKnowledge::new(observed, Source::LabelTable);
        }
        let assumed = SeriesKnowledge::assumed(self.model);
        match table.and_then(|table| table.guess(matchers)) {
            Some(guess) if guess > assumed.series.value => {
                SeriesKnowledge::new(Estimate::new(guess, Confidence::Assumed), Source::LabelTable)
            }
            _ => assumed,
        }
    }
}
