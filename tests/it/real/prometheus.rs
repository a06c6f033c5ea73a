//! Weir in front of a real Prometheus. Skipped, by name, where it is not installed.

use std::time::{Duration, Instant};

use http::Method;

use weir::{
    base::time::EvalTimes,
    promql::{
        self,
        shape::{DEFAULT_LOOKBACK_MS, Shape},
    },
};

use crate::{
    support::sockets::client,
    support::{
        real::{Database, data::dashboard_queries, encode, prometheus, raw, sum_of},
        weir::Weir,
    },
};

/// These tests ask more than 50 times a second.
pub(crate) const NO_RATE: &str = "limits: {default: {rate: {queries: unlimited}}}";

/// How often a backend is asked again for another order of its rows.
const OTHER_ORDERS: usize = 20;

/// Instant and range queries over the seeded data, windows inside and outside of the head.
pub(crate) const QUERIES: [&str; 30] = [
    "requests_0_total",
    r#"requests_0_total{job="api",instance="10.0.0.1:9100"}"#,
    r#"level_1{path=~"/[a-c]"}"#,
    r#"{__name__=~"level_[0-2]",job="db"}"#,
    "sum by (job) (rate(requests_1_total[5m]))",
    "sum(rate(requests_1_total[5m])) / sum(rate(requests_2_total[5m]))",
    "sort(histogram_quantile(0.9, sum by (le, job) (rate(latency_bucket[5m]))))",
    "topk(3, level_2)",
    "count by (job) (level_0)",
    "max_over_time(level_3[20m])",
    "avg_over_time(level_3[10m] offset 1h)",
    "max_over_time(sum(rate(requests_3_total[5m]))[30m:1m])",
    "level_0 * on (job, instance, path) group_left () level_1",
    "absent(nothing_here)",
    "nothing_here",
    "count(pod_restarts_total)",
    "count(last_over_time(pod_restarts_total[3h]))",
    "1 + 1",
    "time()",
    r#""a string""#,
    "vector(7)",
    r#"label_replace(level_0{job="api"}, "host", "$1", "instance", "(.*):.*")"#,
    "sort_desc(level_1 > 50)",
    "level_1 and level_2",
    r#"level_1{job="api"} or level_2{job="db"}"#,
    "quantile by (path) (0.5, level_2)",
    "stddev(level_3)",
    "-level_3 ^ 2",
    "sum without (instance) (increase(requests_2_total[1h]))",
    "clamp_max(deriv(level_0[15m]), 1)",
];

