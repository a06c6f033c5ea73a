//! What a backend's distress leaves of its budget: said by the one that watches, obeyed by the one that admits.

/// What pressure leaves of a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowance {
    /// This share of it, 0 to 1.
    Share(f64),
    /// A little, for light queries only.
    LightOnly,
    /// Nothing: nothing runs and nothing waits.
    Nothing,
}

impl Allowance {
    /// The share of the budget that is for everybody.
    pub const fn share(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::LightOnly | Self::Nothing => 0.0,
        }
    }
}
