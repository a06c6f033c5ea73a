//! Where the databases differ in how they are spoken to.

use crate::base::Kind;

impl Kind {
    /// Whether its range queries may be asked for in pieces of their time: it evaluates them step by step, as Prometheus
    /// does, and holds them whole meanwhile. VictoriaMetrics moves steps to a grid of its own, M3 chooses a resolution by
    /// the range, and Weir's node does not hold them whole.
    pub const fn divides(self) -> bool {
        matches!(self, Self::Prometheus | Self::Thanos | Self::Mimir | Self::Cortex)
    }

    /// Where a replica says whether it can answer, and whether that path lies under the prefix of the query API.
    pub(super) const fn health_path(self) -> (&'static str, bool) {
        match self {
            Self::Prometheus | Self::Thanos => ("/-/ready", true),
            // A node that refuses writes is not ready, and answers queries.
            Self::Weir => ("/-/healthy", true),
            Self::VictoriaMetrics => ("/health", true),
            Self::Mimir | Self::Cortex => ("/ready", false),
            Self::M3 => ("/health", false),
        }
    }
}
