//! The queries: every function and every aggregation, and all else by which a client can make the node hold memory.

/// An expression and how it is asked.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) query: String,
    pub(super) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Instant,
    /// Over an hour at 15 s.
    Range,
    /// `series`, `labels` or `label/…/values`.
    List,
}

/// 20,000 series, 10,000 of them, and 500.
const SELECTORS: [(&str, &str); 3] =
    [("ALL", r#"{__name__=~".+"}"#), ("HALF", r#"{__name__=~"c0.*|c1.*"}"#), ("SOME", "mem_usage")];

/// The lines of the file that the product's own test reads too.
pub(super) fn cases() -> Vec<Case> {
    let lines = include_str!("../../../tests/data/pool_queries.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let case = |(how, query): (&str, &str)| {
        let query =
            SELECTORS.iter().fold(query.to_owned(), |query, (name, selector)| query.replace(name, selector));
        let how = match how {
            "instant" => How::Instant,
            "range" => How::Range,
            _ => How::List,
        };
        Case { query, how }
    };
    lines.map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_asked() {
        let cases = cases();
        assert!(cases.len() > 150);
        for how in [How::Instant, How::Range, How::List] {
            assert!(cases.iter().any(|case| case.how == how));
        }
        assert!(cases.iter().all(|case| !case.query.contains("HALF")));
    }
}
