//! Cases of Prometheus that we do not pass, each with the reason. The list only shrinks: a skipped case that passes, and
//! an entry that no case needs, fail the test.

/// File, part of the query, reason.
pub(super) const SKIPS: &[(&str, &str, &str)] = &[(
    "aggregators.test",
    r#"count_values("a\xc5z", version)"#,
    "a string that is not UTF-8 is refused when it is parsed, in other words than Prometheus refuses the label name",
)];
