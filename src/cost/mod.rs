//! What a query will cost, before it runs: pure arithmetic over its [`Shape`](crate::promql::shape::Shape) and what
//! is known of its selectors. No I/O; what asks a database lives in `backend`.

mod estimate;
pub mod explain;
mod knowledge;
mod label_table;
mod learned;
mod model;

pub use estimate::{Estimate, SelectorEstimate, estimate};
pub use knowledge::{SeriesKnowledge, Source};
pub use label_table::{LabelTable, TableError};
pub use learned::{LearnKey, Learned, LearnedError, Observed};
pub use model::{Model, ModelKind, UNKNOWN_SERIES, Unknown};
