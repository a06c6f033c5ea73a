//! Lists of label sets, names, values and exemplars, and label sets that are longer than usual, with the live heap that
//! each was measured to take of Prometheus 2.42.

use serde_json::json;

use super::{hostile::near, *};
use crate::{
    base::LabelSize,
    promql::shape::{Listed, Reads},
};

/// Label sets of 2,010 bytes, one value of which has 2,000.
const LONG: LabelSize = LabelSize { set: 2_010, longest: 2_000 };

/// 60,000 series of 115 bytes and 10,000 that have a label of 2,000; `for_each_series` is how newer versions count.
fn table(for_each_series: bool) -> LabelTable {
    let entries = |list: &[(&str, u64)]| -> serde_json::Value {
        list.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    };
    let memory: &[(&str, u64)] = if for_each_series {
        &[("sql", 20_030_000), ("pod", 2_280_000), ("__name__", 830_000), ("job", 510_000)]
    } else {
        &[("sql", 20_000_000), ("pod", 2_100_000), ("job", 60), ("__name__", 9)]
    };
    let body = json!({"status": "success", "data": {
        "headStats": {"numSeries": 70_000, "minTime": NOW - HOUR, "maxTime": NOW},
        "seriesCountByMetricName": entries(&[("wide", 60_000), ("longl", 10_000)]),
        "labelValueCountByLabelName": entries(&[("pod", 60_000), ("sql", 10_000), ("job", 11), ("__name__", 2)]),
        "memoryInBytesByLabelName": entries(memory),
        "seriesCountByLabelValuePair": entries(&[("__name__=wide", 60_000), ("job=long", 10_000)]),
    }});
    LabelTable::from_tsdb_status(body.to_string().as_bytes(), NOW, 10).unwrap()
}

fn mib(shape: &Shape, known: &[SeriesKnowledge], table: Option<&LabelTable>, kind: Kind) -> u64 {
    estimate(shape, &Knowledge { series: known, table, entry_bytes: None }, &model(kind)).cost.memory.value
}

/// Label sets were taken for 320 bytes at any length: 44 MiB for the 653 of the first.
#[test]
fn long_label_sets_are_priced_by_their_length() {
    for (query, live_mib) in [
        (r#"label_replace(longl, "a", "$1$1$1$1$1$1$1$1$1$1", "sql", "(.*)")"#, 653.0),
        (
            r#"count(label_join(longl, "a", "", "sql", "sql", "sql", "sql", "sql", "sql", "sql", "sql"))"#,
            281.0,
        ),
        ("longl", 123.0),
        ("longl * on (sql) longl", 179.0),
    ] {
        let shape = shape(query, EvalTimes::instant(NOW));
        let counted = vec![counted(10_000).labelled(Some(LONG)); shape.selectors.len()];
        near(query, mib(&shape, &counted, None, Kind::Prometheus), live_mib, 4.0);
        // The table knows it before anything is counted.
        for by_series in [false, true] {
            let known = vec![at_most(10_000); shape.selectors.len()];
            let priced = mib(&shape, &known, Some(&table(by_series)), Kind::Prometheus);
            near(query, priced, live_mib, 4.0);
        }
    }
}

/// The length of another label does not make a short one long.
#[test]
fn only_the_label_that_is_copied_counts() {
    let of = |source: &str| {
        let query = format!(r#"count(label_replace(longl, "a", "{}", "{source}", "(.*)"))"#, "$1".repeat(50));
        let shape = shape(&query, EvalTimes::instant(NOW));
        mib(&shape, &[at_most(10_000).labelled(Some(LONG))], Some(&table(true)), Kind::Prometheus)
    };
    assert!(of("sql") > 5 * of("job"), "{} and {}", of("sql"), of("job"));
}

#[test]
fn listings_are_priced_by_what_they_list() {
    let listing = |listed: Listed, matched: Option<&str>| {
        let read = matched.map(|query| shape(query, six_hours(21_600)));
        Shape::unevaluated(Reads::Listing(listed), read.map_or_else(Vec::new, |shape| shape.selectors))
    };
    let values = |label: &str, matched| listing(Listed::Values(label.into()), matched);
    let (wide, long) = (LabelSize { set: 115, longest: 40 }, LONG);
    let table = table(false);
    for (name, shape, series, labels, live_mib, most) in [
        ("series of wide", listing(Listed::Series, Some("wide")), 60_000, wide, 34.0, 4.0),
        ("series of longl", listing(Listed::Series, Some("longl")), 10_000, long, 89.0, 4.0),
        // Both were priced at 64 KiB, the resident memory rose by 90 and 10 MiB.
        ("values of sql", values("sql", None), 0, long, 68.0, 2.0),
        ("values of pod", values("pod", None), 0, wide, 10.0, 4.0),
        ("values of pod of wide", values("pod", Some("wide")), 60_000, wide, 13.0, 4.0),
        ("values of a label in escapes", values("", None), 0, long, 68.0, 8.0),
        // 2,500 series with 40 exemplars each were priced at 4.9 MiB.
        ("exemplars", listing(Listed::Exemplars, Some("ex")), 2_500, wide, 36.0, 2.0),
    ] {
        let known = vec![counted(series).labelled(Some(labels)); shape.selectors.len()];
        near(name, mib(&shape, &known, Some(&table), Kind::Prometheus), live_mib, most);
    }
    // The same selector again lists nothing more.
    let twice =
        Shape::unevaluated(Reads::Listing(Listed::Series), shape("wide + wide", six_hours(21_600)).selectors);
    let once = listing(Listed::Series, Some("wide"));
    let known = [counted(60_000), counted(60_000)];
    let priced = |shape: &Shape, known: &[SeriesKnowledge]| mib(shape, known, None, Kind::Prometheus);
    assert_eq!(priced(&twice, &known), priced(&once, &known[..1]));
}

/// VictoriaMetrics and M3 do not say how long labels are: values of 2,000 bytes were priced at a twelfth of their memory.
#[test]
fn earlier_answers_say_how_long_entries_are() {
    let all = Shape::unevaluated(Reads::Listing(Listed::Values("sql".into())), Vec::new());
    let of_metric = Shape { selectors: shape("longl", six_hours(21_600)).selectors, ..all.clone() };
    let series = Shape { reads: Reads::Listing(Listed::Series), ..of_metric.clone() };
    for kind in [Kind::VictoriaMetrics, Kind::M3] {
        for (shape, known) in
            [(&all, vec![]), (&of_metric, vec![at_most(10_000)]), (&series, vec![at_most(10_000)])]
        {
            let priced = |entry_bytes| {
                let known = Knowledge { series: &known, table: None, entry_bytes };
                estimate(shape, &known, &model(kind)).cost.memory.value
            };
            assert!(priced(Some(2_003)) - priced(None) >= 20_000_000, "{kind:?} {:?}", shape.reads);
        }
    }
}
