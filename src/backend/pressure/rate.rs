//! How fast counters grow, smoothed, so that a burst of a second is not taken for distress.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// A rate moves two thirds of the way to a new one in this time.
const SMOOTHING: Duration = Duration::from_secs(10);
/// The slope of a gauge follows faster: memory may double in three seconds.
const SLOPE_SMOOTHING: Duration = Duration::from_secs(2);
/// Counters that are followed at once: one replica's pools, and a few more.
const COUNTERS_MAX: usize = 64;

/// The rates of one process' counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    counters: BTreeMap<String, Counter>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    value: f64,
    at: Instant,
    /// Per second.
    rate: f64,
}

impl Rates {
    /// Growth of a counter per second, now that it has this value. The first value is 0 growth: earlier counts do not
    /// matter. A counter that fell began anew at 0, as in PromQL's `rate`. A clock that stood still or went back leaves
    /// the rate unchanged.
    pub(super) fn of(&mut self, counter: &str, value: f64, now: Instant) -> f64 {
        if !self.counters.contains_key(counter) && self.counters.len() >= COUNTERS_MAX {
            return 0.0;
        }
        let Some(known) = self.counters.get_mut(counter) else {
            self.counters.insert(counter.to_owned(), Counter { value, at: now, rate: 0.0 });
            return 0.0;
        };
        let grown = if value < known.value { value } else { value - known.value };
        known.follow(grown, value, SMOOTHING, now)
    }
}

/// How much a gauge rises in a second, less than 0 where it falls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slope {
    /// Over the last seconds.
    pub(super) smoothed: f64,
    /// Since it was looked at last.
    pub(super) latest: f64,
}

/// The slopes of one gauge.
#[derive(Clone, Debug, Default)]
pub(super) struct Slopes(Option<Counter>);

impl Slopes {
    /// The slope now that the gauge has this value; 0 at its first.
    pub(super) fn step(&mut self, value: f64, now: Instant) -> Slope {
        let known = self.0.get_or_insert(Counter { value, at: now, rate: 0.0 });
        let (grown, seconds) = (value - known.value, now.saturating_duration_since(known.at).as_secs_f64());
        let latest = if seconds > 0.0 { grown / seconds } else { 0.0 };
        Slope { smoothed: known.follow(grown, value, SLOPE_SMOOTHING, now), latest }
    }
}

impl Counter {
    fn follow(&mut self, grown: f64, value: f64, smoothing: Duration, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds > 0.0 {
            let weight = 1.0 - (-seconds / smoothing.as_secs_f64()).exp();
            self.rate += (grown / seconds - self.rate) * weight;
            (self.value, self.at) = (value, now);
        }
        self.rate
    }
}
