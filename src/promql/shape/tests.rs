use serde::Deserialize;

use super::*;
use crate::promql::{
    ast::{At, DurationExpr, Expr, Node, Selector, ValueType},
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    query: String,
    when: When,
    reads: Vec<(String, i64, i64, u64, String)>,
    range_seconds: Option<u64>,
    returns_matrix: Option<bool>,
    window_per_eval: Option<u64>,
    functions: Option<Vec<String>>,
    aggregates: Option<bool>,
    match_all: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Named(String),
    Times(i64, i64, u64),
}

impl When {
    fn times(&self) -> EvalTimes {
        match self {
            Self::Named(name) if name == "instant" => EvalTimes::instant(10_000_000),
            Self::Named(name) => {
                assert_eq!(name, "range");
                EvalTimes { start: 10_000_000, end: 13_600_000, step: 60_000 }
            }
            Self::Times(start, end, step) => EvalTimes { start: *start, end: *end, step: *step },
        }
    }
}

fn output_word(output: Output) -> String {
    match output {
        Output::Nothing => "nothing".to_owned(),
        Output::One => "one".to_owned(),
        Output::Top(k) => format!("top {k}"),
        Output::Grouped => "grouped".to_owned(),
        Output::Same => "same".to_owned(),
    }
}

fn check(case: &Case) {
    let times = case.when.times();
    let shape = Shape::of(&Arc::new(parse(&case.query).unwrap()), times, DEFAULT_LOOKBACK_MS);
    let reads: Vec<_> = shape
        .selectors
        .iter()
        .map(|s| (s.text.to_string(), s.window.start, s.window.end, s.evaluations, output_word(s.output)))
        .collect();
    let query = &case.query;
    assert_eq!(reads, case.reads, "{query}");
    assert_eq!(shape.steps, times.steps(), "{query}");
    let each = |want: Option<bool>, got: fn(&SelectorShape) -> bool, what: &str| {
        if let Some(want) = want {
            assert!(shape.selectors.iter().all(|s| got(s) == want), "{query}: {what}");
        }
    };
    each(case.match_all, |s| s.match_all, "match_all");
    each(case.aggregates, |s| s.output < Output::Same, "output");
    let optional = |want: Option<u64>, got: u64, what: &str| {
        assert_eq!(want.unwrap_or(got), got, "{query}: {what}");
    };
    optional(case.range_seconds, shape.range_seconds, "range_seconds");
    optional(
        case.window_per_eval,
        shape.selectors.first().map_or(0, |s| s.window_per_eval_ms),
        "window_per_eval",
    );
    assert_eq!(case.returns_matrix.unwrap_or(false), shape.returns_matrix, "{query}: returns_matrix");
    assert_eq!(case.aggregates.unwrap_or(shape.aggregates), shape.aggregates, "{query}: aggregates");
    if let Some(functions) = &case.functions {
        assert_eq!(*functions, shape.functions, "{query}: functions");
    }
}

#[test]
fn shapes_are_as_worked_out_by_hand() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("../../../tests/cost/shapes.yaml")).unwrap();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in &cases {
        check(case);
    }
}

fn named(name: &str) -> Selector {
    let matchers = vec![Matcher { name: METRIC_NAME.into(), op: MatchOp::Equal, value: name.into() }];
    Selector::new(matchers)
}

/// The windows of `rate(foo[<range>])` at 10_000_000 every 60_000 for an hour.
fn with_range(range: &str) -> TimeRange {
    let ast = Arc::new(parse(&format!("rate(foo[{range}])")).unwrap());
    let times = EvalTimes { start: 10_000_000, end: 13_600_000, step: 60_000 };
    Shape::of(&ast, times, DEFAULT_LOOKBACK_MS).selectors[0].window
}

#[test]
fn durations_are_computed_from_step_and_range() {
    assert_eq!(with_range("step() * 2"), TimeRange::new(9_880_001, 13_600_000));
    assert_eq!(with_range("min_of(range(), 600)"), TimeRange::new(9_400_001, 13_600_000));
    // A duration that cannot be computed, or is negative, reads no more than the instant.
    for range in ["(-1) ^ 0.5", "5s - 10s"] {
        assert_eq!(with_range(range), TimeRange::new(10_000_000, 13_600_000), "{range}");
    }
    // And a duration beyond all time saturates.
    assert_eq!(with_range("10 ^ 400").end, 13_600_000);
}

