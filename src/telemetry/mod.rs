//! Floor 1: what Weir tells about itself, as metrics and as log lines.

pub mod log;
pub mod metrics;
mod process;
mod tenants;

pub use metrics::Metrics;
