//! Probes against scripted backends of every kind.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::Instant;
use weir::{
    backend::{
        Backend, BaseUrl, DataScope, Kind, ProbeError, ProbeOutcome, ProbeRequest, ProbeSettings, Settings,
    },
    base::{
        Confidence::{self, Exact, Learned, UpperBound},
        Estimate, TimeRange,
    },
};

use crate::support::fake_upstream::{Act, FakeUpstream, Seen, chunk, head};

pub(super) const HOUR: i64 = 3_600_000;
/// The window of the questions here lies in the past, within one UTC day.
pub(super) const WINDOW: TimeRange = TimeRange { start: 1_700_000_000_000, end: 1_700_000_000_000 + HOUR };

pub(super) fn backend(kind: Kind, upstream: &FakeUpstream, probe: ProbeSettings) -> Arc<Backend> {
    let url = BaseUrl::parse(&upstream.url()).unwrap();
    Backend::new(Settings { probe, ..Settings::new("main", kind, vec![url]) })
}

async fn ask(backend: &Backend, window: TimeRange, limit: u64) -> Result<ProbeOutcome, ProbeError> {
    ask_for(backend, window, limit, 0).await
}

/// Up to `enough` series, no limit is in doubt.
async fn ask_for(
    backend: &Backend,
    window: TimeRange,
    limit: u64,
    enough: u64,
) -> Result<ProbeOutcome, ProbeError> {
    let scope = DataScope::default();
    backend.probe(&ProbeRequest { window, limit, enough, ..request(&scope) }).await
}

