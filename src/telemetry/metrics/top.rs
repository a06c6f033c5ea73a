//! The ranking of the heaviest of the last five minutes, written when the metrics are scraped.

use prometheus::GaugeVec;

use super::{Metrics, make::Maker};

/// The key of everybody who has none of their own.
const OTHER: &str = "other";

/// A gauge for each number.
#[derive(Debug)]
pub(super) struct TopGauges {
    queries: GaugeVec,
    memory: GaugeVec,
    seconds: GaugeVec,
    refused: GaugeVec,
}

/// A number of the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopNumber {
    /// Queries.
    Queries,
    /// Estimated bytes.
    Memory,
    /// Time of queries that ran.
    Seconds,
    /// Queries refused.
    Refused,
}

impl TopGauges {
    pub(super) fn make(make: &Maker<'_>) -> prometheus::Result<Self> {
        let gauges = |name, what| {
            let help = format!("{what}, of the heaviest keys of the last five minutes.");
            make.gauges(name, &help, &["by", "key"])
        };
        Ok(Self {
            queries: gauges("weir_top_queries", "Queries that ended")?,
            memory: gauges("weir_top_memory_bytes", "Estimated memory of the queries that ran, added up")?,
            seconds: gauges(
                "weir_top_seconds",
                "Time of the queries that ran, without their wait for budget",
            )?,
            refused: gauges("weir_top_refused_queries", "Queries that a limit or a rule refused or stopped")?,
        })
    }
}

impl Metrics {
    /// Clears the ranking, which is set anew.
    pub fn clear_top(&self) {
        let TopGauges { queries, memory, seconds, refused } = &self.top;
        for gauges in [queries, memory, seconds, refused] {
            gauges.reset();
        }
    }

    /// One number of the heaviest keys of a kind, and of all others.
    pub fn top(&self, by: &'static str, number: TopNumber, rows: &[(String, f64)], others: f64) {
        let gauges = match number {
            TopNumber::Queries => &self.top.queries,
            TopNumber::Memory => &self.top.memory,
            TopNumber::Seconds => &self.top.seconds,
            TopNumber::Refused => &self.top.refused,
        };
        for (key, value) in rows {
            // One that is called as the others are is counted with them.
            gauges.with_label_values(&[by, key]).add(*value);
        }
        gauges.with_label_values(&[by, OTHER]).add(others);
    }
}
