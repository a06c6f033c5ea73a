//! A backend's distress: `backend` observes it, `limit` obeys it.

/// A signal of distress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory of the process above its level at rest, against the room up to its limit.
    Memory,
    /// Pools that are lent out, exhausted, or allocate because they are empty.
    Pools,
    /// M3's own limits on reads.
    Saturation,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Pools, Self::Saturation];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pools => "pools",
            Self::Saturation => "saturation",
        }
    }
}

/// Pressure from here on shrinks the window.
pub const HIGH: f64 = 0.85;
/// Pressure up to here lets the window grow.
pub const LOW: f64 = 0.70;
/// Pressure from here on leaves one heavy query at a time.
pub const FULL: f64 = 0.98;
/// Beyond this many times their estimates, queries are underestimated.
pub const UNDERESTIMATED: f64 = 1.25;

/// The most that was in flight at a backend between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes that heavy queries are estimated to hold.
    pub heavy_bytes: u64,
    /// Queries of any weight.
    pub queries: u64,
    /// Bytes of the whole budget; `None` where nothing bounds them.
    pub budget: Option<u64>,
}

/// One observation of a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distress {
    /// The signal that says the most and its pressure, 0 at ease to 1 at the limit.
    pub pressure: Option<(Signal, f64)>,
    /// How many times their estimates the heavy queries in flight hold; 1 where nothing says more.
    pub underestimate: f64,
    /// A signal that should come stays away: nothing says that the window may grow.
    pub silent: bool,
    /// The share of the budget, 0 to 1, to which the window sinks meanwhile.
    pub ceiling: Option<f64>,
    /// Queries that the backend runs at a time, where it says so; more wait inside of it.
    pub places: Option<u64>,
}

impl Distress {
    /// No distress.
    pub const NONE: Self =
        Self { pressure: None, underestimate: 1.0, silent: false, ceiling: None, places: None };

    /// Whether nothing speaks against more than runs now.
    pub fn is_ease(&self) -> bool {
        !self.silent
            && self.underestimate <= UNDERESTIMATED
            && self.pressure.is_none_or(|(_, pressure)| pressure <= LOW)
    }
}

impl Default for Distress {
    fn default() -> Self {
        Self::NONE
    }
}