/// Up to ten series in the window.
pub(super) fn request(scope: &DataScope) -> ProbeRequest<'_> {
    ProbeRequest {
        metric: None,
        selector: r#"up{job="a"}"#,
        window: WINDOW,
        limit: 10,
        enough: 0,
        match_all: false,
        scope,
        tenant: "a",
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

pub(super) fn series(count: usize) -> Act {
    let each: Vec<String> = (0..count).map(|i| format!(r#"{{"__name__":"up","i":"{i}"}}"#)).collect();
    Act::json(&format!(r#"{{"status":"success","data":[{}]}}"#, each.join(",")))
}

fn version(version: &str) -> Act {
    Act::json(&format!(r#"{{"status":"success","data":{{"version":"{version}"}}}}"#))
}

pub(super) fn vector(count: u64) -> Act {
    Act::json(&format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{count}"]}}]}}}}"#
    ))
}

fn total(count: u64) -> Act {
    Act::json(&format!(r#"{{"status":"success","data":{{"totalSeries":{count}}}}}"#))
}

/// A backend with `count` series that behaves as its kind does.
fn scripted(kind: Kind, count: usize) -> impl Fn(&Seen) -> Act + Send + Sync {
    move |seen| {
        let limit = || seen.params("limit")[0].parse::<usize>().unwrap();
        match (kind, seen.path()) {
            (Kind::Prometheus, "/api/v1/status/buildinfo") => version("3.1.0"),
            (Kind::Prometheus | Kind::Cortex | Kind::Thanos, "/api/v1/series") => series(count.min(limit())),
            (Kind::VictoriaMetrics, "/api/v1/series") => series(count.min(limit())),
            (Kind::VictoriaMetrics, "/api/v1/status/tsdb") => total(count as u64),
            (Kind::Mimir, "/api/v1/cardinality/label_values") => Act::json(&format!(
                r#"{{"series_count_total":999999,"labels":[{{"label_name":"__name__","series_count":{count}}}]}}"#
            )),
            (Kind::M3, "/api/v1/series") => {
                let most: usize = seen.header("m3-limit-max-series").unwrap().parse().unwrap();
                assert_eq!(seen.header("m3-limit-require-exhaustive"), Some("false"));
                // A number of series equal to the limit counts as over it.
                let limited: &[(&str, &str)] =
                    if count >= most { &[("m3-results-limited", "series")] } else { &[] };
                let Act::Raw(raw) = series(count.min(most)) else { unreachable!() };
                let at = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
                Act::answer(200, limited, &raw[at + 4..])
            }
            (Kind::Weir, "/api/v1/query_cost") => Act::json(&format!(
                r#"{{"status":"success","data":{{"estimate":{{"seriesTouched":{count},"samplesScanned":1}}}}}}"#
            )),
            (_, other) => Act::answer(404, &[], other.as_bytes()),
        }
    }
}

#[tokio::test]
async fn values_are_looked_at_once_at_a_few_instants() {
    let upstream = FakeUpstream::start(|seen| {
        assert_eq!(seen.params("query"), ["count_values(\"value\", round(g))"]);
        let own = &seen.params("time")[0];
        let values =
            ["1", "2", own].map(|value| format!(r#"{{"metric":{{"value":"{value}"}},"value":[1,"7"]}}"#));
        let (first, rest) = (&values[0], values[1..].join(","));
        Act::json(&format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{first},{rest}]}}}}"#
        ))
    })
    .await;
    let backend = backend(Kind::Prometheus, &upstream, ProbeSettings::default());
    let scope = DataScope::default();
    let asked = ProbeRequest { selector: "round(g)", ..request(&scope) };
    let instants = [0, HOUR, 2 * HOUR].map(|after| WINDOW.start + after);
    for _ in 0..3 {
        let seen = backend.values_seen(&asked, &instants).await.unwrap();
        assert_eq!(seen[..], [3, 0, 2]);
    }
    assert_eq!(upstream.seen().len(), 3);
    let gone = backend.values_seen(&asked, &instants.map(|at| at + HOUR)).await;
    assert!(gone.is_some() && upstream.seen().len() == 6);
}

#[tokio::test]
async fn every_kind_is_counted_in_its_own_way() {
    let recent = {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        TimeRange { start: now - HOUR, end: now - HOUR / 2 }
    };
    // kind, series there, limit, window; series counted, class, at least
    type Case = (Kind, usize, u64, TimeRange, u64, Confidence, bool);
    let cases: [Case; 17] = [
        (Kind::Prometheus, 7, 10, WINDOW, 7, Exact, false),
        (Kind::Prometheus, 10, 10, WINDOW, 10, Exact, false),
        (Kind::Prometheus, 50, 10, WINDOW, 11, Learned, true),
        (Kind::Cortex, 7, 10, WINDOW, 7, Exact, false),
        (Kind::Cortex, 50, 10, WINDOW, 11, Learned, true),
        (Kind::Thanos, 7, 10, WINDOW, 7, UpperBound, false),
        (Kind::Thanos, 50, 10, WINDOW, 11, Learned, true),
        (Kind::VictoriaMetrics, 7, 10, WINDOW, 7, UpperBound, false),
        (Kind::VictoriaMetrics, 30_000, 40_000, WINDOW, 30_000, Learned, false),
        (Kind::VictoriaMetrics, 50, 10, WINDOW, 50, Learned, false),
        (Kind::Mimir, 7, 10, recent, 7, Learned, false),
        (Kind::Mimir, 50, 10, WINDOW, 50, Learned, false),
        (Kind::M3, 7, 10, WINDOW, 7, Exact, false),
        (Kind::M3, 10, 10, WINDOW, 10, Exact, false),
        (Kind::M3, 50, 10, WINDOW, 12, Learned, true),
        (Kind::Weir, 7, 10, WINDOW, 7, Exact, false),
        (Kind::Weir, 50, 10, WINDOW, 50, Exact, false),
    ];
    for (kind, there, limit, window, counted, class, truncated) in cases {
        let upstream = FakeUpstream::start(scripted(kind, there)).await;
        let backend = backend(kind, &upstream, ProbeSettings::default());
        let outcome = ask(&backend, window, limit).await.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        let got = (outcome.series.value, outcome.series.confidence, outcome.truncated);
        assert_eq!(got, (counted, class, truncated), "{kind:?} with {there} series, limit {limit}");
    }
}

#[tokio::test]
async fn an_old_prometheus_is_asked_for_a_count_before_it_lists() {
    for (there, limit, paths, counted) in
        [(500, 100, &["/api/v1/query"][..], 500), (80, 100, &["/api/v1/query", "/api/v1/series"][..], 80)]
    {
        let upstream = FakeUpstream::start(move |seen| match seen.path() {
            "/api/v1/status/buildinfo" => version("2.42.0+ds"),
            "/api/v1/query" => vector(there),
            _ => series(there as usize),
        })
        .await;
        let backend = backend(Kind::Prometheus, &upstream, ProbeSettings::default());
        let outcome = ask(&backend, WINDOW, limit).await.unwrap();
        assert_eq!((outcome.series.value, outcome.truncated), (counted, there > limit));
        let seen: Vec<Seen> = upstream.seen().into_iter().skip(1).collect();
        assert_eq!(seen.iter().map(Seen::path).collect::<Vec<_>>(), paths);
        assert_eq!(seen[0].params("query"), [r#"count(up{job="a"})"#]);
        assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    }
}

/// A Prometheus that obeys no limit, with these numbers of series at an instant and over all of its time.
async fn old_prometheus(at_once: u64, ever: usize) -> (FakeUpstream, Arc<Backend>) {
    let upstream = FakeUpstream::start(move |seen| match seen.path() {
        "/api/v1/status/buildinfo" => version("2.42.0+ds"),
        "/api/v1/query" => vector(at_once),
        _ => series(ever),
    })
    .await;
    let backend = backend(Kind::Prometheus, &upstream, ProbeSettings::default());
    (upstream, backend)
}

/// The requests after that for the version.
fn asked(upstream: &FakeUpstream) -> Vec<String> {
    upstream.seen().iter().skip(1).map(|seen| seen.path().rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn dead_series_behind_a_live_one_are_counted() {
    // A query holds the labels of all of them, and an instant sees one.
    for (at_once, ever, truncated) in [(1, 2_000, true), (1, 160, false), (0, 160, false)] {
        let (upstream, backend) = old_prometheus(at_once, ever).await;
        let outcome = ask_for(&backend, WINDOW, 1_000, 500).await.unwrap();
        assert_eq!(
            (outcome.series.value.min(1_001), outcome.truncated),
            ((ever as u64).min(1_001), truncated)
        );
        assert_eq!(asked(&upstream), ["query", "series"]);
    }
}

#[tokio::test]
async fn windows_that_end_together_share_the_count_of_their_end() {
    let (upstream, backend) = old_prometheus(50_000, 50_000).await;
    for hours in [1, 3, 6, 24] {
        let window = TimeRange { start: WINDOW.end - hours * HOUR, end: WINDOW.end };
        assert!(ask_for(&backend, window, 1_000, 500).await.unwrap().truncated);
    }
    assert_eq!(asked(&upstream), ["query"]);
}

#[tokio::test]
async fn other_windows_answer_where_they_leave_no_doubt() {
    let (upstream, backend) = old_prometheus(0, 160).await;
    let long = TimeRange { start: WINDOW.start - 9 * HOUR, end: WINDOW.end };
    assert_eq!(ask_for(&backend, long, 5_000, 1_000).await.unwrap().series, Estimate::exact(160));
    let whole = asked(&upstream).len();
    // A shorter one holds no more.
    let within = ask_for(&backend, WINDOW, 5_000, 1_000).await.unwrap();
    assert_eq!((within.series, within.cached), (Estimate::new(160, UpperBound), true));
    // A longer one holds no less.
    let longer = TimeRange { start: long.start - 90 * HOUR, end: long.end + HOUR };
    let outcome = ask_for(&backend, longer, 100, 100).await.unwrap();
    assert_eq!((outcome.series.value, outcome.truncated, outcome.cached), (160, true, true));
    assert_eq!(asked(&upstream).len(), whole);
    // A selector that would pass a limit is asked about.
    assert_eq!(ask_for(&backend, WINDOW, 5_000, 100).await.unwrap().series, Estimate::exact(160));
    assert!(asked(&upstream).len() > whole);
}

#[tokio::test]
async fn a_backend_that_ignores_the_limit_is_left_in_the_middle_of_its_list() {
    let upstream = FakeUpstream::start(|_| {
        let part = br#"{"a":"b"},"#.repeat(100);
        Act::ThenHang(
            [head(200, &[], None), chunk(br#"{"status":"success","data":["#), chunk(&part)].concat(),
        )
    })
    .await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let outcome = ask(&backend, WINDOW, 10).await.unwrap();
    assert!(outcome.truncated && outcome.series.value > 10);
    upstream.abandoned(1).await;
}

#[tokio::test]
async fn a_list_that_was_cut_is_no_count() {
    let warned = Act::json(r#"{"status":"success","data":[{}],"warnings":["store down"]}"#);
    let limited = |name: &'static str, value: &'static str| {
        Act::answer(200, &[(name, value)], br#"{"status":"success","data":[{}]}"#)
    };
    let metadata = "m3-returned-metadata-limited";
    for (kind, act, is_count) in [
        (Kind::Thanos, warned, false),
        (Kind::M3, limited("m3-results-limited", "max_fetch_series_limit_applied"), false),
        (Kind::M3, limited(metadata, r#"{"Results":1,"TotalResults":500,"Limited":true}"#), false),
        (Kind::M3, limited(metadata, r#"{"Results":1,"TotalResults":1,"Limited":false}"#), true),
    ] {
        let upstream = FakeUpstream::start(move |_| act.clone()).await;
        let backend = backend(kind, &upstream, ProbeSettings::default());
        let outcome = ask(&backend, WINDOW, 10).await;
        assert!(outcome.is_ok() == is_count, "{kind:?}");
        assert!(is_count || matches!(outcome, Err(ProbeError::Incomplete)), "{kind:?}");
    }
}

#[tokio::test]
async fn victoria_looks_at_other_days_when_the_window_has_them() {
    // The last day holds 3,000 series, all days 3,900; the window's own list says 3,500.
    let upstream =
        FakeUpstream::start(|seen| match (seen.path(), seen.params("date").first().map(String::as_str)) {
            ("/api/v1/status/tsdb", Some("0")) => total(3_900),
            ("/api/v1/status/tsdb", Some(date)) => {
                assert_eq!(date, "2023-11-14");
                total(3_000)
            }
            _ => series(3_500),
        })
        .await;
    let backend = backend(Kind::VictoriaMetrics, &upstream, ProbeSettings::default());
    let window = TimeRange { start: WINDOW.end - 72 * HOUR, end: WINDOW.end - HOUR };
    assert_eq!(ask(&backend, window, 9_000).await.unwrap().series.value, 3_500);
}

#[tokio::test]
async fn mimir_without_its_count_lists() {
    let upstream = FakeUpstream::start(|seen| match seen.path() {
        "/api/v1/series" => series(7),
        _ => Act::json(
            r#"{"status":"error","errorType":"bad_data","error":"cardinality analysis is disabled"}"#,
        ),
    })
    .await;
    let backend = backend(Kind::Mimir, &upstream, ProbeSettings::default());
    assert_eq!(ask(&backend, WINDOW, 10).await.unwrap().series.value, 7);
}

#[tokio::test]
async fn mimir_is_asked_once_for_a_count_that_it_does_not_have() {
    for status in [404, 422] {
        let upstream = FakeUpstream::start(move |seen| match seen.path() {
            "/api/v1/series" => series(7),
            _ => Act::answer(status, &[], b"cardinality analysis is disabled for the tenant"),
        })
        .await;
        let backend = backend(Kind::Mimir, &upstream, ProbeSettings::default());
        for hours in 1..4 {
            let window = TimeRange { end: WINDOW.start + 10 * hours * HOUR, ..WINDOW };
            assert_eq!(ask(&backend, window, 10).await.unwrap().series.value, 7);
        }
        let counts = upstream.seen().iter().filter(|seen| seen.path().contains("cardinality")).count();
        assert_eq!((counts, upstream.seen().len()), (1, 4));
    }
}

#[tokio::test]
async fn a_selector_that_matches_everything_is_never_asked_about() {
    let upstream = FakeUpstream::start(|_| Act::die()).await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let scope = DataScope::default();
    let everything = ProbeRequest { selector: r#"{__name__=~".+"}"#, match_all: true, ..request(&scope) };
    assert!(matches!(backend.probe(&everything).await, Err(ProbeError::MatchAll)));
    assert!(upstream.seen().is_empty());
    assert_eq!(backend.snapshot().probes.refused, 1);
}

#[tokio::test]
async fn one_question_is_asked_once_however_many_wait() {
    let upstream = FakeUpstream::start(|_| {
        let Act::Raw(raw) = series(7) else { unreachable!() };
        Act::Slow(vec![raw], Duration::from_millis(30))
    })
    .await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let outcomes = futures_util::future::join_all((0..20).map(|_| ask(&backend, WINDOW, 10))).await;
    assert!(outcomes.iter().all(|o| o.as_ref().unwrap().series.value == 7));
    // A dashboard that reloads a few seconds later asks the same question.
    let later = TimeRange { start: WINDOW.start + 5_000, end: WINDOW.end + 5_000 };
    assert!(ask(&backend, later, 10).await.unwrap().cached);
    assert_eq!(upstream.seen().len(), 1);
    let counts = backend.snapshot().probes;
    assert_eq!((counts.sent, counts.cache_hits, counts.failures), (1, 20, 0));
}

#[tokio::test]
async fn a_count_that_stopped_at_a_lower_limit_is_no_answer_to_a_higher_one() {
    let upstream = FakeUpstream::start(scripted(Kind::Cortex, 50)).await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    assert!(ask(&backend, WINDOW, 10).await.unwrap().truncated);
    assert!(ask(&backend, WINDOW, 5).await.unwrap().cached);
    let outcome = ask(&backend, WINDOW, 100).await.unwrap();
    assert_eq!((outcome.series.value, outcome.truncated, outcome.cached), (50, false, false));
    assert!(ask(&backend, WINDOW, 10).await.unwrap().cached);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn whoever_waits_for_a_count_under_a_lower_limit_counts_again() {
    let upstream = FakeUpstream::start(|_| {
        let Act::Raw(raw) = series(50) else { unreachable!() };
        Act::Slow(vec![raw], Duration::from_millis(30))
    })
    .await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let limits = [10, 100, 10, 100];
    let outcomes = futures_util::future::join_all(limits.map(|limit| ask(&backend, WINDOW, limit))).await;
    let truncated: Vec<bool> = outcomes.iter().map(|outcome| outcome.as_ref().unwrap().truncated).collect();
    assert_eq!(truncated, [true, false, true, false]);
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn scopes_do_not_share_answers_and_are_all_that_a_probe_carries() {
    let upstream = FakeUpstream::start(scripted(Kind::Thanos, 5)).await;
    let backend = backend(Kind::Thanos, &upstream, ProbeSettings::default());
    for (tenant, url) in [("a", "dedup=false"), ("a", "dedup=true"), ("b", "dedup=true"), ("b", "")] {
        let mut headers: HeaderMap =
            [("user-agent".parse().unwrap(), "Grafana".parse().unwrap())].into_iter().collect();
        headers.insert("thanos-tenant", tenant.parse().unwrap());
        let scope = DataScope::new(Kind::Thanos, &headers, &format!("query=up&stats=all&{url}"), "").unwrap();
        assert!(!backend.probe(&request(&scope)).await.unwrap().cached);
    }
    let seen = upstream.seen();
    let tenants: Vec<_> = seen.iter().map(|seen| seen.header("thanos-tenant").unwrap()).collect();
    let dedup: Vec<_> = seen.iter().flat_map(|seen| seen.params("dedup")).collect();
    assert_eq!(
        (tenants, dedup),
        (vec!["a", "a", "b", "b"], vec!["false".to_owned(), "true".to_owned(), "true".to_owned()])
    );
    assert!(seen.iter().all(|seen| seen.header("user-agent").is_none() && seen.params("stats").is_empty()));
}

#[tokio::test]
async fn what_is_late_alone_is_remembered() {
    let deadline = ProbeSettings { deadline: Duration::from_millis(30), ..ProbeSettings::default() };
    let upstream = FakeUpstream::start(|_| Act::hang()).await;
    let backend = backend(Kind::Cortex, &upstream, deadline);
    for _ in 0..3 {
        assert!(matches!(ask(&backend, WINDOW, 10).await, Err(ProbeError::Late(_))));
    }
    upstream.abandoned(2).await;
    assert_eq!(upstream.seen().len(), 2, "once beside others, once alone");
}

#[tokio::test]
async fn answers_that_hold_no_number_are_errors() {
    let cases: [(Act, &str); 4] = [
        (Act::json("{"), "no end"),
        (Act::answer(422, &[], br#"{"status":"error","error":"too many series"}"#), "too many series"),
        (Act::answer(500, &[], b"<html>oops"), "oops"),
        (Act::die_mid_body(100, br#"{"data":["#), "broke off"),
    ];
    for (act, expected) in cases {
        let upstream = FakeUpstream::start(move |_| act.clone()).await;
        let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
        let error = ask(&backend, WINDOW, 10).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_long_selector_travels_in_a_form() {
    let upstream = FakeUpstream::start(|seen| {
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/api/v1/series"));
        assert!(String::from_utf8_lossy(&seen.body).contains("match%5B%5D=up%7B"));
        series(1)
    })
    .await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let (selector, scope) = (format!(r#"up{{a="{}"}}"#, "x".repeat(30_000)), DataScope::default());
    let request = ProbeRequest { selector: &selector, ..request(&scope) };
    assert_eq!(backend.probe(&request).await.unwrap().series.value, 1);
}
