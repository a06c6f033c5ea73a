//! Reading for the engine.

use std::sync::Arc;

use super::Db;
use crate::{
    base::TimeRange,
    node::{
        engine::{Labels, Samples, SeriesCursor, Storage, StorageError},
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

struct Cursor {
    series: std::vec::IntoIter<Arc<Series>>,
    window: TimeRange,
}

impl SeriesCursor for Cursor {
    fn next(&mut self, into: &mut Samples) -> Result<Option<Labels>, StorageError> {
        for series in self.series.by_ref() {
            into.clear();
            series.runs().collect(self.window, into);
            if !into.is_empty() {
                return Ok(Some(series.labels().clone()));
            }
        }
        into.clear();
        Ok(None)
    }
}

impl Storage for Db {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        window: TimeRange,
    ) -> Result<Box<dyn SeriesCursor + 'a>, StorageError> {
        let matchers = translate(matchers).map_err(|bad| StorageError::Matcher(bad.0))?;
        // What is older than the retention is gone for readers at once, whenever it is cleared away.
        let window = TimeRange { start: window.start.max(self.oldest()), end: window.end };
        Ok(Box::new(Cursor { series: self.resolve(&matchers).into_iter(), window }))
    }
}
