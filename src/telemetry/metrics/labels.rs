//! The closed sets of label values.

/// The dimension of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Distinct series.
    Series,
    /// Samples.
    Samples,
    /// Bytes of memory at the backend.
    Memory,
}

impl Dimension {
    pub(super) const ALL: [Self; 3] = [Self::Series, Self::Samples, Self::Memory];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Memory => "memory_bytes",
        }
    }
}

/// The resource of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Bytes of memory.
    Memory,
    /// Queries in flight.
    Queries,
}

impl Resource {
    pub(super) const ALL: [Self; 2] = [Self::Memory, Self::Queries];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory_bytes",
            Self::Queries => "queries",
        }
    }
}

/// How a probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// It counted.
    Counted,
    /// It stopped at its limit: at least this many.
    AtLeast,
    /// The backend failed or was late.
    Failed,
    /// It was not sent: it would itself have been the attack.
    Refused,
}

impl ProbeResult {
    pub(super) const ALL: [Self; 4] = [Self::Counted, Self::AtLeast, Self::Failed, Self::Refused];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::AtLeast => "at_least",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Counts a split query by its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitOutcome {
    /// The answers to its parts were merged.
    Merged,
    /// They could not be merged: it was sent as a whole.
    Whole,
    /// The backend failed at a part.
    Failed,
    /// Other answers held all memory for merging.
    NoMemory,
}

impl SplitOutcome {
    pub(super) const ALL: [Self; 4] = [Self::Merged, Self::Whole, Self::Failed, Self::NoMemory];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Merged => "joined",
            Self::Whole => "whole",
            Self::Failed => "failed",
            Self::NoMemory => "no_room",
        }
    }
}