#[test]
fn edges_read_a_lookback_more() {
    let window = |edges| {
        let ast = Arc::new(parse(&format!("rate(foo[10m] {edges})")).unwrap());
        Shape::of(&ast, EvalTimes::instant(10_000_000), DEFAULT_LOOKBACK_MS).selectors[0].window
    };
    assert_eq!(window(""), TimeRange::new(9_400_001, 10_000_000));
    assert_eq!(window("anchored"), TimeRange::new(9_100_001, 10_000_000));
    assert_eq!(window("smoothed"), TimeRange::new(9_100_001, 10_300_000));
}

fn info(query: &str) -> Shape {
    Shape::of(&Arc::new(parse(query).unwrap()), EvalTimes::instant(10_000_000), DEFAULT_LOOKBACK_MS)
}

#[test]
fn info_reads_the_info_metric_too() {
    let texts = |shape: &Shape| shape.selectors.iter().map(|s| s.text.to_string()).collect::<Vec<_>>();
    let shape = info("info(foo offset 1h)");
    assert_eq!(texts(&shape), ["target_info", "foo"]);
    // Now, and an hour ago as its argument.
    assert_eq!(shape.selectors[0].window, TimeRange::new(6_100_001, 10_000_000));
    assert_eq!(shape.selectors[0].output, Output::Nothing);

    let labels = info(r#"info(foo offset 1h, {cluster="eu"})"#);
    assert_eq!(texts(&labels), [r#"target_info{cluster="eu"}"#, "foo"]);
    let named = info(r#"info(foo offset 1h, {__name__="build_info"})"#);
    assert_eq!(texts(&named), ["build_info", "foo"]);
}

#[test]
fn broken_trees_and_extreme_times_do_no_harm() {
    let mut selector = named("foo");
    selector.offset = Some(DurationExpr::Literal(i64::MIN));
    let node = |expr| Node { expr, span: Span::default(), ty: ValueType::Vector };
    let nodes = vec![
        node(Expr::Selector(selector)),
        node(Expr::Paren(NodeId(1))),
        node(Expr::Subquery {
            expr: NodeId(0),
            range: DurationExpr::Literal(i64::MAX),
            step: Some(DurationExpr::Computed(NodeId(77))),
            at: Some(At::Timestamp(i64::MIN)),
            offset: Some(DurationExpr::Literal(i64::MAX)),
        }),
    ];
    for root in [0, 1, 2, 9] {
        for times in [
            EvalTimes { start: i64::MIN, end: i64::MAX, step: 1 },
            EvalTimes { start: i64::MAX, end: i64::MIN, step: u64::MAX },
            EvalTimes::instant(i64::MIN),
        ] {
            let ast =
                Ast { text: "".into(), nodes: nodes.clone(), root: NodeId(root), size: TextSize::default() };
            let ast = Arc::new(ast);
            let shape = Shape::of(&ast, times, u64::MAX);
            assert!(shape.selectors.iter().all(|s| s.window.start <= s.window.end && s.evaluations > 0));
        }
    }
}

#[test]
fn names_that_a_parser_may_misread_stay_in_braces() {
    let text = |name: &str| selector_text(&named(name).matchers);
    assert_eq!(text("up"), "up");
    assert_eq!(text("job:up:sum"), "job:up:sum");
    assert_eq!(text("sum"), r#"{__name__="sum"}"#);
    assert_eq!(text("Offset"), r#"{__name__="Offset"}"#);
    assert_eq!(text("my metric"), r#"{__name__="my metric"}"#);
    let dotted = [Matcher { name: "k8s.pod".into(), op: MatchOp::NotEqual, value: "\u{7}".into() }];
    assert_eq!(selector_text(&dotted), r#"{"k8s.pod"!="\x07"}"#);
}

#[test]
fn long_patterns_are_read_by_their_alternatives_only() {
    let match_all = |pattern: String| {
        is_match_all(&[Matcher { name: "a".into(), op: MatchOp::Regex, value: pattern.into() }])
    };
    let long = "x".repeat(300);
    assert!(!match_all(long.clone()));
    assert!(!match_all(format!("{long}.+")));
    for any in [".+", ".*", "(.+)", "^.*$", ""] {
        assert!(match_all(format!("{long}|{any}")), "{any}");
        assert!(match_all(format!("({any}|{long})")), "{any}");
    }
}
