//! The stages of a query's way.

/// How far a query got: the stages of its way, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The owner is not known yet.
    Identify,
    /// Its parameters are read, the body of the request included.
    Parse,
    /// Its cost is found out, by probes if need be.
    Estimate,
    /// It waits for budget.
    Admit,
    /// The backend has it and has not answered.
    Forward,
    /// The answer streams.
    Meter,
}

impl Stage {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Parse => "parse",
            Self::Estimate => "estimate",
            Self::Admit => "admit",
            Self::Forward => "forward",
            Self::Meter => "meter",
        }
    }
}
