//! One record for each query: its line in the log, its span, its place on the status page.

pub(super) mod active;
pub(super) mod recent;
pub(super) mod record;
pub(super) mod span;
