//! How near a process' memory is to its limit, as far as running queries cause that.
//!
//! The part above the level at rest is measured against the room above that level. A high level at rest
//! is the process' own: a Go process keeps the memory of a burst, and fewer queries do not make it give that back.

use tokio::time::Instant;

use super::{
    baseline::Baseline,
    rate::{Slope, Slopes},
};
use crate::base::distress::FULL;

/// Seconds that memory is looked ahead: one until the next look, and two that a query goes on to grow.
const FORESIGHT: f64 = 3.0;
/// The most that foresight alone says: short of leaving a single query.
const FORESEEN_MOST: f64 = 0.97;
/// The least room above the level at rest, as a part of the limit.
const HEADROOM_LEAST: f64 = 1.0 / 16.0;
/// Growth by less than this part of the limit in a second does not end a process within the next ones.
const GROWTH_LEAST: f64 = 1.0 / 256.0;
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
    rest: Baseline,
    slopes: Slopes,
}

/// The result of one observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) pressure: f64,
    /// At this rate it reaches its limit before anything but cancelling a query has an effect.
    pub(super) runs_out: bool,
    /// The level at rest, where it is high.
    pub(super) at_rest: Option<Level>,
}

impl Memory {
    /// `busy` says that heavy queries of Weir's run.
    pub(super) fn step(&mut self, level: Level, busy: bool, now: Instant) -> Verdict {
        let Level { bytes, limit } = level;
        let rest = self.rest.step(bytes, busy, now);
        let Slope { smoothed, latest } = self.slopes.step(bytes, now);
        let headroom = (limit - rest).max(limit * HEADROOM_LEAST);
        let (moved, growth) = (bytes - rest, smoothed.max(0.0));
        let soon = ((moved + growth * FORESIGHT) / headroom).min(FORESEEN_MOST);
        // The next look would come too late. A query that decodes its samples grows faster by the second.
        let next = growth.max(latest);
        let pressure = if moved + next >= headroom { 1.0 } else { (moved / headroom).max(soon) };
        let grows_out = next > limit * GROWTH_LEAST && bytes + next >= limit;
        let at_rest = (!busy && rest > limit * HIGH_AT_REST).then_some(Level { bytes: rest, limit });
        Verdict { pressure, runs_out: pressure >= FULL || grows_out, at_rest }
    }
}
