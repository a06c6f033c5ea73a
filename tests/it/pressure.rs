//! Distress over the wire: signals that stay away, failures, and metrics that are found elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    weir::Weir,
};

const ANSWER: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Looks are a second apart.
const SOON: Duration = Duration::from_secs(20);

async fn until(weir: &Weir, what: &str, is_so: impl Fn(&str) -> bool) {
    let end = Instant::now() + SOON;
    while !is_so(&weir.metrics()) {
        assert!(Instant::now() < end, "{what}: {}", weir.metrics());
        tokio::task::yield_now().await;
        // Any answer takes a while, and a query is what shows failures.
        let _ = weir.get("/api/v1/query?query=up").await;
    }
}

fn number(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series))?.trim().parse().ok()
}

#[tokio::test]
async fn a_signal_that_never_comes_is_seen_and_shrinks_what_it_is_told_to() {
    let upstream = FakeUpstream::start(|seen: &Seen| match seen.path() {
        "/metrics" => Act::answer(200, &[], b"nothing_of_interest 1\n"),
        _ => Act::answer(200, JSON, ANSWER),
    })
    .await;
    let pressure = "pressure: {memory_limit: 1GiB, on_stale: 50%, stale_after: 1s}";
    let url = upstream.url();
    let weir = Weir::start(&format!("backends: [{{name: main, urls: [\"{url}\"], {pressure}}}]")).await;
    until(&weir, "it is stale", |metrics| {
        number(metrics, "weir_backend_pressure_stale{backend=\"main\",signal=\"memory\"}") == Some(1.0)
    })
    .await;
    until(&weir, "half is left", |metrics| {
        number(metrics, "weir_backend_budget_share{backend=\"main\"}") == Some(0.5)
    })
    .await;
}

#[tokio::test]
async fn failures_take_budget_away_and_mistakes_of_clients_do_not() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let upstream = FakeUpstream::start(move |seen: &Seen| {
        let status = if fails.load(SeqCst) { 503 } else { 400 };
        if seen.path().ends_with("/query") {
            let body = br#"{"status":"error","errorType":"timeout","error":"no"}"#;
            Act::answer(status, JSON, body)
        } else {
            Act::answer(404, &[], b"")
        }
    })
    .await;
    let weir = Weir::before(&upstream.url(), "prometheus").await;
    let errors = "weir_backend_pressure{backend=\"main\",signal=\"errors\"}";
    for _ in 0..50 {
        assert_eq!(weir.get("/api/v1/query?query=up").await.status, 400);
    }
    until(&weir, "a look was taken", |metrics| number(metrics, errors).is_some()).await;
    assert_eq!(number(&weir.metrics(), errors), Some(0.0));
    failing.store(true, SeqCst);
    until(&weir, "failures are distress", |metrics| number(metrics, errors) == Some(0.97)).await;
    until(&weir, "less is left", |metrics| {
        number(metrics, "weir_backend_budget_share{backend=\"main\"}").is_some_and(|share| share < 0.7)
    })
    .await;
}

#[tokio::test]
async fn metrics_may_be_elsewhere() {
    let nodes = FakeUpstream::start(|seen: &Seen| {
        // Credentials are for the database.
        let told = seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        Act::answer(if told { 500 } else { 200 }, &[], b"process_resident_memory_bytes 90e6\n")
    })
    .await;
    let upstream = FakeUpstream::start(|_: &Seen| Act::answer(200, JSON, ANSWER)).await;
    let (url, elsewhere) = (upstream.url(), nodes.url());
    let pressure = format!("pressure: {{memory_limit: 100MB, metrics_urls: [\"{elsewhere}\"]}}");
    let headers = "headers: {Authorization: Bearer x}";
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: m3, urls: [\"{url}\"], {headers}, {pressure}}}]"
    ))
    .await;
    until(&weir, "it is read", |metrics| {
        number(metrics, "weir_backend_pressure{backend=\"main\",signal=\"memory\"}") == Some(0.9)
    })
    .await;
}
