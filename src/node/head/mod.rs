//! Samples that are not on disk yet: per series an open run of columns, sealed chunks behind it, and late samples.

mod batch;
mod held;
mod known;
mod metadata;
mod samples;
mod series;
#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchSeries, LabelLimits, LabelProblem, NamedBy, RefusedSeries, shown};
pub use held::{Held, Part};
pub use known::KnownSeries;
pub use metadata::{Description, Metadata, MetadataField};
pub use samples::{Refusal, Rules, Runs};
pub use series::{Registry, Series};
