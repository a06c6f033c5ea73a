//! Floor 5: the verdicts of another configuration on queries that ran, and the limits that they suggest.
//!
//! ```text
//! journal, or a log of another program ─▶ Record ─▶ Arrivals ─▶ proxy::replay ─▶ Summary ─▶ text, JSON, HTML
//!                                                       └────▶ suggest ─▶ YAML
//! ```

mod arrivals;
pub mod import;
pub mod report;
pub mod suggest;
mod summary;
#[cfg(test)]
mod tests;

pub use arrivals::Arrivals;
pub use summary::{Case, Groups, Summary, Tally};
