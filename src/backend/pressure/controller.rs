//! From pressure to the share of a budget: down fast, up slowly, and still in between.
//!
//! Multiplicative decrease and additive increase as in TCP's congestion control (RFC 5681), with a band in which nothing
//! changes, so that a constant load does not make the share swing.

use std::time::Duration;

use tokio::time::Instant;

/// Pressure from here on takes budget away.
pub const HIGH: f64 = 0.85;
/// Pressure up to here gives budget back.
pub const LOW: f64 = 0.70;
/// The share is never cut below this, as long as the backend is not at its very limit: one query at a time tells
/// whether it recovers.
const FLOOR: f64 = 0.05;
/// What a second of full pressure leaves.
const DECREASE_PER_SECOND: f64 = 0.5;
/// What a second of ease gives back.
const INCREASE_PER_SECOND: f64 = 0.02;
/// Pressure from here on sheds: nothing new runs.
const FULL: f64 = 0.98;
/// A signal older than this says nothing any more.
const STALE: Duration = Duration::from_secs(15);

/// What becomes of the share when the signal stays away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStale {
    /// It stays where it is: silence is no sign of ease.
    #[default]
    Hold,
    /// It sinks as under full pressure.
    Shrink,
}

/// The share of a backend's budget that its pressure leaves.
#[derive(Clone, Debug)]
pub struct Controller {
    share: f64,
    shedding: bool,
    on_stale: OnStale,
    /// When the share was last worked out.
    at: Instant,
    /// When a signal last came.
    heard: Option<Instant>,
}

impl Controller {
    /// A controller that leaves the whole budget until it hears otherwise.
    pub const fn new(on_stale: OnStale, now: Instant) -> Self {
        Self { share: 1.0, shedding: false, on_stale, at: now, heard: None }
    }

    /// The share of the budget, 0 to 1, after this much pressure (`None`: no signal came).
    pub fn step(&mut self, pressure: Option<f64>, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let Some(pressure) = pressure.filter(|p| p.is_finite()) else {
            let silent = self.heard.is_some_and(|heard| now.saturating_duration_since(heard) > STALE);
            if silent && self.on_stale == OnStale::Shrink {
                self.shrink(1.0, seconds);
            }
            return self.current();
        };
        self.heard = Some(now);
        self.shedding = pressure >= FULL || (self.shedding && pressure > HIGH);
        if pressure >= HIGH {
            self.shrink((pressure - HIGH) / (1.0 - HIGH), seconds);
        } else if pressure <= LOW {
            self.share = (self.share + INCREASE_PER_SECOND * seconds).min(1.0);
        }
        self.current()
    }

    /// The share now.
    pub fn current(&self) -> f64 {
        if self.shedding { 0.0 } else { self.share }
    }

    /// `excess` is how far the pressure is into its upper band, 0 to 1; a little of it already takes a tenth.
    fn shrink(&mut self, excess: f64, seconds: f64) {
        let strength = 0.1 + 0.9 * excess.clamp(0.0, 1.0);
        let kept = DECREASE_PER_SECOND.powf(strength * seconds);
        self.share = (self.share * kept).max(FLOOR);
    }
}
