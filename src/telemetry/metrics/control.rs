//! The state of admission for each backend, written when the metrics are scraped.

use prometheus::GaugeVec;

/// Gauges of the lanes, the window, the reserves and the queues of backends.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) window: GaugeVec,
    pub(super) lane_used: GaugeVec,
    pub(super) lane_capacity: GaugeVec,
    pub(super) stalled: GaugeVec,
    pub(super) lingering: GaugeVec,
    pub(super) reserve: GaugeVec,
    pub(super) waiting: GaugeVec,
    pub(super) oldest: GaugeVec,
}

/// One lane of a backend.
#[derive(Clone, Copy, Debug)]
pub struct LaneGauges {
    /// `light`, `heavy` or `slow`.
    pub lane: &'static str,
    /// Bytes held, and how many may be.
    pub memory: (u64, Option<u64>),
    /// Queries in flight, and how many may be.
    pub queries: (u64, Option<u64>),
}

/// Everything that is shown of one backend.
#[derive(Clone, Copy, Debug)]
pub struct ControlGauges<'a> {
    /// Its name.
    pub backend: &'a str,
    /// Bytes of the congestion window; `None` is unlimited.
    pub window: Option<u64>,
    /// The lanes.
    pub lanes: [LaneGauges; 3],
    /// Bytes held for clients that do not read.
    pub stalled: u64,
    /// Queries whose clients left.
    pub lingering: u64,
}

impl Control {
    /// Clears the gauges, so that backends, classes and reasons that are gone are shown no more.
    pub(super) fn clear(&self) {
        for gauges in [
            &self.window,
            &self.lane_used,
            &self.lane_capacity,
            &self.stalled,
            &self.lingering,
            &self.reserve,
            &self.waiting,
            &self.oldest,
        ] {
            gauges.reset();
        }
    }

    pub(super) fn show(&self, of: &ControlGauges<'_>) {
        let backend = of.backend;
        let most = |max: Option<u64>| max.map_or(f64::INFINITY, |max| max as f64);
        self.window.with_label_values(&[backend]).set(most(of.window));
        for LaneGauges { lane, memory, queries } in of.lanes {
            for (resource, (used, max)) in [("memory_bytes", memory), ("queries", queries)] {
                self.lane_used.with_label_values(&[backend, lane, resource]).set(used as f64);
                self.lane_capacity.with_label_values(&[backend, lane, resource]).set(most(max));
            }
        }
        self.stalled.with_label_values(&[backend]).set(of.stalled as f64);
        self.lingering.with_label_values(&[backend]).set(of.lingering as f64);
    }
}
