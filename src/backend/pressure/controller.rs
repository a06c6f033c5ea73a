//! From pressure to the share of a budget: down fast, up slowly, and still in between.
//!
//! Multiplicative decrease and additive increase as in TCP's congestion control (RFC 5681), with a band in which nothing
//! changes, so that a constant load does not make the share swing.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::OnStale;
use crate::base::Allowance;

/// Pressure from here on takes budget away.
pub const HIGH: f64 = 0.85;
/// Pressure up to here gives budget back.
pub const LOW: f64 = 0.70;
/// The share is never cut below this, as long as the backend is not at its very limit: one query at a time tells
/// whether it recovers.
pub(super) const FLOOR: f64 = 0.05;
/// Pressure from here on leaves room for light queries only.
pub(super) const FULL: f64 = 0.98;
/// Pressure from here on stops everything: the limit is reached.
const LIMIT: f64 = 1.0;
/// What a second of full pressure leaves.
const DECREASE_PER_SECOND: f64 = 0.5;
/// What a second of ease gives back.
const INCREASE_PER_SECOND: f64 = 0.02;
/// Longest time that one step acts for: after a pause in which nobody looked, one look says nothing about all of it.
const STEP_MAX: Duration = Duration::from_secs(5);

/// What is known of a backend at one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// The worst of what was heard, 0 to 1; `None` when nothing was.
    pub pressure: Option<f64>,
    /// Whether a signal that should have come did not.
    pub silence: Silence,
}

/// Whether a signal that should have come did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// All that should have come came.
    None,
    /// One stayed away this time.
    Short,
    /// One has stayed away for so long that what it said last means nothing any more.
    Stale,
}

/// How far new queries get, whatever the share is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Open,
    LightOnly,
    Shut,
}

impl Door {
    /// Opens later than it shuts, so that it does not swing.
    fn under(self, pressure: f64) -> Self {
        if pressure >= LIMIT || (self == Self::Shut && pressure >= FULL) {
            Self::Shut
        } else if pressure >= FULL || (self != Self::Open && pressure > HIGH) {
            Self::LightOnly
        } else {
            Self::Open
        }
    }
}

/// What a backend's pressure leaves of its budget.
#[derive(Clone, Debug)]
pub struct Controller {
    share: f64,
    /// What the share must not pass while a signal is silent.
    ceiling: Option<f64>,
    door: Door,
    on_stale: OnStale,
    /// When the share was last worked out.
    at: Instant,
}

impl Controller {
    /// A controller that leaves the whole budget until it hears otherwise, or hears nothing for too long.
    pub const fn new(on_stale: OnStale, now: Instant) -> Self {
        Self { share: 1.0, ceiling: None, door: Door::Open, on_stale, at: now }
    }

    /// What silence does from now on.
    pub const fn obey(&mut self, on_stale: OnStale) {
        self.on_stale = on_stale;
    }

    /// What is left of the budget after this look. A clock that went back counts as one that stood still.
    pub fn step(&mut self, sight: Sight, now: Instant) -> Allowance {
        let seconds = now.saturating_duration_since(self.at).min(STEP_MAX).as_secs_f64();
        self.at = self.at.max(now);
        self.obey_silence(sight.silence, seconds);
        let Some(pressure) = sight.pressure.filter(|p| p.is_finite()) else { return self.current() };
        // What shut the door may be the one that is silent: ease of the others does not open it.
        let least = if sight.silence == Silence::Short { self.door } else { Door::Open };
        self.door = self.door.under(pressure).max(least);
        if pressure >= HIGH {
            self.share = shrunk(self.share, FLOOR, (pressure - HIGH) / (1.0 - HIGH), seconds);
        } else if pressure <= LOW {
            self.share = (self.share + INCREASE_PER_SECOND * seconds).min(1.0);
        }
        self.share = self.share.min(self.ceiling.unwrap_or(1.0));
        self.current()
    }

    /// What is left now.
    pub const fn current(&self) -> Allowance {
        match self.door {
            Door::Open => Allowance::Share(self.share),
            Door::LightOnly => Allowance::LightOnly,
            Door::Shut => Allowance::Nothing,
        }
    }

    /// Silence is no sign of ease: at once it ends every rise, and in the end does what is configured.
    fn obey_silence(&mut self, silence: Silence, seconds: f64) {
        let held = self.ceiling.unwrap_or(self.share);
        self.ceiling = match (silence, self.on_stale) {
            (Silence::None, _) | (Silence::Stale, OnStale::Ignore) => None,
            (Silence::Short, _) | (Silence::Stale, OnStale::Hold) => Some(held),
            (Silence::Stale, OnStale::ShrinkTo(least)) => Some(shrunk(held, least.max(FLOOR), 1.0, seconds)),
        };
        self.share = self.share.min(self.ceiling.unwrap_or(1.0));
        if silence == Silence::Stale {
            // One query at a time tells what the signal does not.
            self.door = Door::Open;
        }
    }
}

/// `excess` is how far the pressure is into its upper band, 0 to 1; a little of it already takes a tenth. A share that
/// is below `least` stays where it is.
fn shrunk(share: f64, least: f64, excess: f64, seconds: f64) -> f64 {
    let strength = 0.1 + 0.9 * excess.clamp(0.0, 1.0);
    let kept = DECREASE_PER_SECOND.powf(strength * seconds);
    (share * kept).max(least.min(share))
}
