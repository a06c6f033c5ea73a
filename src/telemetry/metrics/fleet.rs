//! What a proxy shows of its fleet.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, IntCounterVec, IntGauge};

use super::Metrics;

/// The metrics of a fleet; nothing is shown without one.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) up: IntGauge,
    pub(super) learning: IntGauge,
    pub(super) proxies: IntGauge,
    pub(super) leased: GaugeVec,
    pub(super) rounds: IntCounterVec,
    pub(super) seconds: Histogram,
}

impl Metrics {
    /// The store answers or not, has just lost its memory or not, and knows this number of proxies.
    pub fn fleet(&self, up: bool, learning: bool, proxies: u64) {
        self.fleet.up.set(i64::from(up));
        self.fleet.learning.set(i64::from(learning));
        self.fleet.proxies.set(proxies as i64);
    }

    /// One round trip to the store, with an answer or without.
    pub fn fleet_round(&self, answered: bool, took: Duration) {
        self.fleet.rounds.with_label_values(&[if answered { "answered" } else { "failed" }]).inc();
        self.fleet.seconds.observe(took.as_secs_f64());
    }

    /// Leased of a backend's budget, beyond this proxy's fixed part.
    pub fn fleet_leased(&self, backend: &str, bytes: u64, queries: u64) {
        for (resource, leased) in [("memory_bytes", bytes), ("queries", queries)] {
            self.fleet.leased.with_label_values(&[backend, resource]).set(leased as f64);
        }
    }
}
