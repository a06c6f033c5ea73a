//! The cost of a query before it runs: pure arithmetic over its [`Shape`](crate::promql::shape::Shape) and the
//! known counts of its selectors. No I/O; probes live in `backend`.

mod distinct;
mod estimate;
mod estimator;
pub mod explain;
mod history;
mod interpret;
mod knowledge;
mod label_table;
mod limits;
mod metric_types;
mod model;
mod split;
mod subject;
mod tree;

#[cfg(test)]
mod tests;

pub use distinct::ValuesNeed;
pub use estimate::{Estimated, Knowledge, SelectorEstimate, estimate, is_free};
pub use estimator::{Count, Estimator, Need, ProbeNeed, TypeNeed};
pub use history::{History, HistoryError, HistoryKey, Remembered};
pub use knowledge::{SampleType, SeriesKnowledge, Source};
pub use label_table::{LabelTable, MAX_AGE_MS as LABEL_TABLE_MAX_AGE_MS, TableError};
pub use limits::{CostLimit, CostLimits, Verdict};
pub use metric_types::MetricTypes;
pub use model::{Model, UNKNOWN_SERIES, Unknown};
pub use split::{MERGED_MAX, PARTS_COUNTED, QuerySplit};
pub use subject::Subject;
pub use tree::{NodeEstimate, tree};