pub(crate) async fn before(database: &Database, kind: &str, more: &str) -> Weir {
    let url = &database.url;
    let yaml = format!(
        "backends: [{{name: main, kind: {kind}, urls: [\"{url}\"], scrape_interval: 30s, budget: {{memory: 8GiB}}}}]\n{more}"
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    weir
}

/// Every query as GET and POST, plain and compressed, instant and range: the answers are the backend's own.
pub(crate) async fn same_answers(database: &Database, weir: &Weir, queries: &[&str]) {
    // In the last half minute VictoriaMetrics answers for another moment than it was asked about.
    let (client, end) = (client(), database.data.end - 60);
    for query in queries {
        let query = encode(query);
        let instant = format!("query={query}&time={end}");
        let range = format!("query={query}&start={}&end={end}&step=60", end - 7_200);
        for (path, params) in [("/api/v1/query", &instant), ("/api/v1/query_range", &range)] {
            for (method, gzip) in [(Method::GET, false), (Method::GET, true), (Method::POST, false)] {
                let (target, form) = if method == Method::GET {
                    (format!("{path}?{params}"), "")
                } else {
                    (path.to_owned(), params.as_str())
                };
                let url = format!("{}{target}", database.url);
                let through = raw(&client, method.clone(), &weir.url(&target), form, gzip).await;
                let mut direct = raw(&client, method.clone(), &url, form, gzip).await;
                // Where nothing sorts them, the backend itself gives equal rows in any order.
                for _ in 0..OTHER_ORDERS {
                    if direct == through {
                        break;
                    }
                    direct = raw(&client, method.clone(), &url, form, gzip).await;
                }
                assert_eq!(through, direct, "{method} {path} {params} gzip={gzip}");
            }
        }
    }
    weir.until_idle().await;
}

#[tokio::test]
async fn answers_are_prometheus_own_byte_for_byte() {
    let Some((_alone, database)) = prometheus("answers_are_prometheus_own_byte_for_byte").await else {
        return;
    };
    let weir = before(database, "prometheus", NO_RATE).await;
    same_answers(database, &weir, &QUERIES).await;
    let bad = weir.get("/api/v1/query?query=sum(").await;
    assert_eq!(bad.status, 400, "{}", bad.body);
    assert!(sum_of(&weir.metrics(), "weir_admissions_total", &[]) > 100.0, "{}", weir.metrics());
}

/// A split query has the answer of the whole, whatever the function, and the grid of the whole.
#[tokio::test]
async fn pieces_make_the_answer_of_the_whole() {
    let Some((_alone, database)) = prometheus("pieces_make_the_answer_of_the_whole").await else { return };
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"], scrape_interval: 30s, budget: {{memory: 512MiB, split_above: 1%, unproven: 100%}}}}]\n\
         limits: {{default: {{rate: {{queries: unlimited}}, per_query: {{memory: unlimited}}, in_flight: {{memory: 512MiB}}}}}}",
        database.url
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let (client, end) = (client(), database.data.end - 60);
    let mut split = 0;
    let more = ["count_values(\"v\", level_0)", "topk by (job) (2, level_1)", "sum(level_0 @ end())"];
    for query in QUERIES.iter().chain(&more) {
        for times in [
            format!("start={}&end={end}&step=15", end - 7_200),
            format!("start={}.123&end={end}.7&step=7.5", end - 3_600),
        ] {
            let target = format!("/api/v1/query_range?query={}&{times}", encode(query));
            let through = weir.get(&target).await;
            // A free query has no estimate.
            let estimate = through.headers.get("weir-estimate").map(|estimate| estimate.to_str().unwrap());
            let in_parts = estimate.is_some_and(|estimate| estimate.contains("pieces="));
            split += usize::from(in_parts);
            let url = format!("{}{target}", database.url);
            let direct = raw(&client, Method::GET, &url, "", false).await;
            assert_eq!(through.status, direct.status, "{query}: {}", through.body);
            let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
            let (through, direct) = (json(through.body.as_bytes()), json(&direct.body));
            assert_eq!(through, direct, "{query} {times} in parts: {in_parts}");
        }
    }
    assert!(split > 20, "{split}");
    weir.until_idle().await;
}

/// Series that come and go.
const SHORT_LIVED: [&str; 3] =
    ["pod_restarts_total", r#"pod_restarts_total{pod=~"pod-1.*"}"#, r#"pod_restarts_total{pod="pod-7"}"#];

/// Selectors of every kind of matcher.
pub(crate) const SELECTORS: [&str; 32] = [
    "requests_0_total",
    "level_3",
    "latency_bucket",
    r#"requests_0_total{job="api"}"#,
    r#"requests_0_total{job!="api"}"#,
    r#"requests_0_total{job=~"api|db"}"#,
    r#"requests_0_total{job!~"api|db"}"#,
    r#"requests_0_total{job=~"[a-d].*"}"#,
    r#"requests_1_total{instance="10.0.0.3:9100"}"#,
    r#"requests_1_total{instance=~"10.0.0.[0-4]:9100",path="/a"}"#,
    r#"requests_1_total{path="/"}"#,
    r#"requests_1_total{path=~"/."}"#,
    r#"requests_1_total{nothing=""}"#,
    r#"requests_1_total{nothing="x"}"#,
    r#"latency_bucket{le="+Inf"}"#,
    r#"latency_bucket{le=~"0.*"}"#,
    r#"latency_bucket{shard="a",job="db"}"#,
    r#"{job="api"}"#,
    r#"{job=~"api|web",path="/d"}"#,
    r#"{__name__=~"level_.*"}"#,
    r#"{__name__=~"level_[01]",job="queue"}"#,
    r#"{__name__=~"requests_(0|3)_total"}"#,
    r#"{instance=~"10.*"}"#,
    r#"{instance="web-1:9100"}"#,
    r#"{__name__!~"level.*",job="web"}"#,
    r#"{__name__="level_2",path="/c"}"#,
    r#"level_1{instance!="10.0.0.1:9100"}"#,
    r#"level_1{instance!~".*[13579]:9100",job=~"a.i"}"#,
    r#"latency_bucket{path=~"/|/a"}"#,
    r#"{job="queue",shard="b"}"#,
    "absent_metric",
    r#"level_0{instance=~"10.0.0.1.*",path!~"/[ab]"}"#,
];

/// Nothing fits, so that the backend is asked about everything.
const ALL_IN_DOUBT: &str =
    "limits: {default: {modes: {samples: shadow}, per_query: {samples: 1}, rate: {queries: unlimited}}}";

/// The estimated series of every selector are the backend's own count, within 2 % where series stay. Those that come
/// and go may be overrated, never underrated by more: `exact` backends get them right as well.
pub(crate) async fn estimates_are_true(database: &Database, kind: &str, exact: bool) {
    let (weir, end) = (before(database, kind, ALL_IN_DOUBT).await, database.data.end);
    let mut wrong = Vec::new();
    let selectors = || SELECTORS.iter().chain(&SHORT_LIVED);
    for (window, selector) in
        ["10m", "1h", "3h"].iter().flat_map(|window| selectors().map(move |s| (window, s)))
    {
        let query = encode(&format!("last_over_time({selector}[{window}])"));
        let answer = weir.get(&format!("/api/v1/query_cost?query={query}&time={end}")).await.json();
        let estimated = answer["data"]["estimate"]["seriesTouched"].as_u64().unwrap();
        let truth = database.truth(selector, window, end).await;
        let excused = SHORT_LIVED.contains(selector) && !exact && estimated > truth;
        if estimated.abs_diff(truth) > truth / 50 && !excused {
            let by = &answer["data"]["selectors"][0]["series"];
            wrong.push(format!("{selector}[{window}]: {estimated} estimated, {truth} counted: {by}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn prometheus_series_are_estimated_within_two_percent() {
    let name = "prometheus_series_are_estimated_within_two_percent";
    let Some((_alone, database)) = prometheus(name).await else { return };
    estimates_are_true(database, "prometheus", true).await;
}

/// Queries that no database should see with a limit of 1,000 series.
pub(crate) const HEAVY: [(&str, i64); 5] = [
    (r#"{__name__=~".+"}"#, 30 * 86_400),
    (r#"sum by (job) (rate({__name__=~"(requests|level)_.*"}[5m]))"#, 10_800),
    (r#"{path!=""}"#, 10_800),
    (r#"count({job=~"[a-z]+"})"#, 10_800),
    (r#"max_over_time({__name__!=""}[30d])"#, 600),
];

/// Refuses them all, quickly once warm.
pub(crate) async fn refuses_the_heavy(database: &Database, weir: &Weir) {
    let end = database.data.end;
    for round in ["cold", "warm", "warm"] {
        for (query, seconds) in HEAVY {
            let (query, start) = (encode(query), end - seconds);
            let began = Instant::now();
            let target = format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=3600");
            let answer = weir.get(&target).await;
            let took = began.elapsed();
            assert_eq!(answer.status, 422, "{query}: {}", answer.body);
            assert!(answer.error().contains("(weir-max-series"), "{}", answer.body);
            // A debug build on a busy machine; the measured figures are those of a release build.
            assert!(round == "cold" || took < Duration::from_millis(100), "{query} took {took:?}");
        }
    }
    weir.until_idle().await;
}

#[tokio::test]
async fn what_is_too_heavy_never_runs_on_prometheus() {
    let Some((_alone, database)) = prometheus("what_is_too_heavy_never_runs_on_prometheus").await else {
        return;
    };
    let weir = before(database, "prometheus", "limits: {default: {per_query: {series: 1_000}}}").await;
    let range_queries = ["handler=\"/api/v1/query_range\""];
    let ran = async || {
        let requests = database.own_metric("prometheus_http_requests_total", &range_queries).await;
        (requests, database.own_metric("prometheus_engine_query_samples_total", &[]).await)
    };
    let before = ran().await;
    refuses_the_heavy(database, &weir).await;
    let after = ran().await;
    assert_eq!(after.0, before.0, "a refused query ran");
    // The counts of the probes, once each: one instant, no range of steps.
    let probed = 4.0 * database.data.series() as f64;
    assert!(after.1 - before.1 <= probed, "{} samples read, {probed} at most by probes", after.1 - before.1);
}

/// Loads a dashboard again and again; the share of its queries that needed a probe, of `loads` loads.
async fn share_probed(weir: &Weir, queries: &[&str], start: i64, end: i64, loads: i64) -> f64 {
    let probes = || sum_of(&weir.metrics(), "weir_probe_cache_total", &["result=\"miss\""]);
    let (before, mut asked) = (probes(), 0.0);
    for load in 0..loads {
        for query in queries {
            let (start, end) = (start + load * 15, end + load * 15);
            let target =
                format!("/api/v1/query_range?query={}&start={start}&end={end}&step=30", encode(query));
            let answer = weir.get(&target).await;
            // A match that is not one to one is the backend's own to refuse.
            assert!(matches!(answer.status.as_u16(), 200 | 422), "{query}: {}", answer.body);
            assert!(!answer.body.contains("(weir-"), "{query}: {}", answer.body);
            asked += 1.0;
        }
    }
    (probes() - before) / asked
}

#[tokio::test]
async fn dashboards_are_decided_without_probes() {
    let Some((_alone, database)) = prometheus("dashboards_are_decided_without_probes").await else { return };
    let weir = before(database, "prometheus", NO_RATE).await;
    let (queries, end) = (dashboard_queries(), database.data.end - 300);
    let times = EvalTimes { start: (end - 120) * 1_000, end: end * 1_000, step: 30_000 };
    let in_head = |query: &&str| {
        let shape = Shape::of(&promql::parse(query).unwrap().into(), times, DEFAULT_LOOKBACK_MS);
        shape.selectors.iter().all(|selector| selector.window.start / 1_000 > database.data.head_start())
    };
    let recent: Vec<_> = queries.iter().copied().filter(in_head).collect();
    assert!(recent.len() * 4 > queries.len() * 3, "{} of {} queries", recent.len(), queries.len());
    let of_head = share_probed(&weir, &recent, end - 120, end, 1).await;
    assert!(of_head <= 0.05, "{of_head} of a dashboard's queries were probed, over what the head holds");
    let first = share_probed(&weir, &queries, end - 5_400, end, 1).await;
    let later = share_probed(&weir, &queries, end - 5_400, end, 3).await;
    // Half a minute moves a window into another granule once at most.
    assert!(later <= first / 2.0, "{later} were probed again, {first} at first, over what blocks hold");
}

/// Of 160 series that each live twenty minutes, an instant sees some twenty: a limit of 100 still holds.
#[tokio::test]
async fn series_that_came_and_went_count() {
    let name = "series_that_came_and_went_count";
    let Some((_alone, database)) = prometheus(name).await else { return };
    let end = database.data.end - 60;
    let query = encode("sum(sum_over_time(pod_restarts_total[3h]))");
    let lists =
        async || database.own_metric("prometheus_http_requests_total", &["handler=\"/api/v1/series\""]).await;
    for (limit, refused, listed) in [(100, true, 1.0), (10_000, false, 1.0)] {
        let weir = before(
            database,
            "prometheus",
            &format!("limits: {{default: {{per_query: {{series: {limit}}}}}}}"),
        )
        .await;
        let before = lists().await;
        let answer = weir.get(&format!("/api/v1/query?query={query}&time={end}")).await;
        assert_eq!(answer.status == 422, refused, "limit {limit}: {}", answer.body);
        assert_eq!(answer.body.contains("(weir-max-series"), refused, "limit {limit}: {}", answer.body);
        assert_eq!(lists().await - before, listed, "limit {limit}");
    }
}

#[tokio::test]
async fn a_query_that_ran_is_known() {
    let Some((_alone, database)) = prometheus("a_query_that_ran_is_known").await else { return };
    let (weir, end) = (before(database, "prometheus", NO_RATE).await, database.data.end);
    let params =
        format!("query={}&start={}&end={end}&step=60", encode("sum(rate(level_0[5m]))"), end - 9_000);
    let source = async || {
        let cost = weir.get(&format!("/api/v1/query_range_cost?{params}")).await.json();
        cost["data"]["selectors"][0]["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(weir.get(&format!("/api/v1/query_range?{params}")).await.status, 200);
    weir.until_idle().await;
    // Prometheus does not report the series it read: the count of before is known.
    assert_eq!(source().await, "probe");
}

/// Requests of label browsers come through unchanged.
pub(crate) async fn browses(database: &Database, weir: &Weir, targets: &[&str]) {
    let (client, end) = (client(), database.data.end);
    for target in targets {
        let target = target.replace("TIMES", &format!("start={}&end={end}", end - 3_600));
        let direct = raw(&client, Method::GET, &format!("{}{target}", database.url), "", false).await;
        let through = raw(&client, Method::GET, &weir.url(&target), "", false).await;
        assert_eq!(through, direct, "{target}");
        assert_eq!(through.status, 200, "{target}: {:?}", through.body);
    }
}

#[tokio::test]
async fn prometheus_is_browsed_as_without_weir() {
    let Some((_alone, database)) = prometheus("prometheus_is_browsed_as_without_weir").await else { return };
    let weir = before(database, "prometheus", NO_RATE).await;
    let targets = [
        "/api/v1/labels",
        "/api/v1/labels?TIMES",
        "/api/v1/labels?match[]=level_0&TIMES",
        "/api/v1/label/__name__/values",
        "/api/v1/label/job/values?TIMES",
        "/api/v1/label/path/values?match[]=level_0&match[]=level_1&TIMES",
        "/api/v1/series?match[]=level_0&TIMES",
        "/api/v1/series?match[]=%7B__name__!=%22%22%7D&TIMES",
        "/api/v1/metadata",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/status/buildinfo",
        "/api/v1/query_exemplars?query=level_0&TIMES",
        "/api/v1/format_query?query=sum(level_0)by(job)",
    ];
    browses(database, &weir, &targets).await;
}
