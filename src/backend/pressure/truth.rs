//! What queries were seen to hold, against what they were expected to.
//!
//! A budget bounds a sum of estimates. Estimates may be wrong together: a formula that does not fit, a store of learned
//! costs from another day. What the backend's memory rises by while they run tells, before it is in distress: if queries
//! that were to hold 200 MiB hold a gigabyte, all others are believed as little, and the budget counts for a fifth.
//!
//! What a collector finds alive is compared, not what is resident: garbage of queries that are over is no fault of an
//! estimate. So a rise is seen at the collection after it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Beyond this many times what was expected, estimates are in doubt.
pub(super) const DOUBT: f64 = 1.25;
/// No error is believed to be larger: beyond it something else is at work.
const FACTOR_MAX: f64 = 16.0;
/// Half of a factor's excess is forgotten in so many seconds in which what runs holds what it should and did for a while,
const DISPROVED: f64 = 20.0;
/// which is this: a wrong query holds little in its first seconds as well, and the next one comes right after it.
const UNCONTRADICTED: Duration = Duration::from_secs(30);
/// or in so many in which too little runs to tell.
const FORGET: f64 = 300.0;
/// How long what is held may lag behind what runs: until the next collection.
const LAG: Duration = Duration::from_secs(10);
/// Looks that are remembered, at most.
const LOOKS_MAX: usize = 64;
/// With less than this part of the budget in flight, a rise has other causes.
const TELLS: f64 = 1.0 / 32.0;
/// A rise by this part of the budget may have other causes: compaction, ingestion.
const SLACK: f64 = 1.0 / 8.0;
/// What is held with nothing heavy in flight is taken for what is idle within so many seconds,
const SETTLE: f64 = 60.0;
/// and beside heavy queries within so many: a database grows by itself.
const DRIFT: f64 = 3600.0;

/// What queries in flight are expected to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The most bytes in flight since the last look.
    pub bytes: u64,
    /// Bytes that may be; `None` where nothing bounds them, and nothing is compared.
    pub budget: Option<u64>,
}

/// Compares look by look.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    /// What is held when nothing runs, bytes.
    idle: Option<f64>,
    /// What was expected lately.
    expected: VecDeque<(Instant, f64)>,
    factor: f64,
    /// When more than expected was last held.
    contradicted: Option<Instant>,
    at: Option<Instant>,
}

impl Default for Truth {
    fn default() -> Self {
        Self { idle: None, expected: VecDeque::new(), factor: 1.0, contradicted: None, at: None }
    }
}

impl Truth {
    /// How many times more than expected queries hold, 1 where nothing says so; `held` are the bytes that the backend
    /// holds in all, where it tells.
    pub(super) fn step(&mut self, held: Option<f64>, expected: Expected, now: Instant) -> f64 {
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        let lately = self.lately(expected.bytes as f64, now);
        let mut half_life = FORGET;
        if let (Some(held), Some(budget)) = (held.filter(|bytes| bytes.is_finite()), expected.budget) {
            let budget = budget as f64;
            let tells = lately >= budget * TELLS;
            let rise = held - self.idle(held, if tells { DRIFT } else { SETTLE }, seconds);
            let seen = if tells && rise > budget * SLACK { (rise / lately).min(FACTOR_MAX) } else { 1.0 };
            if seen > DOUBT {
                self.factor = self.factor.max(seen);
                self.contradicted = Some(now);
            }
            let quiet = |at: Instant| now.saturating_duration_since(at) > UNCONTRADICTED;
            if expected.bytes as f64 >= budget * TELLS && self.contradicted.is_none_or(quiet) {
                half_life = DISPROVED;
            }
        }
        self.factor = 1.0 + (self.factor - 1.0) * 0.5_f64.powf(seconds / half_life);
        self.factor
    }

