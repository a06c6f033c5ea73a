//! The metrics of a fleet, as one proxy sees it.

use prometheus::{GaugeVec, Histogram, IntCounterVec, IntGauge};

/// The metrics of a fleet; nothing is shown without one.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) up: IntGauge,
    pub(super) learning: IntGauge,
    pub(super) proxies: IntGauge,
    pub(super) leased: GaugeVec,
    pub(super) tenants: IntGauge,
    pub(super) rounds: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) entries: IntCounterVec,
}
