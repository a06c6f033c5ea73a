//! The observed memory of heavy queries, against their estimates.
//!
//! A budget bounds a sum of estimates, and estimates may be wrong together. The rise of a backend's memory above its
//! level at rest, while Weir's own heavy queries run, shows it. With nothing heavy in flight, or beside queries of
//! others, a rise has other causes; where a backend does not count its queries, the cause is not known. The memory that
//! the collector finds alive is compared and not the resident memory: garbage of queries that ended is no error of an
//! estimate.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{HELD_FOR, baseline::Baseline};
use crate::base::distress::Load;

/// With less than this part of the budget in flight, or less than this part of the level at rest, a rise has other
/// causes.
const TELLS: f64 = 1.0 / 32.0;
/// A rise by less than this part of the budget, or of the level at rest, has other causes: compaction, ingestion.
const SLACK: f64 = 1.0 / 8.0;
/// Looks that are remembered, at most.
const LOOKS_MAX: usize = 64;

/// Compares look by look.
#[derive(Clone, Debug, Default)]
pub(super) struct Estimates {
    rest: Baseline,
    /// The time, the load in flight, and the factor by which memory exceeded it.
    looks: VecDeque<(Instant, f64, f64)>,
}

impl Estimates {
    /// How many times their estimates the heavy queries in flight hold, 1 where nothing says more. `held` are the bytes
    /// that the backend holds in all, where it says so; `ours` that it runs no query but those that Weir sent.
    pub(super) fn step(&mut self, held: Option<f64>, in_flight: Load, ours: bool, now: Instant) -> f64 {
        let busy = in_flight.heavy_bytes > 0;
        let level = held.filter(|bytes| bytes.is_finite());
        let rest = level.map(|level| self.rest.step(level, busy, now));
        if !busy {
            self.looks.clear();
            return 1.0;
        }
        let bytes = in_flight.heavy_bytes as f64;
        let lately = self.looks.iter().map(|(_, bytes, _)| *bytes).fold(bytes, f64::max);
        let seen = match (level, rest, in_flight.budget) {
            (Some(level), Some(rest), Some(budget)) if ours => {
                seen(level - rest, lately, budget as f64, rest)
            }
            _ => 1.0,
        };
        let is_old = |(at, _, _): &(Instant, f64, f64)| now.saturating_duration_since(*at) > HELD_FOR;
        while self.looks.len() >= LOOKS_MAX || self.looks.front().is_some_and(is_old) {
            self.looks.pop_front();
        }
        self.looks.push_back((now, bytes, seen));
        self.looks.iter().map(|(_, _, seen)| *seen).fold(1.0, f64::max)
    }
}

/// How many times `bytes` the rise is, where both are large enough to say.
fn seen(rise: f64, bytes: f64, budget: f64, rest: f64) -> f64 {
    let tells = bytes >= budget * TELLS && rise > (budget * SLACK).max(rest * SLACK);
    if tells { (rise / bytes).max(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    struct Looks {
        estimates: Estimates,
        now: Instant,
        ours: bool,
    }

    impl Looks {
        fn new() -> Self {
            Self { estimates: Estimates::default(), now: Instant::now(), ours: true }
        }

        /// A look a second: MiB held, MiB of heavy queries in flight; the error after each.
        fn over(&mut self, trace: impl IntoIterator<Item = (u64, u64)>) -> Vec<f64> {
            let one = |(held, bytes): (u64, u64)| {
                self.now += Duration::from_secs(1);
                let in_flight = Load { heavy_bytes: bytes * MIB, queries: 1, budget: Some(2048 * MIB) };
                self.estimates.step(Some((held * MIB) as f64), in_flight, self.ours, self.now)
            };
            trace.into_iter().map(one).collect()
        }
    }

    #[test]
    fn an_error_of_eight_is_seen_as_it_grows_and_not_believed_when_nothing_heavy_runs() {
        let mut looks = Looks::new();
        let grows = (0..10).map(|n| (50 + n * 180, 212));
        let errors = looks.over([(50, 0); 20].into_iter().chain(grows));
        assert!(errors[..21].iter().all(|error| *error == 1.0), "{errors:?}");
        assert!(errors[23] > 2.0 && errors[29] > 7.0, "{errors:?}");
        assert!(looks.over([(1_700, 0); 3]).iter().all(|error| *error == 1.0));
        // Contradicted, it is forgotten within seconds.
        looks.over([(60, 0); 3]);
        looks.over((0..10).map(|n| (60 + n * 180, 212)));
        let right = looks.over(vec![(200, 250); 12]);
        assert!(right[0] > 7.0 && right[11] == 1.0, "{right:?}");
    }

    #[test]
    fn one_wrong_query_after_another_is_not_forgotten_between_them() {
        // Each holds little at its first look, and its highest point is not always seen.
        let mut looks = Looks::new();
        let queries =
            (0..40).flat_map(|n| [(60, 106), (500, 106), (if n % 4 == 0 { 900 } else { 700 }, 106)]);
        let errors = looks.over([(50, 0); 5].into_iter().chain(queries));
        assert!(errors[10..].iter().all(|error| *error > 5.9), "{errors:?}");
    }

    #[test]
    fn what_others_run_or_the_process_keeps_is_no_error() {
        let mut looks = Looks::new();
        // A query of another client before ours, for all of our time, and beside ours where it is counted.
        let foreign =
            [(50, 0), (50, 0), (1_600, 0), (1_600, 0), (1_600, 0), (1_600, 0), (1_600, 0), (1_600, 0)];
        assert!(looks.over(foreign).iter().all(|error| *error == 1.0));
        assert!(looks.over([(1_700, 120); 10]).iter().all(|error| *error == 1.0), "it stays");
        looks.over([(50, 0); 3]);
        looks.ours = false;
        assert!(looks.over([(1_600, 120); 10]).iter().all(|error| *error == 1.0), "it is counted there");
    }

    #[test]
    fn what_is_as_expected_or_too_little_to_say_is_no_error() {
        let right = (0..60).map(|n: u64| match n {
            0..10 => (50, 0),
            10..20 => (50 + (n - 10) * 180, 1900),
            20..25 => (1900, 1000),
            _ => (1000, 900),
        });
        assert!(Looks::new().over(right).iter().all(|error| *error < 1.1));
        let little = Looks::new().over((0..4).map(|n| (50 + n * 280, 20)));
        assert!(little.iter().all(|error| *error == 1.0), "{little:?}");
        let now = Instant::now();
        let bounded = Load { heavy_bytes: 500 * MIB, queries: 1, budget: Some(800 * MIB) };
        let mut estimates = Estimates::default();
        for held in [None, Some(f64::NAN), Some(0.0)] {
            assert_eq!(estimates.step(held, bounded, true, now), 1.0);
        }
        assert_eq!(estimates.step(Some(1e12), Load { budget: None, ..bounded }, true, now), 1.0);
        assert!(estimates.step(Some(1e12), bounded, true, now) > 1_000.0);
    }
}
