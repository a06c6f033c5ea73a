//! Settings of a backend's distress.

use std::time::Duration;

/// How a backend's distress moves its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The backend's memory limit, bytes, where it exports none.
    pub memory_limit: Option<u64>,
    /// The effect of a stale signal on the window.
    pub on_stale: OnStale,
    /// How long a signal may stay away before that happens.
    pub stale_after: Duration,
    /// How often in a second pools allocate anew all that they keep, at full pressure; `None` leaves that out.
    pub get_on_empty_at_full: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_limit: None,
            on_stale: OnStale::Hold,
            stale_after: Duration::from_secs(15),
            get_on_empty_at_full: Some(1.0),
        }
    }
}

/// The effect of a signal that stays away, or never came, on the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum OnStale {
    /// It does not grow.
    #[default]
    Hold,
    /// It sinks to this share of the budget, 0 to 1, at the pace of full pressure.
    ShrinkTo(f64),
    /// The other signals decide alone.
    Ignore,
}

impl OnStale {
    /// Down to one heavy query at a time.
    pub const SHRINK: Self = Self::ShrinkTo(0.0);
}
