//! Floor 5: what another configuration would have done to queries that ran, and which limits they suggest.
//!
//! ```text
//! journal, or a log of another program ─▶ Record ─▶ proxy::replay ─▶ Summary ─▶ text, JSON, HTML
//!                                            └────▶ suggest ─▶ YAML
//! ```

pub mod import;
pub mod report;
pub mod suggest;
mod summary;
#[cfg(test)]
mod tests;

pub use summary::{Case, Groups, Summary, Tally};
