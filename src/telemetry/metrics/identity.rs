//! Metrics of identification and of label enforcement.

use prometheus::{IntCounter, IntCounterVec};

/// Everything that may name a tenant.
const SOURCES: [&str; 7] =
    ["default", "header", "basic_auth", "bearer", "jwt", "client_certificate", "operator"];

/// The counters of each source, known and refused: looked up once, since every request counts there.
pub(super) type Identified = Vec<(&'static str, [IntCounter; 2])>;

pub(super) fn identified(counters: &IntCounterVec) -> Identified {
    let of = |source: &'static str| {
        (source, ["known", "refused"].map(|outcome| counters.with_label_values(&[source, outcome])))
    };
    SOURCES.map(of).into()
}