    /// The most that was expected within the lag.
    fn lately(&mut self, bytes: f64, now: Instant) -> f64 {
        if self.expected.len() >= LOOKS_MAX {
            self.expected.pop_front();
        }
        self.expected.push_back((now, bytes));
        while self.expected.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > LAG) {
            self.expected.pop_front();
        }
        self.expected.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max)
    }

    /// What is idle: down at once, up slowly.
    fn idle(&mut self, held: f64, reach: f64, seconds: f64) -> f64 {
        let known = self.idle.unwrap_or(held);
        let idle = held.min(known + (held - known) * (1.0 - (-seconds / reach).exp()));
        self.idle = Some(idle);
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Looks once a second; the factor after each.
    fn looks(truth: &mut Truth, from: Instant, trace: impl IntoIterator<Item = (u64, u64)>) -> Vec<f64> {
        let times = (1..).map(|second| from + Duration::from_secs(second));
        let look = |(at, (alive, bytes)): (Instant, (u64, u64))| {
            let expected = Expected { bytes: bytes * MIB, budget: Some(2048 * MIB) };
            truth.step(Some((alive * MIB) as f64), expected, at)
        };
        times.zip(trace).map(look).collect()
    }

    #[test]
    fn an_error_of_eight_is_seen_as_it_grows_and_forgotten_when_queries_hold_what_they_should() {
        let (mut truth, start) = (Truth::default(), Instant::now());
        let grows = (0..10).map(|n| (50 + n * 180, 212));
        let factors = looks(&mut truth, start, [(50, 4); 20].into_iter().chain(grows));
        assert!(factors[..21].iter().all(|factor| *factor == 1.0), "{factors:?}");
        assert!(factors[23] > 2.0 && factors[29] > 7.0, "{factors:?}");
        let quiet = looks(&mut truth, start + Duration::from_secs(30), vec![(60, 4); 60]);
        assert!(quiet[59] > 6.0, "silence says nothing: {quiet:?}");
        let right = looks(&mut truth, start + Duration::from_secs(90), vec![(300, 250); 200]);
        assert!(right[199] < 1.02, "{right:?}");
    }

    #[test]
    fn one_wrong_query_after_another_is_not_forgotten_between_them() {
        // Each holds little at its first look, and its highest point is not always seen.
        let (mut truth, start) = (Truth::default(), Instant::now());
        let queries =
            (0..40).flat_map(|n| [(60, 106), (500, 106), (if n % 4 == 0 { 900 } else { 700 }, 106)]);
        let factors = looks(&mut truth, start, [(50, 4); 5].into_iter().chain(queries));
        assert!(factors[10..].iter().all(|factor| *factor > 7.0), "{factors:?}");
    }

    #[test]
    fn one_query_of_a_twentieth_of_the_budget_tells_and_one_of_a_hundredth_does_not() {
        let start = Instant::now();
        let grows = |expected| (0..4).map(move |n| (50 + n * 280, expected));
        let told = looks(&mut Truth::default(), start, grows(106));
        assert!(told[1] > 2.0 && told[3] > 7.0 && told[3] < 8.0, "{told:?}");
        let little = looks(&mut Truth::default(), start, grows(20));
        assert!(little.iter().all(|factor| *factor == 1.0), "{little:?}");
    }

    #[test]
    fn what_is_as_expected_or_not_of_queries_is_no_error() {
        let start = Instant::now();
        // All of the budget, lagging by some seconds; then garbage that is still taken for alive.
        let right = (0..60).map(|n: u64| match n {
            0..10 => (50, 4),
            10..20 => (50 + (n - 10) * 180, 1900),
            20..25 => (1900, 1000),
            _ => (1000, 900),
        });
        assert!(looks(&mut Truth::default(), start, right).iter().all(|factor| *factor < 1.1));
        // Compaction beside light queries.
        let compaction = (0..60).map(|n| (if n < 20 { 500 } else { 900 }, 40));
        assert!(looks(&mut Truth::default(), start, compaction).iter().all(|factor| *factor == 1.0));
    }

    #[test]
    fn what_is_never_told_or_not_bounded_is_no_error() {
        let now = Instant::now();
        let bounded = Expected { bytes: 500 * MIB, budget: Some(800 * MIB) };
        let mut truth = Truth::default();
        for alive in [None, Some(f64::NAN), Some(0.0)] {
            assert_eq!(truth.step(alive, bounded, now), 1.0);
        }
        assert_eq!(truth.step(Some(1e12), Expected { budget: None, ..bounded }, now), 1.0);
        assert_eq!(truth.step(Some(1e12), bounded, now), FACTOR_MAX);
    }
}
