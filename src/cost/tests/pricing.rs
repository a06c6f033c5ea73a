use super::*;
use crate::{
    base::QueryCost,
    cost::{UNKNOWN_SERIES, Unknown},
};

const ALL: &str = r#"{__name__=~".+",job!="self"}"#;

/// Rises of resident memory measured over 20,000 series and 6 h at 15 s, in MB: query, step (0: instant), and for
/// Prometheus 2.42 and VictoriaMetrics 1.79 the rise, 0 where nobody measured.
const MEASURED: &[(&str, u64, u64, u64)] = &[
    ("sum by (job) (ALL)", 15, 1_010, 65),
    ("ALL", 15, 3_720, 865),
    ("ALL", 60, 1_050, 283),
    ("count(ALL)", 0, 30, 0),
    ("count(ALL)", 3600, 172, 0),
];

#[test]
fn memory_is_near_what_was_measured() {
    let status = r#"{"status":"success","data":{"labelValueCountByLabelName":[{"name":"job","value":10}]}}"#;
    let table = LabelTable::from_tsdb_status(status.as_bytes(), NOW, 100).unwrap();
    for (query, step, prometheus, victoria) in MEASURED {
        let times = if *step == 0 { EvalTimes::instant(NOW) } else { six_hours(*step) };
        for (kind, measured) in [(Kind::Prometheus, *prometheus), (Kind::VictoriaMetrics, *victoria)] {
            let shape = shape(&query.replace("ALL", ALL), times);
            let known = Knowledge { series: &[counted(20_000)], table: Some(&table), entry_bytes: None };
            let estimate = estimate(&shape, &known, &model(kind));
            let mb = estimate.cost.memory.value as f64 / 1e6;
            let ratio = mb / measured as f64;
            let near = measured == 0 || (0.5..2.0).contains(&ratio);
            assert!(near, "{kind:?} {query} at {step}: {mb:.0} MB against {measured}");
        }
    }
}

#[test]
fn an_aggregation_over_windows_weighs_as_one_over_instants() {
    // Nobody measured its memory, but it materialises 361 steps as the plain one does.
    let windows =
        priced(&format!("sum by (job) (last_over_time({ALL}[5m]))"), six_hours(60), 20_000, Kind::Prometheus);
    let instants = priced(&format!("sum by (job) ({ALL})"), six_hours(60), 20_000, Kind::Prometheus);
    let ratio = windows.cost.memory.value as f64 / instants.cost.memory.value as f64;
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
    // Operand and result.
    assert_eq!(windows.cost.points.value, 30_000 * 361);
}

#[test]
fn what_cannot_be_folded_is_held_by_streaming_engines_too() {
    let memory = |query: &str| priced(query, six_hours(15), 10_000, Kind::VictoriaMetrics).cost.memory.value;
    assert!(memory("quantile(0.5, foo)") > 4 * memory("sum(foo)"));
    assert!(memory("sum(foo / foo)") > 4 * memory("sum(foo)"));
}

#[test]
fn every_kind_prices_more_series_higher_and_nothing_overflows() {
    use Kind::{Cortex, M3, Mimir, Prometheus, Thanos, VictoriaMetrics, Weir};
    for kind in [Prometheus, VictoriaMetrics, Thanos, Mimir, Cortex, M3, Weir] {
        let memory = |n| priced("rate(foo[5m])", six_hours(60), n, kind).cost.memory.value;
        assert!(memory(0) > 0 && memory(10) > memory(0) && memory(100_000) > 100 * memory(100), "{kind:?}");
        assert_eq!(memory(u64::MAX), u64::MAX, "{kind:?}");
    }
}

