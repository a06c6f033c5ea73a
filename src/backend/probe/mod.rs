//! Small requests that ask a backend how many series a selector matches.

mod counts;

pub(super) use counts::Counters;
pub use counts::Counts;
