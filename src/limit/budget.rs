//! Arithmetic of budgets: what is held, and what may be.

use super::policy::{BackendBudget, Limit};
use crate::base::Allowance;

/// What queries in flight hold of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes; wide enough for any number of queries of any size.
    pub(super) memory: u128,
    /// Queries.
    pub(super) queries: u64,
}

impl Usage {
    /// With one more query.
    pub(super) fn plus(self, memory: u64) -> Self {
        Self { memory: self.memory + u128::from(memory), queries: self.queries + 1 }
    }

    pub(super) fn add(&mut self, memory: u64) {
        *self = self.plus(memory);
    }

    /// Gives back what one query held; what was added once is taken once, so nothing goes below zero.
    pub(super) fn remove(&mut self, memory: u64) {
        self.memory -= u128::from(memory);
        self.queries -= 1;
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether it is within both numbers; `None` is unlimited.
    pub(super) fn within(self, memory: Option<u64>, queries: Option<u64>) -> bool {
        memory.is_none_or(|max| self.memory <= u128::from(max))
            && queries.is_none_or(|max| self.queries <= max)
    }
}

/// A backend's budget as pressure leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capacity {
    pub(super) memory: Limit,
    pub(super) queries: Limit,
    /// Percent of the memory that need no proof.
    pub(super) unproven_percent: u8,
    /// What pressure leaves, in parts per million; at 0 only the floor for light queries is left.
    pub(super) ppm: u64,
    /// Not even that.
    pub(super) shut: bool,
}

/// A query is light if it needs no more of the backend's memory than one part in this.
const LIGHT: u64 = 128;

/// Bytes up to which a query is light, of a budget of so many.
pub const fn light(budget: u64) -> u64 {
    budget / LIGHT
}

/// Parts per million of a whole.
pub(super) const WHOLE: u64 = 1_000_000;

impl Capacity {
    /// The whole of a budget.
    pub(super) fn new(budget: &BackendBudget) -> Self {
        Self { ppm: WHOLE, ..Self::default() }.of(budget)
    }

    /// The same part of another budget.
    pub(super) fn of(self, budget: &BackendBudget) -> Self {
        let BackendBudget { memory, queries, unproven_percent, .. } = *budget;
        Self { memory, queries, unproven_percent, ..self }
    }

    /// Not a number is no reason to stop.
    pub(super) fn allow(&mut self, allowance: Allowance) {
        let share = allowance.share();
        let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        self.ppm = (share * WHOLE as f64).ceil() as u64;
        self.shut = allowance == Allowance::Nothing;
    }

    /// Whether queries of this weight are shed: they neither run nor wait.
    pub(super) fn sheds(&self, weight: u64) -> bool {
        self.shut || (self.ppm == 0 && !self.has_floor_for(weight))
    }

    /// Whether a query is light enough for what is left at full pressure. Without a budget of memory, nothing tells.
    pub(super) fn has_floor_for(&self, weight: u64) -> bool {
        !self.shut && self.ppm < WHOLE && self.memory.max.is_some() && self.is_light(weight)
    }

    /// Light queries need no more of the memory than one part in 128.
    pub(super) fn is_light(&self, weight: u64) -> bool {
        self.memory.max.is_none_or(|max| weight <= light(max.get()))
    }

    /// Bytes that pressure leaves of `max`, rounded down.
    pub(super) fn of_memory(&self, max: u64) -> u64 {
        (u128::from(max) * u128::from(self.ppm) / u128::from(WHOLE)) as u64
    }

    /// Slots that pressure leaves of `max`, rounded up: a backend that may be asked at all may be asked one thing.
    pub(super) fn of_queries(&self, max: u64) -> u64 {
        (u128::from(max) * u128::from(self.ppm)).div_ceil(u128::from(WHOLE)) as u64
    }
}

/// What is kept of `whole` for a class whose reserve is `percent` of it, where pressure leaves `left` and all reserves
/// together are `all` percent. Reserves are parts of the whole, not of what is left, so that what nobody reserved is the
/// first to vanish; only when all of that is gone do reserves shrink, each by the same factor.
pub(super) fn kept_for(whole: u64, left: u64, percent: u8, all: u8) -> u64 {
    let kept = percent_of(whole, percent);
    match percent_of(whole, all) {
        all if left < all => (u128::from(kept) * u128::from(left) / u128::from(all)) as u64,
        _ => kept,
    }
}

/// The part of `whole` that is `percent` of it, rounded down.
pub(super) fn percent_of(whole: u64, percent: u8) -> u64 {
    (u128::from(whole) * u128::from(percent) / 100) as u64
}
