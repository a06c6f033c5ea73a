//! Floor 1: what Weir tells about itself, as metrics, as log lines and as profiles.

pub mod log;
pub mod metrics;
mod process;
pub mod profile;
mod tenants;

pub use metrics::Metrics;
