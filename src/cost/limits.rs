//! The limits as the estimator sees them.

use super::SelectorEstimate;
use crate::base::QueryCost;

/// Series by which the price of one is measured.
pub(super) const REFERENCE_SERIES: u64 = 1 << 20;

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
pub struct CostLimit {
    pub series: u64,
    pub blocks: u64,
    pub samples: u64,
    pub points: u64,
    pub memory: u64,
}

impl CostLimit {
    /// No limit at all.
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
pub struct CostLimits {
    /// Beyond any of these a query is refused.
    pub refuse: CostLimit,
    /// Beyond any of these a limit is near: those that are only watched, and the share of the budget.
    pub near: CostLimit,
}

/// The fewest series that reach one of the limits, where none cost `base` and [`REFERENCE_SERIES`] cost `many`.
pub(super) fn fewest<const N: usize>(limits: [u64; N], base: [u64; N], many: [u64; N]) -> Option<u64> {
    let one = |((limit, base), many): ((u64, u64), u64)| {
        let (room, slope) = (limit.saturating_sub(base), many.saturating_sub(base));
        if limit == u64::MAX || slope == 0 {
            return None;
        }
        let series = u128::from(room) * u128::from(REFERENCE_SERIES) / u128::from(slope);
        Some(u64::try_from(series).unwrap_or(u64::MAX))
    };
    limits.into_iter().zip(base).zip(many).filter_map(one).min()
}

pub(super) const fn of_cost(cost: &QueryCost) -> [u64; 5] {
    [cost.series.value, cost.blocks.value, cost.samples.value, cost.points.value, cost.memory.value]
}

pub(super) const fn of_selector(one: &SelectorEstimate) -> [u64; 4] {
    [one.series.value, one.blocks.value, one.samples.value, one.points.value]
}
