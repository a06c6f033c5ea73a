//! A backend's own distress, from 0 to 1, and the share of its budget that it leaves.
//!
//! ```text
//! /metrics ─ reading ─▶ pressure 0..1 ─ controller ─▶ share of the budget
//! ```
//!
//! Reading and controlling are plain functions over text, values and a clock; [`Backend::read_pressure`] only fetches.

mod controller;
mod reading;

use http::uri::PathAndQuery;
use tokio::time::Instant;

pub use controller::{Controller, HIGH, LOW, OnStale};
pub use reading::{Reading, read};

use super::Backend;

/// The longest metrics page that is read.
const PAGE_MAX: usize = 8 << 20;

impl Backend {
    /// The pressure of the most distressed replica; `None` when none says anything.
    ///
    /// `memory_limit` is the limit in bytes for backends that do not tell their own.
    pub async fn read_pressure(&self, memory_limit: Option<u64>, deadline: Instant) -> Option<Reading> {
        let path = PathAndQuery::from_static("/metrics");
        let mut worst: Option<Reading> = None;
        for replica in self.replicas.iter() {
            let Some((true, page)) = self.ask_own(replica, &path, deadline, PAGE_MAX).await else { continue };
            let Ok(page) = std::str::from_utf8(&page) else { continue };
            let reading = read(self.kind(), page, memory_limit);
            worst = worst.into_iter().chain(reading).max_by(|a, b| a.pressure.total_cmp(&b.pressure));
        }
        worst
    }
}

#[cfg(test)]
mod tests;
