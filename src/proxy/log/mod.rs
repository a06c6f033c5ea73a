//! One record for each query: its line in the log, its span, its place on the status page.

pub(super) mod active;
mod origin;
mod query_log;
pub(super) mod recent;
mod span;

pub(super) use origin::Origin;
pub(super) use query_log::{Owner, QueryLog, QueryLogs};
