//! Why a query is ended from outside.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limit::LimitName;

/// Why a query is ended that passed every limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The backend was about to run out of memory, or its queries held many times their estimates, and this was the
    /// heaviest.
    ForBackend,
    /// An operator stopped it.
    Killed(Arc<Kill>),
}

/// An operator's order to stop queries.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// The operator who gave it; empty where unknown.
    pub by: String,
    /// Why; empty where nobody says.
    pub reason: String,
}

impl Cancellation {
    /// The id that a client, the log and the metrics know it by.
    pub const fn limit(&self) -> LimitName {
        match self {
            Self::ForBackend => LimitName::Cancelled,
            Self::Killed(_) => LimitName::Killed,
        }
    }

    /// For people: the event, the operator and the reason.
    pub fn message(&self) -> String {
        let Self::Killed(kill) = self else { return FOR_BACKEND.to_owned() };
        let by = if kill.by.is_empty() { "an operator" } else { &kill.by };
        let reason = if kill.reason.is_empty() { "no reason given" } else { &kill.reason };
        format!("{by} stopped the query: {reason} (weir-killed)")
    }
}

/// Why a query was cancelled that did nothing wrong.
pub(super) const FOR_BACKEND: &str = "the backend was about to run out of memory, or its queries held many times their \
                            estimates; this was the heaviest one there, so it was cancelled; ask again later, or for less \
                            (weir-recalled)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_says_who_and_why() {
        for (by, reason, want) in [
            ("alice", "drowns the database", "alice stopped the query: drowns the database (weir-killed)"),
            ("", "", "an operator stopped the query: no reason given (weir-killed)"),
        ] {
            let kill = Kill { by: by.to_owned(), reason: reason.to_owned() };
            assert_eq!(Cancellation::Killed(Arc::new(kill)).message(), want);
        }
    }
}
