//! Reading for the engine.

use std::sync::Arc;

use super::Db;
use crate::{
    base::TimeRange,
    node::{
        engine::{Labels, Samples, Selection, Storage, StorageError},
        head::Series,
        index,
    },
    promql::ast::{MatchOp, Matcher},
};

/// The matchers of a query as the index wants them.
pub(super) fn translate(matchers: &[Matcher]) -> Result<Vec<index::Matcher>, index::BadMatcher> {
    let one = |m: &Matcher| {
        let op = match m.op {
            MatchOp::Equal => index::Op::Equal,
            MatchOp::NotEqual => index::Op::NotEqual,
            MatchOp::Regex => index::Op::Regex,
            MatchOp::NotRegex => index::Op::NotRegex,
        };
        index::Matcher::new(&m.name, op, &m.value)
    };
    matchers.iter().map(one).collect()
}

struct Selected {
    series: Vec<Arc<Series>>,
    window: TimeRange,
}

impl Selection for Selected {
    fn series(&self) -> usize {
        self.series.len()
    }

    fn expected(&self, number: usize) -> usize {
        self.series.get(number).map_or(0, |series| series.held().expected(self.window))
    }

    fn stored_bytes(&self, number: usize) -> u64 {
        self.series.get(number).map_or(0, |series| series.held().stored_bytes(self.window))
    }

    fn read(&self, number: usize, into: &mut Samples) -> Result<Option<&Labels>, StorageError> {
        into.clear();
        let Some(series) = self.series.get(number) else { return Ok(None) };
        series.held().collect(self.window, into);
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
        // What is older than the retention is gone for readers at once, whenever it is cleared away.
        let window = TimeRange { start: window.start.max(self.oldest()), end: window.end };
        Ok(Box::new(Selected { series: self.resolve(&matchers), window }))
    }
}
