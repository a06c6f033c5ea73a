//! The outputs are those of Prometheus 2.42's `format_query`, but for newer syntax.

use super::*;
use crate::promql::parse;

#[test]
fn queries_look_as_prometheus_writes_them() {
    for case in include_str!("cases.txt").split("\n---\n") {
        let (query, want) = case.trim_end().split_once("\n=>\n").unwrap_or_else(|| panic!("{case}"));
        let ast = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(pretty(&ast, 1 << 20).as_deref(), Some(want), "{query}");
    }
}

#[test]
fn what_prometheus_2_does_not_know_is_written_too() {
    for (query, want) in [
        ("rate(x[5m] anchored)", "rate(x[5m] anchored)"),
        ("foo smoothed @ 5 offset 1m", "foo smoothed @ 5.000 offset 1m"),
        (
            "sum by (\"a.b\",c) ({\"x.y\",\"d e\"=\"f\"})",
            "sum by (\"a.b\", c) ({\"d e\"=\"f\",__name__=\"x.y\"})",
        ),
        ("a + on(b) fill(0) c", "a + on (b) fill (0) c"),
        ("a + on(b) fill_left(1) fill_right(2) c", "a + on (b) fill_left (1) fill_right (2) c"),
        ("5m + 1h30m", "5m + 1h30m"),
        ("rate(x[step() + 1m])", "rate(x[step() + 1m])"),
        ("a / ignoring() group_left() b", "a / ignoring () group_left () b"),
    ] {
        let ast = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(line(&ast), want);
        assert_eq!(line(&parse(want).unwrap()), want, "again");
    }
}

#[test]
fn a_long_chain_neither_overflows_nor_explodes() {
    let chain = "1".to_owned() + &"+1".repeat(4_000);
    let ast = parse(&chain).unwrap();
    assert_eq!(line(&ast).len(), 1 + 4 * 4_000);
    assert_eq!(pretty(&ast, 1 << 20), None);
}
