use serde_json::json;

use super::*;
use crate::{
    base::TimeRange,
    cost::{LabelTable, TableError},
};

const SIX_HOURS_AGO: i64 = NOW - 6 * HOUR;
const DAY_START: i64 = NOW - 22 * HOUR;

fn entries(list: &[(&str, u64)]) -> serde_json::Value {
    list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// Prometheus, head from six hours ago, 1,000 series.
fn prometheus(names: &[(&str, u64)], pairs: &[(&str, u64)], asked: usize) -> LabelTable {
    let body = json!({"status": "success", "data": {
        "headStats": {"numSeries": 1000, "numLabelPairs": 9, "chunkCount": 5, "minTime": SIX_HOURS_AGO, "maxTime": NOW},
        "seriesCountByMetricName": entries(names),
        "labelValueCountByLabelName": [],
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": entries(pairs),
    }});
    LabelTable::from_tsdb_status(body.to_string().as_bytes(), NOW, asked).unwrap()
}

fn bound(table: &LabelTable, query: &str, window: TimeRange) -> Option<u64> {
    let known = table.bound(&shape(query, EvalTimes::instant(NOW)).selectors[0].matchers, window)?;
    assert_eq!(known.confidence, Confidence::UpperBound);
    Some(known.value)
}

fn recent() -> TimeRange {
    TimeRange::new(NOW - HOUR, NOW)
}

const NAMES: &[(&str, u64)] = &[("foo", 600), ("bar", 300), ("baz", 100)];
const PAIRS: &[(&str, u64)] = &[("job=api", 700), ("job=web", 200), ("env=eu", 90)];

#[test]
fn the_rarest_equality_bounds_a_selector() {
    let table = prometheus(NAMES, PAIRS, 100);
    for (query, want) in [
        ("foo", 600),
        (r#"foo{job="web"}"#, 200),
        (r#"foo{job="api",env="eu"}"#, 90),
        (r#"foo{job="api",env!="eu"}"#, 600),
        (r#"{__name__=~"foo|bar"}"#, 900),
        (r#"{__name__=~"foo|foo"}"#, 600),
        (r#"foo{job=~"web|nobody"}"#, 200),
        (r#"foo{job=~"w.*"}"#, 600),
        // Matches series without the label too.
        (r#"foo{job=""}"#, 600),
        (r#"foo{job=~"web|"}"#, 600),
        // Never more than there are.
        (r#"{job=~"api|web|x|y",env=~".+"}"#, 900),
        (r#"{__name__=~".+"}"#, 1000),
    ] {
        assert_eq!(bound(&table, query, recent()), Some(want), "{query}");
    }
}

#[test]
fn what_is_missing_depends_on_whether_the_list_was_cut() {
    // Three of at most a hundred: all there are.
    assert_eq!(bound(&prometheus(NAMES, PAIRS, 100), "quux", recent()), Some(0));
    // Three of three: the next may have the number of the last.
    assert_eq!(bound(&prometheus(NAMES, PAIRS, 3), "quux", recent()), Some(100));
    assert_eq!(bound(&prometheus(NAMES, PAIRS, 3), r#"foo{job="x"}"#, recent()), Some(90));
    // An empty list is one that the backend does not make; the total still holds.
    assert_eq!(bound(&prometheus(&[], &[], 3), "quux", recent()), Some(1000));
    // Some list no names among the pairs.
    assert_eq!(bound(&prometheus(NAMES, PAIRS, 100), r#"{__name__="foo"}"#, recent()), Some(600));
}

#[test]
fn ten_entries_may_be_a_limit_that_was_not_listened_to() {
    let names: Vec<String> = (0..10).map(|i| format!("m{i}")).collect();
    let list = |each: u64| names.iter().map(|n| (n.as_str(), each)).collect::<Vec<_>>();
    let pairs: Vec<String> = (0..10).map(|i| format!("job=j{i}")).collect();
    let pairs: Vec<_> = pairs.iter().map(|p| (p.as_str(), 50)).collect();
    // 10 × 50 of 1,000 series: there are others, in metrics of at most 50.
    assert_eq!(bound(&prometheus(&list(50), &pairs, 500), "quux", recent()), Some(50));
    assert_eq!(bound(&prometheus(&list(100), &pairs, 500), r#"{job="x"}"#, recent()), Some(50));
    // 10 × 100 are all of them.
    assert_eq!(bound(&prometheus(&list(100), &pairs, 500), "quux", recent()), Some(0));
}

#[test]
fn a_head_says_nothing_of_older_blocks() {
    let table = prometheus(NAMES, PAIRS, 100);
    assert_eq!(bound(&table, "foo", TimeRange::new(SIX_HOURS_AGO, NOW)), Some(600));
    assert_eq!(bound(&table, "foo", TimeRange::new(SIX_HOURS_AGO - 1, NOW)), None);
    // Nor does an old table bound the series that came since.
    assert_eq!(bound(&table, "foo", TimeRange::new(NOW, NOW + HOUR)), None);
}

#[test]
fn an_empty_table_is_no_table() {
    // A head that is just starting, and a Thanos querier over store gateways.
    for (min, max) in [(i64::MAX, i64::MIN), (0, 0)] {
        let empty = json!({"status": "success", "data": {
            "headStats": {"numSeries": 0, "minTime": min, "maxTime": max}}});
        let empty = LabelTable::from_tsdb_status(empty.to_string().as_bytes(), NOW, 10);
        assert!(matches!(empty, Err(TableError::Empty)), "{empty:?}");
    }
}

#[test]
fn a_table_that_leaves_sources_out_guesses_and_never_bounds() {
    let table = prometheus(NAMES, PAIRS, 100).partial();
    let matchers = &shape("foo", EvalTimes::instant(NOW)).selectors[0].matchers;
    assert_eq!(bound(&table, "foo", recent()), None);
    assert_eq!(table.observed(matchers, recent(), 0), None);
    assert_eq!(table.guess(matchers), Some(600));
}

#[test]
fn a_metric_that_came_after_the_table_is_not_known_to_be_empty() {
    let table = prometheus(NAMES, PAIRS, 100);
    let later = TimeRange::new(NOW - HOUR, NOW + 1);
    assert_eq!(bound(&table, "quux", later), None);
    assert_eq!(bound(&table, "foo", later), Some(600));
    assert_eq!(bound(&table, "quux", recent()), Some(0));
}

#[test]
fn a_day_table_covers_its_day() {
    let body = json!({"status": "success", "isPartial": false, "data": {
        "totalSeries": 20348, "totalLabelValuePairs": 9,
        "seriesCountByMetricName": [{"name": "foo", "value": 524, "requestsCount": 0, "lastRequestTimestamp": 0}],
        "seriesCountByLabelValuePair": entries(&[("__name__=foo", 500)]),
    }});
    let table = LabelTable::from_tsdb_status(body.to_string().as_bytes(), NOW, 10).unwrap();
    assert_eq!(bound(&table, "foo", TimeRange::new(DAY_START, NOW)), Some(500));
    assert_eq!(bound(&table, "foo", TimeRange::new(DAY_START - 1, NOW)), None);
    assert_eq!(bound(&table.covering(0), "foo", TimeRange::new(0, NOW)), Some(500));
}

#[test]
fn the_table_is_bounded_and_keeps_the_largest() {
    let names: Vec<String> = (0..100).map(|i| format!("m{i}")).collect();
    let list: Vec<_> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i as u64)).collect();
    let table = prometheus(&list, &list, 20);
    assert_eq!(bound(&table, "m99", recent()), Some(99));
    assert_eq!(bound(&table, "m0", recent()), Some(80));
}

#[test]
fn anything_else_is_refused() {
    for body in [
        "",
        "null",
        "[]",
        r#"{"status":"error","errorType":"x","error":"y"}"#,
        r#"{"status":"success"}"#,
        r#"{"status":"success","isPartial":true,"data":{"totalSeries":5}}"#,
        r#"{"status":"success","data":{"totalSeries":-5}}"#,
        r#"{"status":"success","data":{"seriesCountByMetricName":[{"name":1}]}}"#,
    ] {
        assert!(LabelTable::from_tsdb_status(body.as_bytes(), NOW, 10).is_err(), "{body}");
    }
    // Data that says nothing bounds nothing.
    let silent = br#"{"status":"success","data":{}}"#;
    let table = LabelTable::from_tsdb_status(silent, NOW, 10).unwrap();
    assert_eq!(bound(&table, "foo", recent()), None);
}

#[test]
fn what_left_the_head_is_added_for_windows_behind_it() {
    let table = prometheus(NAMES, PAIRS, 100);
    let matchers = &shape("foo", EvalTimes::instant(NOW)).selectors[0].matchers;
    let observed = |window, gone| table.observed(matchers, window, gone);
    let day = TimeRange::new(NOW - 24 * HOUR, NOW);
    assert_eq!(observed(day, 50), Some(Estimate::new(650, Confidence::Learned)));
    assert_eq!(observed(day, u64::MAX).unwrap().value, u64::MAX);
    assert_eq!(observed(TimeRange::new(NOW, NOW + HOUR), 0), None, "what comes is not in it");
}

#[test]
fn a_wider_table_answers_where_the_narrow_one_does_not() {
    let narrow = prometheus(NAMES, PAIRS, 100);
    let wide = prometheus(&[("foo", 5_000), ("gone", 70)], &[], 100).covering(i64::MIN);
    let table = narrow.or(wide);
    let old = TimeRange::new(0, NOW);
    assert_eq!(bound(&table, "foo", recent()), Some(600));
    // Never more than there are.
    assert_eq!(bound(&table, "foo", old), Some(1_000));
    assert_eq!(bound(&table, "gone", old), Some(70));
    assert_eq!(table.guess(&shape("gone", EvalTimes::instant(NOW)).selectors[0].matchers), Some(0));
}
