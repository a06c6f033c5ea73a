//! A backend's distress: its own metrics and its memory.
//!
//! ```text
//! /metrics ─ reading ──────────────┐
//! memory above its level at rest ──┴▶ pressure 0 to 1 by signal ──┬▶ Distress ─▶ the window of `limit`
//! memory against admitted estimates ──────────▶ underestimate ───┘
//! ```
//!
//! All of it is plain functions over text, values and a clock; [`Backend::metrics_pages`] only fetches.

mod baseline;
mod estimates;
mod head_removals;
mod histograms;
mod memory;
mod monitor;
mod page;
mod program;
mod rate;
mod reading;
mod settings;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use head_removals::HeadRemovals;
pub use histograms::takes_histograms;
pub use memory::Level;
pub use monitor::{Monitor, Observation, Reading};
pub use program::kinds_of_page;
pub use settings::{OnStale, Settings};

use super::Backend;

/// A Go process may hold the memory of a query that ended up to 10 s ago; an observation counts for as long.
const HELD_FOR: Duration = Duration::from_secs(10);

impl Backend {
    /// The metrics page of each replica, all fetched at a time; `None` where none came by the deadline.
    pub async fn metrics_pages(&self, deadline: Instant) -> Vec<Option<Bytes>> {
        futures_util::future::join_all(
            self.replicas.iter().map(|replica| self.metrics_page(replica, deadline)),
        )
        .await
    }
}

#[cfg(test)]
mod tests;
