//! Queries that take far more than their selectors suggest, with the rise of resident memory that each was measured to
//! cause on Prometheus (2,000 series × 6 h at 15 s where the case says nothing else).

use super::*;
use crate::promql::shape::Reads;

pub(super) const MIB: f64 = 1_048_576.0;

struct Case {
    query: String,
    times: EvalTimes,
    series: u64,
    buckets: u32,
    rise_mib: f64,
    /// How many times the rise the estimate may be.
    most: f64,
}

fn case(query: impl Into<String>, times: EvalTimes, series: u64, rise_mib: f64) -> Case {
    Case { query: query.into(), times, series, buckets: 0, rise_mib, most: 4.0 }
}

/// `label_replace` of label `a` of an inner expression by this many references to itself.
fn grown(inner: &str, references: usize) -> String {
    format!(r#"label_replace({inner},"a","{}","a","(.*)")"#, "$1".repeat(references))
}

fn cases() -> Vec<Case> {
    let instant = EvalTimes::instant(NOW);
    let long = |text: usize| format!(r#"label_replace(vector(1),"a","{}","","")"#, "x".repeat(text));
    let fine = EvalTimes { start: NOW - 6 * HOUR, end: NOW - 6 * HOUR + 10_740 * 2_000, step: 2_000 };
    let graph = EvalTimes { start: NOW - 200 * 15_000, end: NOW, step: 15_000 };
    let wide = EvalTimes { start: NOW - 699 * 15_000, end: NOW, step: 15_000 };
    vec![
        case("sum_over_time(vector(1)[100000s:10ms])", instant, 0, 1_665.0),
        case("sum_over_time(absent(nope)[100000s:10ms])", instant, 0, 1_665.0),
        case("sum_over_time((nope or vector(0))[100000s:10ms])", instant, 0, 1_665.0),
        case("sum_over_time(vector(time())[100000s:10ms])", instant, 0, 1_665.0),
        // Killed at this size.
        case(grown(&grown(&long(500), 1_000), 1_000), instant, 0, 3_072.0),
        case(grown(&long(30_000), 15_000), instant, 0, 2_147.0),
        case("sum((m @ end()) or vector(time()))", fine, 2_000, 1_833.0),
        case("sum(sum_over_time((m @ end())[6h:500ms]))", instant, 500, 876.0),
        case("sum(sum_over_time(last_over_time(m[1m:1m])[6h:500ms]))", instant, 500, 527.0),
        // A value of its own for each sample, and 5,000 in the data at hand.
        Case { most: f64::INFINITY, ..case(r#"count(count_values("v", m))"#, fine, 2_000, 2_421.0) },
        Case { buckets: 160, ..case("m", graph, 20, 112.0) },
        Case { buckets: 24, ..case("m", wide, 200, 707.0) },
        Case { buckets: 24, ..case("rate(m[1m])", wide, 200, 707.0) },
        case(r#"label_replace(abs(ceil(floor(m))), "x", "$1", "job", "(.*)")"#, six_hours(15), 2_000, 331.0),
    ]
}

pub(super) fn near(name: &str, bytes: u64, rise_mib: f64, most: f64) {
    let ratio = bytes as f64 / MIB / rise_mib;
    assert!(
        (0.5..=most).contains(&ratio),
        "{name:.80}: {:.0} MiB for {rise_mib:.0}, {ratio:.2} times",
        bytes as f64 / MIB
    );
}

#[test]
fn a_query_is_priced_by_all_of_its_nodes() {
    for case in cases() {
        let shape = shape(&case.query, case.times);
        let samples = if case.buckets == 0 { SampleType::Float } else { SampleType::Histogram(case.buckets) };
        let known = vec![counted(case.series).holding(samples); shape.selectors.len()];
        let estimated = estimate(&shape, &Knowledge::from(&*known), &model(Kind::Prometheus));
        near(&case.query, estimated.cost.memory.value, case.rise_mib, case.most);
        assert!(!is_free(&shape), "{:.80}", case.query);
    }
}

/// Cortex collects every sample for any request, and was taken to stream them.
#[test]
fn cortex_streams_no_remote_read() {
    let mut read = shape("m[6h]", EvalTimes::instant(NOW));
    let mut bytes = |kind, streamed| {
        read.reads = Reads::RemoteRead { streamed };
        estimate(&read, &Knowledge::from(&[counted(2_000)][..]), &model(kind)).cost.memory.value
    };
    assert_eq!(bytes(Kind::Cortex, true), bytes(Kind::Cortex, false));
    assert!(bytes(Kind::Mimir, true) < bytes(Kind::Mimir, false) / 4);
}

/// 2,000 series on 594 steps, live heap of VictoriaMetrics 1.79; all were priced as `g` alone, 47 MiB.
#[test]
fn functions_of_metricsql_make_series() {
    let times = EvalTimes { start: NOW - 593 * 15_000, end: NOW, step: 15_000 };
    for (query, live_mib) in [
        ("g", 34.0),
        ("range_avg(g)", 33.0),
        ("rollup(g[5m])", 88.0),
        ("rollup_candlestick(g[5m])", 96.0),
        (r#"quantiles_over_time("phi", 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, g[5m])"#, 266.0),
        ("histogram_over_time(g[5m])", 1_136.0),
        // Of the newer version, which was ended at that.
        (r#"count_values_over_time("v", g[5m])"#, 5_702.0),
    ] {
        let most = if live_mib > 5_000.0 { 10.0 } else { 4.0 };
        let limits = Limits { unknown_functions: true, ..Limits::default() };
        let ast = Arc::new(parse_with(query, &limits).unwrap());
        let shape = Shape::of(&ast, times, DEFAULT_LOOKBACK_MS);
        let known = [counted(2_000)];
        let cost = estimate(&shape, &Knowledge::from(&known[..]), &model(Kind::VictoriaMetrics)).cost;
        near(query, cost.memory.value, live_mib, most);
    }
}

/// Memory that the pools of Weir's node lent for 500 series; these were priced at 0.02 to 0.47 of it.
#[test]
fn the_node_holds_all_rows_of_what_it_chooses_and_counts() {
    let graph =
        |steps: i64| EvalTimes { start: NOW - 2 * HOUR, end: NOW, step: (2 * HOUR / (steps - 1)) as u64 };
    for (query, times, series, live_mib) in [
        ("bottomk without () (31, g)", graph(721), 500, 34.1),
        ("bottomk by (path, job) (22, min_over_time(g[5m] offset -1m))", graph(3_601), 500, 64.4),
        ("bottomk by (job, instance) (41, topk by (path, job) (50, g offset -1m))", graph(3_601), 500, 112.5),
        (
            r#"label_replace(topk without (instance) (40, g), "other", "$1", "job", "(.*)")"#,
            graph(3_601),
            500,
            64.5,
        ),
        (r#"count(count_values("v", g))"#, graph(1_441), 10, 43.3),
        ("sum_over_time(vector(1)[20000s:10ms])", EvalTimes::instant(NOW), 0, 76.4),
        ("sum_over_time(absent(nope)[20000s:10ms])", EvalTimes::instant(NOW), 0, 76.4),
    ] {
        near(query, priced(query, times, series, Kind::Weir).cost.memory.value, live_mib, 4.0);
    }
}

/// Its groups were half of all series and ranges: 140 times the memory that it takes.
#[test]
fn ranges_that_the_query_makes_are_few_groups() {
    let times = EvalTimes { start: NOW - 593 * 15_000, end: NOW, step: 15_000 };
    let limits = Limits { unknown_functions: true, ..Limits::default() };
    let bytes = |query: &str| {
        let shape = Shape::of(&Arc::new(parse_with(query, &limits).unwrap()), times, DEFAULT_LOOKBACK_MS);
        let known = [counted(20_000)];
        estimate(&shape, &Knowledge::from(&known[..]), &model(Kind::VictoriaMetrics)).cost.memory.value
    };
    let plain = bytes("histogram_over_time(g[5m])");
    for query in [
        "sum by (vmrange) (histogram_over_time(g[5m]))",
        "histogram_quantile(0.9, sum by (vmrange) (histogram_over_time(g[5m])))",
    ] {
        assert!(bytes(query) < plain / 50, "{query}: {} of {plain}", bytes(query));
    }
}

/// All that stands above a selector with `@` was priced at one step, as Prometheus evaluates it.
#[test]
fn victoriametrics_evaluates_at_each_step_above_a_selector_at_one_time() {
    let times = EvalTimes { start: NOW - 593 * 15_000, end: NOW, step: 15_000 };
    let bytes = |query: &str| priced(query, times, 2_000, Kind::VictoriaMetrics).cost.memory.value as f64;
    for (fixed, moving) in [
        ("absent(-(m @ end()) >= bool pi())", "absent(-m >= bool pi())"),
        ("quantile(0.9, abs(m @ 1600000000))", "quantile(0.9, abs(m))"),
    ] {
        let ratio = bytes(fixed) / bytes(moving);
        assert!((0.5..=2.0).contains(&ratio), "{fixed}: {ratio:.2} times {moving}");
    }
}

#[test]
fn a_remote_read_is_priced_by_its_answer() {
    let mut read = shape("m[6h]", EvalTimes::instant(NOW));
    for (streamed, least, most) in [(false, 0.5 * 333.0, 2.0 * 333.0), (true, 0.0, 20.0)] {
        read.reads = Reads::RemoteRead { streamed };
        let known = [counted(2_000)];
        let estimated = estimate(&read, &Knowledge::from(&known[..]), &model(Kind::Prometheus));
        let mib = estimated.cost.memory.value as f64 / MIB;
        assert!((least..=most).contains(&mib), "streamed: {streamed}, {mib:.0} MiB");
    }
}

#[test]
fn histograms_are_known_by_what_is_made_of_them() {
    let bytes = |query: &str| priced(query, six_hours(60), 100, Kind::Prometheus).cost.memory.value;
    let floats = bytes("sum by (le) (rate(m_bucket[5m]))");
    for (query, histograms) in [
        ("histogram_quantile(0.9, sum(rate(m[5m])))", true),
        ("histogram_count(m)", true),
        ("histogram_fraction(0, 0.2, sum without (pod) (rate(m[5m])))", true),
        ("histogram_quantile(0.9, sum by (le) (rate(m[5m])))", false),
        ("histogram_quantile(0.9, rate(m_bucket[5m]))", false),
    ] {
        assert_eq!(bytes(query) > 4 * floats, histograms, "{query}: {} and {floats}", bytes(query));
    }
}

/// B11: 200 native histograms over 700 steps took 707 MiB, and were priced as floats.
#[test]
fn native_histograms_are_known_by_the_type_of_their_metric() {
    let metadata = r#"{"status":"success","data":{"m":[{"type":"histogram","help":"","unit":""}],
        "floats":[{"type":"counter","help":"","unit":""}]}}"#;
    let types = MetricTypes::from_metadata(metadata.as_bytes(), 100).unwrap();
    assert_eq!(MetricTypes::from_metadata(b"<html>", 100), None);
    let bytes = |query: &str, types| {
        let (shape, model) = (shape(query, six_hours(30)), model(Kind::Prometheus));
        let known = subject(&shape, &model).from_table(types, |_| None);
        let known: Vec<_> = known.into_iter().map(|known| counted(200).holding(known.samples)).collect();
        estimate(&shape, &Knowledge::from(&*known), &model).cost.memory.value
    };
    for (query, native) in [("m", true), ("rate(m[1m])", true), ("floats", false), ("m_bucket", false)] {
        let (with, without) = (bytes(query, Some(&types)), bytes(query, None));
        assert_eq!(with > 10 * without, native, "{query}: {with} and {without}");
    }
    for (query, samples) in [
        ("m", SampleType::HISTOGRAM),
        ("floats", SampleType::Float),
        ("other_total", SampleType::Float),
        ("other", SampleType::Unknown),
        ("{job=\"x\"}", SampleType::Unknown),
        ("{job=\"x\",le=\"0.1\"}", SampleType::Float),
    ] {
        assert_eq!(types.of(&shape(query, six_hours(30)).selectors[0].matchers), samples, "{query}");
    }
}

/// `count_values` over functions that have few values, and joins whose one side changes its labels: a hundred times too
/// high where each sample was taken for a value, and each change for another label.
#[test]
fn few_values_make_few_series() {
    let status = r#"{"status":"success","data":{"headStats":{"numSeries":2000,"minTime":0},
        "seriesCountByMetricName":[{"name":"m","value":500}],"seriesCountByLabelValuePair":[],
        "labelValueCountByLabelName":[{"name":"instance","value":10},{"name":"job","value":5}]}}"#;
    let table = LabelTable::from_tsdb_status(status.as_bytes(), NOW, 100).unwrap();
    let bytes = |query: &str| {
        let shape = shape(query, six_hours(15));
        let known = vec![counted(500); shape.selectors.len()];
        let known = Knowledge { series: &known, table: Some(&table), entry_bytes: None };
        estimate(&shape, &known, &model(Kind::Prometheus)).cost.memory.value
    };
    let plain = bytes("m + m");
    for (query, most) in [
        ("count_values(\"v\", hour(m))", 2),
        ("count_values by (job) (\"v\", m > bool 1)", 2),
        ("count_values(\"v\", count by (job) (m))", 2),
        ("count_values(\"v\", changes(m[1m]))", 2),
        ("m * on () group_left () topk(1, m)", 2),
        ("m * on () group_left (job) topk(1, m)", 20),
    ] {
        assert!(bytes(query) <= most * plain, "{query}: {} and {plain}", bytes(query));
    }
    // A label that the query makes is not in the table.
    let made = bytes("sum by (x) (label_replace(m, \"x\", \"$1\", \"path\", \"(.*)\"))");
    assert!(made > bytes("sum by (x) (m)") * 4 / 3, "{made}");
}

#[test]
fn groups_are_bounded_by_the_values_of_their_labels() {
    let status = r#"{"status":"success","data":{"headStats":{"numSeries":20000,"minTime":0},
        "seriesCountByMetricName":[{"name":"m","value":20000}],"seriesCountByLabelValuePair":[],
        "labelValueCountByLabelName":[{"name":"pod","value":5000},{"name":"job","value":10}]}}"#;
    let table = LabelTable::from_tsdb_status(status.as_bytes(), NOW, 100).unwrap();
    let bytes = |query: &str, table| {
        let shape = shape(query, six_hours(15));
        let known = [counted(20_000)];
        let known = Knowledge { series: &known, table, entry_bytes: None };
        estimate(&shape, &known, &model(Kind::Prometheus)).cost.memory.value
    };
    let [sum, by_job] = ["sum(m)", "sum by (job) (m)"].map(|query| bytes(query, Some(&table)));
    assert!(by_job < sum * 101 / 100, "{by_job} and {sum}");
    assert!(bytes("sum by (pod) (m)", Some(&table)) > by_job * 11 / 10);
    // A label that is not there makes one group; without a table, half of the series may be groups.
    assert!(bytes("sum by (nope) (m)", Some(&table)) < by_job);
    assert!(bytes("sum by (job) (m)", None) > bytes("sum by (pod) (m)", Some(&table)));
}

#[test]
fn only_the_provably_small_is_free() {
    let graph = six_hours(60);
    for (query, times, free) in [
        ("1+1", EvalTimes::instant(NOW), true),
        ("vector(1)", graph, true),
        ("time()", graph, true),
        (&*vec!["1"; 40].join("+"), EvalTimes::instant(NOW), true),
        ("up", EvalTimes::instant(NOW), false),
        ("absent(up)", EvalTimes::instant(NOW), false),
        ("sum_over_time(vector(1)[1m:1m])", EvalTimes::instant(NOW), false),
        (&*vec!["1"; 1_000].join("+"), graph, false),
        (&*format!("\"{}\"", "x".repeat(200_000)), EvalTimes::instant(NOW), false),
        (&*grown("vector(1)", 10), EvalTimes::instant(NOW), true),
        (
            &*grown(&grown("label_join(vector(1), \"a\", \"0123456789\", \"b\", \"b\")", 100), 100),
            EvalTimes::instant(NOW),
            false,
        ),
    ] {
        assert_eq!(is_free(&shape(query, times)), free, "{query:.80}");
    }
}

/// Memory of nested subqueries adds up, work multiplies.
#[test]
fn nested_subqueries_meet_the_limit_on_samples() {
    let samples = |query: &str, times| priced(query, times, 100, Kind::Prometheus).cost.samples.value;
    let day = 86_400_u64;
    for (query, least, most) in [
        ("sum_over_time(sum_over_time(vector(1)[1d:1s])[1d:1s])", day * day / 16, day * day / 15),
        ("sum_over_time(quantile_over_time(0.5, vector(1)[1d:1s])[1d:1s])", day * day, day * day * 11 / 10),
        ("sum_over_time(vector(1)[1d:1s])", day / 16, day / 15),
        // Brackets around windows hide nothing.
        ("sum_over_time((((sum_over_time(((vector(1)[1d:1s]))))[1d:1s])))", day * day / 16, day * day / 15),
    ] {
        let samples = samples(query, EvalTimes::instant(NOW));
        assert!((least..=most).contains(&samples), "{query}: {samples}");
    }
    // An ordinary graph stays far below fifty million.
    let graph = samples("max_over_time(rate(m[5m])[1h:1m])", six_hours(15));
    assert!(graph < 1_000_000, "{graph}");
}

/// Twice the text is at most twice the work.
#[test]
fn pricing_is_linear() {
    let lookups = |query: &str| {
        let before = crate::cost::interpret::LOOKUPS.with(std::cell::Cell::get);
        priced(query, six_hours(15), 100, Kind::Prometheus);
        crate::cost::interpret::LOOKUPS.with(std::cell::Cell::get) - before
    };
    let chain = |n: usize, by: &str| (0..n).map(|i| format!("x{i}")).collect::<Vec<_>>().join(by);
    let nested = |n: usize, open: &str, close: &str| format!("{}x{}", open.repeat(n), close.repeat(n));
    let texts: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("sums", &|n| chain(n * 10, "+")),
        ("unions", &|n| chain(n * 10, " or ")),
        ("brackets", &|n| nested(n / 8, "(", ")")),
        ("subqueries", &|n| nested(n / 8, "sum_over_time(", "[1h:1s])")),
        ("strings in brackets", &|n| {
            nested(n / 8, "label_replace(", ", ((((\"a\")))), \"$1\", \"b\", \"(.*)\")")
        }),
        ("labels", &|n| format!("label_join(x, \"a\", \"\", {})", vec!["\"b\""; n * 10].join(","))),
        ("matchers", &|n| format!("sum by ({}) (x)", chain(n * 10, ","))),
    ];
    for (name, text) in texts {
        let (once, twice) = (lookups(&text(200)), lookups(&text(400)));
        assert!(twice <= once * 2 + 16, "{name}: {once}, then {twice}");
    }
}

/// `month(count(stdvar by () (m)))` took VictoriaMetrics 20 MiB, and was priced at one.
#[test]
fn victoriametrics_collects_what_it_cannot_fold() {
    let bytes = |query: &str| priced(query, six_hours(6), 500, Kind::VictoriaMetrics).cost.memory.value;
    assert!(bytes("sum(m)") < 4 << 20, "{}", bytes("sum(m)"));
    for query in ["stdvar(m)", "stddev(m)", "quantile(0.9, m)", "sum(-m)"] {
        assert!(bytes(query) > 12 << 20, "{query}: {}", bytes(query));
    }
}

/// MetricsQL takes a sum for a scalar, which meets each series: `g / sum(g)` was priced as one series, and so were all four of these,
/// which it holds at the same time.
#[test]
fn victoriametrics_joins_a_single_series_with_all() {
    let mib = |query: &str, kind| priced(query, six_hours(15), 2_000, kind).cost.memory.value >> 20;
    let four = ["a", "b", "c", "d"].map(|name| format!("{name} / sum({name})")).join(" or ");
    let scaled = ["a", "b", "c", "d"].map(|name| format!("{name} * 2")).join(" or ");
    let (joined, all) = (mib(&four, Kind::VictoriaMetrics), mib(&scaled, Kind::VictoriaMetrics));
    assert!(joined > all / 4 * 3, "{joined} and {all} MiB");
    // PromQL matches labels.
    assert!(mib(&four, Kind::Prometheus) < mib(&scaled, Kind::Prometheus) / 2);
}
