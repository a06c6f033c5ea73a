//! The baseline of a resource: its level while no heavy query of Weir runs, which queries do not cause.
//!
//! A windowed minimum, as BBR has one for round-trip times. The memory that a Go process keeps after a burst is its
//! level at rest once nothing heavy ran for a few seconds; the memory of its running queries is not.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The window of the minimum, which rises only while no heavy query runs.
const WINDOW: Duration = Duration::from_secs(4);
/// Looks that are remembered, at most.
const LOOKS_MAX: usize = 64;
/// Seconds in which most of a rise is taken for the level at rest while something heavy runs: a database grows by
/// itself.
const DRIFTS: f64 = 3_600.0;

/// The baseline of a level.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    level: Option<f64>,
    at: Option<Instant>,
    /// The observations since no heavy query runs.
    idle: VecDeque<(Instant, f64)>,
}

impl Baseline {
    /// The level at rest, now that `level` is seen and something heavy runs or not.
    pub(super) fn step(&mut self, level: f64, busy: bool, now: Instant) -> f64 {
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        let known = self.level.unwrap_or(level);
        let raised = if busy {
            self.idle.clear();
            known + (level - known) * (1.0 - (-seconds / DRIFTS).exp())
        } else {
            self.least_of_idle(level, now).map_or(known, |least| known.max(least))
        };
        let rest = level.min(raised);
        self.level = Some(rest);
        rest
    }

    /// The least of the window; `None` before nothing heavy ran for all of it.
    fn least_of_idle(&mut self, level: f64, now: Instant) -> Option<f64> {
        self.idle.push_back((now, level));
        let is_over = |at: Instant| now.saturating_duration_since(at) >= WINDOW;
        // One look from before the window stays: it says that the window is whole.
        while self.idle.len() > LOOKS_MAX || self.idle.get(1).is_some_and(|(at, _)| is_over(*at)) {
            self.idle.pop_front();
        }
        let is_whole = self.idle.front().is_some_and(|(at, _)| is_over(*at));
        is_whole.then(|| self.idle.iter().map(|(_, level)| *level).fold(f64::INFINITY, f64::min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_after_a_burst_is_at_rest_and_what_queries_hold_is_not() {
        let (mut rest, start) = (Baseline::default(), Instant::now());
        let mut seconds = 0;
        let mut look = |level, busy| {
            seconds += 1;
            rest.step(level, busy, start + Duration::from_secs(seconds))
        };
        assert_eq!(look(50.0, false), 50.0);
        assert!((0..60).all(|_| look(2_000.0, true) < 90.0), "a minute of work");
        let after: Vec<_> = (0..5).map(|_| look(2_000.0, false)).collect();
        assert!(after[3] < 90.0 && after[4] == 2_000.0, "{after:?}");
        assert!((0..3).all(|_| look(2_100.0, true) < 2_001.0));
        assert_eq!(look(300.0, true), 300.0, "down at once");
        // A level that rises all the time counts with its value of four seconds ago.
        let rising: Vec<_> = (0..10).map(|n| look(300.0 + 100.0 * f64::from(n), false)).collect();
        assert_eq!(rising[9], 800.0, "{rising:?}");
    }
}
