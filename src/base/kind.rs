//! The databases that Weir knows, named once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which API and cost formula a backend has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "product names")]
pub enum Kind {
    Prometheus,
    VictoriaMetrics,
    Thanos,
    Mimir,
    Cortex,
    M3,
    Weir,
}

impl Kind {
    /// Every kind, for tables and tests.
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
}
