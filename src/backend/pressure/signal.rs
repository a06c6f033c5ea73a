//! The closed list of what may say that a backend is in distress.

use super::settings::Settings;
use crate::backend::Kind;

/// What may say that a backend is in distress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory of the process against its limit.
    Memory,
    /// Bytes that the storage node's pools have lent against their cap.
    Pool,
    /// Queries at work or waiting against the places for them.
    Queries,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Pool, Self::Queries];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pool => "pool",
            Self::Queries => "queries",
        }
    }
}

/// The signals that a backend of a kind must give: to hear nothing of them is to know nothing of it. What else it says
/// counts when it is said, and is missed from then on.
pub(super) fn expected(kind: Kind, settings: &Settings) -> impl Iterator<Item = Signal> {
    let memory = settings.memory_limit.is_some() || kind == Kind::VictoriaMetrics;
    let own = match kind {
        Kind::Weir => Some(Signal::Pool),
        _ => None,
    };
    memory.then_some(Signal::Memory).into_iter().chain(own)
}
