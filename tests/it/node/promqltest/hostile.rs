//! Queries that touch too much, come at impossible times, or are given up.

use std::sync::atomic::AtomicBool;

use weir::{
    base::time::EvalTimes,
    node::engine::{self, Answer, EvalError, Limits, Options, Value},
    promql,
};

use super::store::Store;

/// 100 series of 100 samples, one a minute.
fn script() -> String {
    let line = |i| format!("  x_total{{i=\"{i}\", half=\"{}\"}} 0+{i}x99\n", i % 2);
    "load 1m\n".to_owned() + &(0..100).map(line).collect::<String>()
}

fn store() -> Store {
    Store::from_script(&script()).expect("a script")
}

fn limited(query: &str, times: EvalTimes, limits: Limits) -> Result<Answer, EvalError> {
    let options = Options { limits, ..Options::default() };
    let ast = promql::parse(query).expect(query);
    engine::evaluate(&ast, times, &store(), &options, &AtomicBool::new(false))
}

const RANGE: EvalTimes = EvalTimes { start: 0, end: 5_940_000, step: 60_000 };

fn limits(series: u64, samples: u64, points: u64) -> Limits {
    Limits { series, samples, points }
}

#[test]
fn a_limit_stops_a_query_by_name() {
    let max = u64::MAX;
    let cases = [
        ("x_total", limits(99, max, max), "series"),
        ("x_total", limits(max, 9_999, max), "samples"),
        ("x_total", limits(max, max, 9_999), "points"),
        ("sum by (i) (x_total)", limits(max, max, 9_999), "points"),
        ("topk(100, x_total)", limits(max, max, 9_999), "points"),
        ("quantile(0.5, x_total)", limits(max, max, 9_999), "points"),
        ("count_values(\"v\", x_total)", limits(max, max, 9_999), "points"),
        ("x_total + x_total", limits(max, max, 19_999), "points"),
        ("sum_over_time(vector(1)[1h:1ms])", limits(max, max, 100_000), "points"),
    ];
    for (query, limits, name) in cases {
        match limited(query, RANGE, limits) {
            Err(EvalError::Limit { name: got, .. }) => assert_eq!(got, name, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn an_aggregation_holds_groups_and_not_series() {
    let answer = limited("sum by (half) (rate(x_total[5m]))", RANGE, Limits::default()).expect("an answer");
    assert_eq!((answer.usage.series, answer.usage.samples), (100, 10_000));
    // Two groups of a hundred steps and a few rows on the way; a hundred series would be ten thousand.
    assert!(answer.usage.peak_points < 2_000, "{:?}", answer.usage);
}

#[test]
fn a_canceled_query_ends() {
    let ast = promql::parse("sum(x_total)").expect("a query");
    let canceled = engine::evaluate(&ast, RANGE, &store(), &Options::default(), &AtomicBool::new(true));
    assert_eq!(canceled.err(), Some(EvalError::Canceled));
}

#[test]
fn a_range_vector_is_no_range_query() {
    let got = limited("x_total[5m]", RANGE, Limits::default());
    assert!(matches!(got, Err(EvalError::Execution(text)) if text.contains("range vector")));
}

#[test]
fn native_histograms_are_named() {
    let store = Store::from_script(&(script() + "  native{a=\"b\"} {{count:1}}x3\n")).expect("a script");
    let ast = promql::parse("count({a=\"b\"})").expect("a query");
    let got =
        engine::evaluate(&ast, EvalTimes::instant(0), &store, &Options::default(), &AtomicBool::new(false));
    let error = got.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("native histograms") && error.contains("a=\"b\""), "{error}");
}

/// The earliest and latest times that can be written, and the longest durations.
#[test]
fn no_time_is_too_far() {
    let queries = [
        "x_total",
        "x_total smoothed",
        "x_total offset 292y",
        "x_total offset -292y",
        "x_total @ 9e15",
        "x_total @ -9e15 offset 292y",
        "rate(x_total[292y])",
        "rate(x_total[292y] smoothed)",
        "increase(x_total[292y] anchored)",
        "predict_linear(x_total[5m], 1e300)",
        "max_over_time(x_total[100y:50y])",
        "sum_over_time(vector(time())[100y:1y] @ start())",
        "timestamp(x_total)",
        "year() + day_of_year(vector(1e300)) + hour(vector(-Inf))",
        "absent_over_time(x_total[292y])",
        "info(x_total)",
        "x_total + on(i) group_left x_total",
        "limit_ratio(0.5, x_total)",
    ];
    let store = store();
    let mut rng = fastrand::Rng::with_seed(7);
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, 60_000, i64::MAX - 1, i64::MAX];
    for query in queries {
        let ast = promql::parse(query).expect(query);
        for _ in 0..40 {
            let (start, end) = (ends[rng.usize(..ends.len())], ends[rng.usize(..ends.len())]);
            let step = [0, 1, 60_000, u64::MAX][rng.usize(..4)];
            let end = if step == 0 { start } else { end };
            let options = Options { limits: limits(1_000, 100_000, 100_000), ..Options::default() };
            let times = EvalTimes { start, end, step };
            // Whatever it answers, it answers.
            let answer = engine::evaluate(&ast, times, &store, &options, &AtomicBool::new(false));
            if let Ok(Answer { value: Value::Matrix(rows), .. }) = answer {
                assert!(rows.iter().all(|row| !row.points.is_empty()), "{query} at {times:?}");
            }
        }
    }
}

/// The deepest trees that are evaluated at all fit a small stack.
#[test]
fn depth_is_bounded() {
    let nest = |open: &str, close: &str, times: usize| {
        format!("{}x_total{}", open.repeat(times), close.repeat(times))
    };
    let shapes = [
        ("abs(", ")"),
        ("sum(", ")"),
        ("-(", ")"),
        ("(1 + ", ")"),
        ("(x_total + on(i) ", ")"),
        ("max_over_time(", "[5m:1m])"),
        ("label_replace(", ",\"a\",\"\",\"\",\"\")"),
        ("topk(1, ", ")"),
        ("sort(", ")"),
        ("histogram_quantile(0.5, ", ")"),
        ("absent(", ")"),
        ("info(", ")"),
    ];
    for (open, close) in shapes {
        for (times, fits) in [(100, true), (300, false)] {
            let query = nest(open, close, times);
            // Deeper than the default allows, so that the engine sees it.
            let deep = promql::Limits { depth: 1_000, ..promql::Limits::default() };
            let parse = move || promql::parse_with(&query, &deep);
            let ast = std::thread::Builder::new().stack_size(64 << 20).spawn(parse).expect("a thread").join();
            let ast = ast.expect("no panic").expect("a query");
            let run = move || {
                let options = Options { limits: limits(10_000, 1_000_000, 1_000_000), ..Options::default() };
                let store = Store::from_script("load 1m\n  x_total{i=\"1\"} 0+1x9\n").expect("a script");
                let at = EvalTimes::instant(60_000);
                engine::evaluate(&ast, at, &store, &options, &AtomicBool::new(false))
            };
            let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread");
            let refused = match thread.join().expect("no panic") {
                Err(EvalError::Execution(text)) => text.contains("nested deeper"),
                _ => false,
            };
            assert_eq!(refused, !fits, "{open} {times}");
        }
    }
}
