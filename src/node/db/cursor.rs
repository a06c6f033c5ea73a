//! Reading for the engine.

use std::sync::Arc;

use super::Db;
use crate::{
    base::TimeRange,
    node::{
        head::Series,
        index,
        storage::{Selection, Storage, StorageError},
    },
    series::{Labels, Matcher, Samples},
};

/// The matchers of a query as the index wants them.
pub(super) fn translate(matchers: &[Matcher]) -> Result<Vec<index::Matcher>, index::BadMatcher> {
    matchers.iter().map(|m| index::Matcher::new(&m.name, m.op, &m.value)).collect()
}

struct Selected {
    series: Vec<Arc<Series>>,
    window: TimeRange,
}

impl Selection for Selected {
    fn series(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, number: usize) -> Option<&Labels> {
        self.series.get(number).map(|series| series.labels())
    }

    fn expected(&self, number: usize) -> usize {
        self.series.get(number).map_or(0, |series| series.expected(self.window))
    }

    fn stored_bytes(&self, number: usize) -> u64 {
        self.series.get(number).map_or(0, |series| series.stored_bytes(self.window))
    }

    fn read(&self, number: usize, into: &mut Samples) -> Result<Option<&Labels>, StorageError> {
        into.clear();
        let Some(series) = self.series.get(number) else { return Ok(None) };
        series.collect(self.window, into);
        Ok((!into.is_empty()).then(|| series.labels()))
    }
}

impl Storage for Db {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        window: TimeRange,
    ) -> Result<Box<dyn Selection + 'a>, StorageError> {
        let matchers = translate(matchers).map_err(|bad| StorageError::Matcher(bad.0))?;
        // Samples older than the retention are gone for readers at once, whenever they are cleared away.
        let window = TimeRange { start: window.start.max(self.oldest()), end: window.end };
        Ok(Box::new(Selected { series: self.resolve(&matchers), window }))
    }
}
