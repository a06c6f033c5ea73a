//! Distress over the wire: signals that stay away, and metrics that are found elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
    weir::Weir,
};

const ANSWER: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Looks are a second apart.
const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(10);

async fn until(weir: &Weir, what: &str, is_so: impl Fn(&str) -> bool) {
    let end = Instant::now() + SOON;
    while !is_so(&weir.metrics()) {
        assert!(Instant::now() < end, "{what}: {}", weir.metrics());
        tokio::task::yield_now().await;
        // Any answer takes a while.
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
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{url}\"], {pressure}, budget: {{unproven: 100%}}}}]"
    ))
    .await;
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
        number(metrics, "weir_backend_pressure{backend=\"main\",signal=\"memory\"}") == Some(0.0)
    })
    .await;
}

/// Until the second is heard of, memory is at ease.
fn running_out(seen: &Seen, act: fn() -> Act, asked: &AtomicBool) -> Act {
    match seen.path() {
        "/metrics" if asked.load(SeqCst) => Act::answer(200, &[], b"process_resident_memory_bytes 99e6\n"),
        "/metrics" => Act::answer(200, &[], b"process_resident_memory_bytes 10e6\n"),
        "/api/v1/query_range" => {
            asked.store(true, SeqCst);
            act()
        }
        "/api/v1/query" => Act::answer(200, JSON, ANSWER),
        _ => Act::answer(404, &[], b""),
    }
}

#[tokio::test]
async fn about_to_run_out_of_memory_a_backend_is_rid_of_its_heaviest_query() {
    const RANGE: &str = "/api/v1/query_range?query=heavy&start=0&end=3600&step=15";
    let streams = || {
        let piece = br#"{"status":"success","data":{"resultType":"matrix","result":["#;
        let mut raw = head(200, JSON, None);
        raw.extend(chunk(piece));
        Act::Slow(std::iter::once(raw).chain((0..3000).map(|_| chunk(b" "))).collect(), SHORT)
    };
    let only_the_head = || Act::ThenHang(head(200, JSON, None));
    for (act, is_clean) in [(Act::hang as fn() -> Act, true), (only_the_head, true), (streams, false)] {
        let asked = Arc::new(AtomicBool::new(false));
        let upstream = FakeUpstream::start(move |seen: &Seen| running_out(seen, act, &asked)).await;
        let url = upstream.url();
        let pressure = "pressure: {memory_limit: 100MB}";
        let weir = Weir::start(&format!("backends: [{{name: main, urls: [\"{url}\"], {pressure}}}]")).await;
        let begun = Instant::now();
        if is_clean {
            let answer = weir.get(RANGE).await;
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert_eq!(answer.headers["weir-limit"], "weir-recalled");
            assert!(answer.headers.contains_key("retry-after"));
            assert!(answer.error().contains("about to run out of memory"), "{}", answer.body);
        } else {
            let body = weir.send(weir.request(RANGE)).await.into_body();
            assert!(body.collect().await.is_err(), "what was broken off is never taken for whole");
        }
        assert!(begun.elapsed() < SOON);
        weir.until_idle().await;
    }
}
