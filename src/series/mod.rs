//! Series: their labels, their samples and the matchers that select them. Everything that stores or evaluates series is
//! built on these.

mod labels;
mod matcher;
mod samples;

pub use labels::{BUCKET, Label, Labels, METRIC_NAME};
pub use matcher::{MatchOp, Matcher};
pub use samples::{STALE_NAN, Samples, is_stale};
