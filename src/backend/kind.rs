//! Differences between kinds of databases in endpoints and answers.

use crate::base::Kind;

impl Kind {
    /// Whether its range queries may be sent in parts of their time: it evaluates them step by step, as
    /// Prometheus does, and holds them whole meanwhile. VictoriaMetrics moves steps to a grid of its own, M3 chooses a
    /// resolution by the range, and Weir's node does not hold them whole.
    pub const fn splits_queries(self) -> bool {
        matches!(self, Self::Prometheus | Self::Thanos | Self::Mimir | Self::Cortex)
    }
}
