//! A backend's own distress, from 0 to 1, and the share of its budget that it leaves.
//!
//! ```text
//! /metrics ─ reading ──┐
//!                      ├▶ pressure 0..1 per signal ─ controller ─┐
//! answers ── answers ──┘                                         ├▶ share of the budget
//! /metrics and what was admitted ─ truth ─▶ error of estimates ──┘
//! ```
//!
//! All of it is plain functions over text, values and a clock; [`Backend::metrics_pages`] only fetches.

mod answers;
mod churn;
mod controller;
mod latency;
mod monitor;
mod page;
mod rate;
mod reading;
mod settings;
mod signal;
mod truth;

use bytes::Bytes;
use tokio::time::Instant;

pub use answers::{Answer, Outcome};
pub use churn::Churn;
pub use controller::{Controller, HIGH, LOW, Sight, Silence};
pub use monitor::{Look, Monitor};
pub use settings::{OnStale, Settings};
pub use signal::{Reading, Signal};
pub use truth::Expected;

use super::Backend;

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
