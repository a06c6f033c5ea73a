//! The databases Weir knows, and where they differ.

/// Which API a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Prometheus itself.
    Prometheus,
    /// VictoriaMetrics, single node or `vmselect`.
    VictoriaMetrics,
    /// A Thanos querier.
    Thanos,
    /// Grafana Mimir.
    Mimir,
    /// Cortex.
    Cortex,
    /// An m3coordinator or m3query.
    M3,
    /// Weir's own storage node, or another Weir.
    Weir,
}

impl Kind {
    /// Every kind, for tests and tables.
    pub const ALL: [Self; 7] = [
        Self::Prometheus,
        Self::VictoriaMetrics,
        Self::Thanos,
        Self::Mimir,
        Self::Cortex,
        Self::M3,
        Self::Weir,
    ];

    /// The word used in the configuration and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoriametrics",
            Self::Thanos => "thanos",
            Self::Mimir => "mimir",
            Self::Cortex => "cortex",
            Self::M3 => "m3",
            Self::Weir => "weir",
        }
    }

    /// Whether its range queries may be asked for in pieces of their time: it evaluates them step by step, as Prometheus
    /// does, and holds them whole meanwhile. VictoriaMetrics moves steps to a grid of its own, M3 chooses a resolution by
    /// the range, and Weir's node does not hold them whole.
    pub const fn divides(self) -> bool {
        matches!(self, Self::Prometheus | Self::Thanos | Self::Mimir | Self::Cortex)
    }

    /// Where a replica says whether it can answer, and whether that path lies under the prefix of the query API.
    pub(super) const fn health_path(self) -> (&'static str, bool) {
        match self {
            Self::Prometheus | Self::Thanos | Self::Weir => ("/-/ready", true),
            Self::VictoriaMetrics => ("/health", true),
            Self::Mimir | Self::Cortex => ("/ready", false),
            Self::M3 => ("/health", false),
        }
    }
}
