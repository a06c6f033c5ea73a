//! Properties of the price over random queries of every construct.

use super::*;
use crate::promql::ast::Expr;

#[allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations, clippy::pedantic)]
#[path = "../../../bench/src/estimate/shapes/grammar.rs"]
mod grammar;

use grammar::{Grammar, Schema};

const SCHEMA: Schema = Schema {
    counters: &["a_total", "b_total"],
    gauges: &["g", "h"],
    buckets: &["d_bucket"],
    natives: &["n"],
    labels: &["job", "instance", "path"],
    matchers: &["job=\"x\"", "path=~\"/p.*\""],
    newer: true,
};

const KINDS: [Kind; 7] =
    [Kind::Prometheus, Kind::VictoriaMetrics, Kind::Thanos, Kind::Mimir, Kind::Cortex, Kind::M3, Kind::Weir];

/// Cases that a generator may miss.
const EDGES: [&str; 14] = [
    "info(g)",
    "info(g, {version=\"1\"})",
    "g @ end() or vector(time())",
    "label_join(label_join(g, \"a\", \"\", \"a\", \"a\"), \"a\", \"\", \"a\", \"a\")",
    "count_values(\"v\", g)",
    "topk by (job) (scalar(g), h)",
    "g * on () group_left (instance) topk(1, h)",
    "histogram_quantiles(n, \"q\", 0.1, 0.5, 0.9)",
    "sum_over_time(sum_over_time(g[1h:1s])[1h:1s])",
    "g[1h]",
    "g[1h:1m]",
    "\"text\"",
    "1",
    "sort_by_label(label_replace(g, \"x\", \"$1\", \"job\", \"(.*)\"), \"x\")",
];

fn queries() -> Vec<String> {
    let mut grammar = Grammar::new(11, SCHEMA);
    let random = std::iter::repeat_with(|| grammar.query()).take(600);
    random.chain(EDGES.map(String::from)).collect()
}

fn bytes(query: &str, times: EvalTimes, series: u64, kind: Kind) -> (u64, u64) {
    let estimated = priced(query, times, series, kind);
    (estimated.cost.memory.value, estimated.cost.points.value)
}

fn grows(query: &str, what: &str, steps: impl Iterator<Item = (u64, u64)>) {
    steps.fold((0, 0), |before, now| {
        assert!(now.0 >= before.0 && now.1 >= before.1, "{query}, {what}: {before:?}, then {now:?}");
        now
    });
}

#[test]
fn every_query_is_priced_and_none_overflows() {
    let extremes = EvalTimes { start: i64::MIN, end: i64::MAX, step: 1 };
    for query in queries() {
        let (times, kinds) = ([EvalTimes::instant(NOW), six_hours(15), extremes], KINDS);
        for (times, kind) in times.into_iter().flat_map(|times| kinds.map(|kind| (times, kind))) {
            for series in [0, 1, u64::MAX] {
                assert!(bytes(&query, times, series, kind).0 > 0, "{query}");
            }
        }
    }
}

#[test]
fn the_price_grows_with_series_steps_and_time() {
    for (n, query) in queries().iter().enumerate() {
        let kind = KINDS[n % KINDS.len()];
        let series = (0..60).map(|n| 1.5f64.powi(n) as u64);
        grows(query, "series", series.map(|series| bytes(query, six_hours(60), series, kind)));
        // The window moves with the end, and may lie in one block or in two.
        if query.contains("@ end") {
            continue;
        }
        // The same start, so that subqueries stay where they are on their grid.
        let until = |steps: i64| EvalTimes { start: NOW, end: NOW + steps * 15_000, step: 15_000 };
        grows(query, "steps", (0..40).map(|n| bytes(query, until(n * n * 7), 100, kind)));
    }
}

#[test]
fn the_price_grows_with_ranges_and_strings() {
    for (query, values) in [
        ("sum(rate(g[Xm]))", 1..200),
        ("max_over_time(g[Xm:15s])", 1..200),
        ("max_over_time(sum_over_time(g[Xm:15s])[1h:1m])", 1..200),
        ("topk(X, g)", 1..200),
        ("limitk(X, g) + h", 1..200),
    ] {
        let of = |n: u64| bytes(&query.replace('X', &n.to_string()), six_hours(60), 100, Kind::Prometheus);
        grows(query, "its number", values.map(of));
    }
    let replaced = |n: usize| {
        let query = format!("label_replace(g, \"x\", \"{}\", \"job\", \"(.*)\")", "$1".repeat(n));
        bytes(&query, six_hours(60), 100, Kind::Prometheus)
    };
    grows("label_replace", "references", (0..100).map(|n| replaced(n * 10)));
}

#[test]
fn the_generator_makes_every_construct() {
    let (mut functions, mut operators) =
        (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for query in queries() {
        let shape = shape(&query, six_hours(15));
        for node in &shape.ast().unwrap().nodes {
            match &node.expr {
                Expr::Call { func, .. } => _ = functions.insert(func.name),
                Expr::Aggregate { op, .. } => _ = operators.insert(op.name()),
                Expr::Binary { op, .. } => _ = operators.insert(op.symbol()),
                Expr::Unary { .. } => _ = operators.insert("unary"),
                Expr::Subquery { .. } => _ = operators.insert("subquery"),
                _ => {}
            }
        }
    }
    assert!(functions.len() >= 60, "{}: {functions:?}", functions.len());
    // 14 aggregations, 16 binary operators without the two of histograms, and two more.
    assert_eq!(operators.len(), 32, "{operators:?}");
}
