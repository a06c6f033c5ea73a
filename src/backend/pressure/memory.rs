//! How near a process' memory is to its limit, as far as running queries cause that.
//!
//! The part above the level at rest is measured against the room above that level. A high level at rest
//! is the process' own: a Go process keeps the memory of a burst, and fewer queries do not make it give that back.
//!
//! A query that holds many times its estimate shows in the growth of the process, long before the limit: a cancelled
//! query goes on to take memory for a while.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    rate::{Slope, Slopes},
    rest::Rest,
};
use crate::base::distress::{FULL, Load};

/// Seconds that memory is looked ahead: one until the next look, and two that a query goes on to grow.
const FORESIGHT: f64 = 3.0;
/// The most that foresight alone says: short of leaving a single query.
const FORESEEN_MOST: f64 = 0.97;
/// The least room above the level at rest, as a part of the limit.
const HEADROOM_LEAST: f64 = 1.0 / 16.0;
/// Growth by less than this part of the limit in a second does not end a process within the next ones.
const GROWTH_LEAST: f64 = 1.0 / 256.0;
/// How many times their estimates heavy queries make a process take at most, where estimates are right: a Go process takes
/// up to twice as much as is alive, and an estimate may be three quarters of the truth.
const TAKEN_MOST: f64 = 3.0;
/// How long the rise of a process' memory, and the queries in flight with it, are looked back on.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// A Go process collects garbage every two minutes at least.
const OVER_BUDGET_MAX: Duration = Duration::from_secs(150);
/// Looks that are remembered, at most.
const LOOKS_MAX: usize = 64;
/// A level at rest above this part of the limit is worth a finding.
const HIGH_AT_REST: f64 = 0.75;

/// Bytes of a process' memory, and how many it may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Bytes that it holds.
    pub bytes: f64,
    /// Bytes at which it is at its limit.
    pub limit: f64,
}

/// The memory of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    rest: Rest,
    slopes: Slopes,
    /// When, the bytes of the process, and those of heavy queries in flight.
    looks: VecDeque<(Instant, f64, f64)>,
    /// Since when the process holds more than the budget, because of queries that hold many times their estimates.
    over_budget: Option<Instant>,
}

/// The result of one observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) pressure: f64,
    /// At this rate it reaches its limit before anything but cancelling a query has an effect.
    pub(super) runs_out: bool,
    /// Heavy queries made it take more than the whole budget and many times their estimates, and it holds that still.
    pub(super) over_budget: bool,
    /// The level at rest, where it is high.
    pub(super) at_rest: Option<Level>,
}

impl Memory {
    /// `ours` says that the backend runs no query but those that Weir sent.
    pub(super) fn step(&mut self, level: Level, in_flight: Load, ours: bool, now: Instant) -> Verdict {
        let Level { bytes, limit } = level;
        let busy = in_flight.heavy_bytes > 0;
        // The garbage of a cancelled query is no level at rest.
        let rest = self.rest.step(bytes, busy || self.over_budget.is_some(), now);
        let over_budget = self.is_over_budget((bytes - rest, bytes), in_flight, ours, now);
        let Slope { smoothed, latest } = self.slopes.step(bytes, now);
        let headroom = (limit - rest).max(limit * HEADROOM_LEAST);
        let (moved, growth) = (bytes - rest, smoothed.max(0.0));
        let soon = ((moved + growth * FORESIGHT) / headroom).min(FORESEEN_MOST);
        // The next look would come too late. A query that decodes what it read grows faster by the second.
        let next = growth.max(latest);
        let pressure = if moved + next >= headroom { 1.0 } else { (moved / headroom).max(soon) };
        let grows_out = next > limit * GROWTH_LEAST && bytes + next >= limit;
        let at_rest = (!busy && rest > limit * HIGH_AT_REST).then_some(Level { bytes: rest, limit });
        Verdict { pressure, runs_out: pressure >= FULL || grows_out, over_budget, at_rest }
    }

    /// Given the bytes above the level at rest, and all of them.
    fn is_over_budget(
        &mut self,
        (moved, bytes): (f64, f64),
        in_flight: Load,
        ours: bool,
        now: Instant,
    ) -> bool {
        let is_old = |(at, ..): &(Instant, f64, f64)| now.saturating_duration_since(*at) > TAKEN_WITHIN;
        while self.looks.len() >= LOOKS_MAX || self.looks.front().is_some_and(is_old) {
            self.looks.pop_front();
        }
        let heavy = in_flight.heavy_bytes as f64;
        if heavy == 0.0 {
            self.looks.clear();
        }
        self.looks.push_back((now, bytes, heavy));
        let least = self.looks.iter().map(|(_, bytes, _)| *bytes).fold(bytes, f64::min);
        let most = self.looks.iter().map(|(.., heavy)| *heavy).fold(heavy, f64::max);
        let is_over = in_flight.budget.is_some_and(|budget| moved > budget as f64);
        if ours && heavy > 0.0 && bytes - least > most * TAKEN_MOST {
            self.over_budget.get_or_insert(now);
        }
        let lasts = |since: &Instant| now.saturating_duration_since(*since) <= OVER_BUDGET_MAX;
        self.over_budget = self.over_budget.filter(|since| is_over && lasts(since));
        self.over_budget.is_some()
    }
}
