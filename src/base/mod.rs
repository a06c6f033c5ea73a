//! Floor 0: the types that every other module shares. No runtime, no HTTP, nothing of this crate.

pub mod allocator;
pub mod cors;
pub mod distress;
pub mod duration;
pub mod error;
pub mod files;
pub mod json;
pub mod kind;
pub mod params;
pub mod protobuf;
pub mod query_cost;
pub mod share;
pub mod spelling;
pub mod sync;
pub mod tenant;
pub mod time;
pub mod timestamp;
pub mod units;
mod worker;

pub use error::{Blame, ErrorKind};
pub use kind::Kind;
pub use query_cost::{Confidence, Estimate, LabelSize, QueryCost, TextSize};
pub use tenant::{TenantId, TenantMap, TenantPattern, TenantPrefixes};
pub use time::TimeRange;
pub use timestamp::TimeDialect;
pub use worker::{WORKERS_MAX, WorkerId};
