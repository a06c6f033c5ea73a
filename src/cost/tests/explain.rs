use super::*;
use crate::cost::{
    Unknown,
    explain::{cheapest_fix, json, text},
};

#[test]
fn a_heavy_query_explains_itself() {
    let all = r#"sum by (job) ({__name__=~".+",job!="self"})"#;
    let estimate = priced(all, six_hours(15), 20_000, Kind::Prometheus);
    let want = [
        "This query reads 20,000 series (exact) and 29,200,000 samples (upper_bound) over 6h, in 1,441 steps.",
        "The backend would hold about 1.5GiB for it, by a formula over 43,230,000 points and 100,000 blocks.",
        r#"- {__name__=~".+",job!="self"}: 20,000 series (exact, counted by the backend), 29,200,000 samples from 2023-11-14T15:55:00.001Z to 2023-11-14T22:00:00Z, evaluated 1,441 times; its matchers narrow nothing down"#,
        r#"Cheaper: name a metric or a label value in {__name__=~".+",job!="self"}."#,
    ];
    assert_eq!(text(&estimate, false).lines().collect::<Vec<_>>(), want);
}

#[test]
fn several_selectors_explain_themselves() {
    let shape = shape(r#"rate(foo{job="api"}[5m]) / bar"#, six_hours(60));
    let estimate = estimate(
        &shape,
        &Knowledge::from(&[at_most(500)][..]),
        &Model { unknown: Unknown::Deny, ..Model::default() },
    );
    let want = [
        "This query reads an unknown number of series (assumed) and an unknown number of samples (assumed) over 6h, in 361 steps.",
        "How much memory the backend would need for it is unknown.",
        r#"- foo{job="api"}: 500 series (upper_bound, from the backend's label table), 730,000 samples from 2023-11-14T15:55:00.001Z to 2023-11-14T22:00:00Z, evaluated 361 times"#,
        "- bar: an unknown number of series (assumed, nothing is known of it), from 2023-11-14T15:55:00.001Z to 2023-11-14T22:00:00Z, evaluated 361 times",
        "Cheaper: add matchers to bar, or use a recording rule.",
    ];
    assert_eq!(text(&estimate, false).lines().collect::<Vec<_>>(), want);
    assert!(!text(&estimate, true).contains("Cheaper"), "a light query needs no advice");
}

#[test]
fn nothing_is_nothing() {
    let estimate = priced("1 + 1", EvalTimes::instant(NOW), 0, Kind::Prometheus);
    assert_eq!(text(&estimate, false), "This query reads no series.");
    assert_eq!(cheapest_fix(&estimate), "nothing to save");
}

#[test]
fn the_fix_fits_the_query() {
    let last =
        |days: i64, step: u64| EvalTimes { start: NOW - days * 24 * HOUR, end: NOW, step: step * 1000 };
    let fix = |query: &str, times| cheapest_fix(&priced(query, times, 900, Kind::Prometheus));
    assert_eq!(fix(r#"{job=~".+"}"#, last(1, 60)), r#"name a metric or a label value in {job=~".+"}"#);
    assert_eq!(fix("sum(foo)", last(30, 3600)), "ask for less than 30d, or use a recording rule");
    assert_eq!(fix("foo", last(1, 15)), "raise the step: 5,761 points a series are more than a graph shows");
    assert_eq!(fix("foo", last(1, 600)), "aggregate foo with sum by (...), or add matchers to it");
    assert_eq!(fix("sum(foo)", last(1, 600)), "add matchers to foo, or use a recording rule");
}

#[test]
fn thousands_of_selectors_fit_a_page() {
    let query =
        (0..300).map(|i| format!("m{i}{{x=\"{}\"}}", "y".repeat(500))).collect::<Vec<_>>().join(" or ");
    let estimate = priced(&query, EvalTimes::instant(NOW), 1, Kind::Prometheus);
    let text = text(&estimate, false);
    assert!(text.len() < 10_000, "{}", text.len());
    assert!(text.contains("- and 280 more selectors"));
}

#[test]
fn the_json_has_the_two_proposed_fields_and_more() {
    let estimate = priced("rate(foo[5m])", six_hours(60), 100, Kind::Prometheus);
    let json = json(&estimate, false);
    assert_eq!(json["status"], "success");
    assert_eq!(json["data"]["estimate"]["seriesTouched"], 100);
    assert_eq!(json["data"]["estimate"]["samplesScanned"], 146_000);
    for name in ["known", "class"] {
        assert_eq!(json["data"]["estimate"][name], "exact");
    }
    assert_eq!(json["data"]["selectors"][0]["selector"], "foo");
    assert_eq!(json["data"]["selectors"][0]["source"], "probe");
    assert_eq!(json["data"]["selectors"][0]["evaluations"], 361);
}
