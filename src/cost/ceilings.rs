//! The limits as the estimator sees them.

/// The verdict of the limits on a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No limit is near.
    Within,
    /// It passes a limit that is only watched, or takes more than its share of a budget.
    NearLimit,
    /// It passes one that refuses it.
    Exceeded,
}

/// The numbers of a cost that grow with its series; `u64::MAX` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in `QueryCost`")]
pub struct Ceiling {
    pub series: u64,
    pub blocks: u64,
    pub samples: u64,
    pub points: u64,
    pub memory: u64,
}

impl Ceiling {
    /// No ceiling at all.
    pub const UNLIMITED: Self =
        Self { series: u64::MAX, blocks: u64::MAX, samples: u64::MAX, points: u64::MAX, memory: u64::MAX };

    pub(super) const fn counted(&self) -> [u64; 4] {
        [self.series, self.blocks, self.samples, self.points]
    }

    pub(super) const fn all(&self) -> [u64; 5] {
        [self.series, self.blocks, self.samples, self.points, self.memory]
    }
}

/// The limits on one query, as far as they bound how far a probe has to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Beyond any of these a query is refused.
    pub refuse: Ceiling,
    /// Beyond any of these a limit is near: those that are only watched, and the share of the budget.
    pub near: Ceiling,
}
