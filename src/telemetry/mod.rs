//! Floor 1: Weir's own metrics, log lines, traces and profiles.

pub mod log;
pub mod memory_limit;
pub mod metrics;
pub mod otlp;
pub mod process;
pub mod profile;
mod tenants;

pub use metrics::Metrics;