#[test]
fn the_sums_are_arithmetic() {
    let estimate = priced("rate(foo[1h])", six_hours(60), 100, Kind::Prometheus);
    let d = estimate.cost;
    // 7 h of window: 1680 samples. It ends on a block boundary of 2 h (22:00) and starts at 15:00.001: the blocks
    // of 14, 16, 18, 20 and 22 h.
    assert_eq!((d.series, d.samples.value, d.blocks.value), (Estimate::exact(100), 168_000, 500));
    assert_eq!((d.points.value, d.steps, d.range_seconds, d.selectors), (36_100, 361, 21_600, 1));
    assert_eq!(d.samples.confidence, Confidence::UpperBound);
    let d = priced("1 + 1", EvalTimes::instant(0), 9, Kind::Prometheus).cost;
    assert!(d.memory.value < 128 << 10, "{d:?}");
    let (points, memory) = (Estimate::exact(0), Estimate::exact(0));
    assert_eq!(QueryCost { points, memory, ..d }, QueryCost { text: d.text, ..QueryCost::NOTHING });
    assert_eq!((d.text.bytes, d.text.nodes), (5, 3));
}

#[test]
fn the_same_series_count_once_but_are_read_twice() {
    let d = priced("foo / foo offset 1h", EvalTimes::instant(NOW), 100, Kind::Prometheus).cost;
    assert_eq!((d.series.value, d.samples.value, d.selectors), (100, 4_000, 2));
    let d = priced("foo / bar", EvalTimes::instant(NOW), 100, Kind::Prometheus).cost;
    assert_eq!(d.series.value, 200);
}

#[test]
fn a_raw_matrix_weighs_its_samples() {
    let d = priced("foo[6h]", EvalTimes::instant(NOW), 20_000, Kind::Prometheus).cost;
    let range = priced("foo", six_hours(15), 20_000, Kind::Prometheus).cost;
    let ratio = d.memory.value as f64 / range.memory.value as f64;
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn the_node_is_priced_at_what_its_pools_lend() {
    const MIB: u64 = 1 << 20;
    let memory = |query: &str, step| priced(query, six_hours(step), 20_000, Kind::Weir).cost.memory.value;
    // Rows of 1,441 numbers come from a bucket of 1,536: 234 MiB; a sum of them holds accumulators alone.
    assert!((234 * MIB..280 * MIB).contains(&memory("foo", 15)), "{}", memory("foo", 15));
    assert!(memory("sum(foo)", 15) < MIB);
    // Samples as they are have times.
    let samples = priced("foo[6h]", EvalTimes::instant(NOW), 20_000, Kind::Weir).cost.memory.value;
    assert!((460 * MIB..540 * MIB).contains(&samples), "{samples}");
}

#[test]
fn nothing_known_is_what_the_configuration_says() {
    let shape = shape("foo", EvalTimes::instant(NOW));
    for (unknown, series) in
        [(Unknown::Allow, 0), (Unknown::Deny, UNKNOWN_SERIES), (Unknown::Number(1234), 1234)]
    {
        let model = Model { unknown, ..Model::default() };
        let e = estimate(&shape, &Knowledge::default(), &model);
        assert_eq!(e.cost.series, Estimate::new(series, Confidence::Assumed));
        assert_eq!(e.cost.memory.confidence, Confidence::Assumed);
        assert_eq!(e.selectors[0].source, Source::Assumed);
    }
}

#[test]
fn odd_models_do_no_harm() {
    let odd = Model { block_duration_ms: 0, scrape_interval_ms: 0, ..Model::default() };
    let d = estimate(&shape("foo", EvalTimes::instant(NOW)), &Knowledge::from(&[counted(3)][..]), &odd).cost;
    assert_eq!((d.blocks.value, d.samples.value), (3, 3));
    let odd = Model { block_duration_ms: u64::MAX, scrape_interval_ms: u64::MAX, ..Model::default() };
    let d = estimate(&shape("foo", EvalTimes::instant(NOW)), &Knowledge::from(&[counted(3)][..]), &odd).cost;
    assert_eq!((d.blocks.value, d.samples.value), (3, 3));
}
