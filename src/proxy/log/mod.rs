//! One record for each query: its line in the log, its span, its place on the page *Now*.

mod active;
pub(super) mod audit;
mod fields;
mod holder;
mod origin;
mod owner;
mod query_log;
mod recent_tenants;
mod record;
mod rejection;
mod sampled;
mod selection;
mod span;
mod stage;

pub use active::QueryState;
pub use audit::Author;
pub use origin::Origin;
pub use rejection::Refused;
pub use selection::Selection;

pub(crate) use active::{ActiveQueries, ActiveQuery, cut};
pub(crate) use owner::Owner;
pub(crate) use recent_tenants::TenantCounts;

pub(super) use active::ActiveGuard;
pub(super) use query_log::{QueryLog, QueryLogs};
pub(super) use rejection::Rejection;
pub(super) use sampled::SampledLines;
