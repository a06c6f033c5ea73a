//! Light requests and queries have connections of their own: neither can take those of the other.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::Weir,
    },
};

/// A proxy with two connections for queries, before a backend that answers nothing below `path`.
async fn silent_at(path: &'static str) -> (FakeUpstream, Weir) {
    let upstream =
        FakeUpstream::start(
            move |seen: &Seen| {
                if seen.path() == path && !is_own(seen) { Act::hang() } else { database(seen) }
            },
        )
        .await;
    let connections = "max_connections: 2, light_connections: 7";
    let yaml = format!("backends: [{{name: main, urls: [\"{}\"], {connections}}}]", upstream.url());
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

/// Weir's own requests beside those for the label table.
fn is_own(seen: &Seen) -> bool {
    seen.target.contains("limit_per_metric=1")
}

/// So many requests that the backend saw.
async fn until_seen(upstream: &FakeUpstream, path: &str, count: usize) {
    loop {
        let seen = upstream.seen().iter().filter(|seen| seen.path() == path && !is_own(seen)).count();
        assert!(seen <= count, "{seen} reached the backend, not {count}");
        if seen == count {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn light_requests_do_not_wait_for_queries() {
    let (upstream, weir) = silent_at("/api/v1/query").await;
    let request = || weir.request("/api/v1/query?query=small");
    let queries: Vec<_> = (0..5).map(|_| tokio::spawn(weir.client.request(request()))).collect();
    weir.until_load(5, 0).await;
    until_seen(&upstream, "/api/v1/query", 2).await;
    assert_eq!(weir.get("/api/v1/status/buildinfo").await.status, 200);
    queries.iter().for_each(tokio::task::JoinHandle::abort);
    weir.until_idle().await;
}

#[tokio::test]
async fn queries_do_not_wait_for_light_requests_which_are_few() {
    let (upstream, weir) = silent_at("/api/v1/metadata").await;
    let light: Vec<_> =
        (0..30).map(|_| tokio::spawn(weir.client.request(weir.request("/api/v1/metadata")))).collect();
    // Three quarters of them, of one tenant.
    until_seen(&upstream, "/api/v1/metadata", 5).await;
    let metrics = weir.metrics();
    for line in [
        "weir_backend_connections{backend=\"main\",lane=\"light\"} 5",
        "weir_backend_connections_max{backend=\"main\",lane=\"light\"} 7",
        "weir_backend_connections_max{backend=\"main\",lane=\"queries\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let answer = weir.send(weir.request("/api/v1/query?query=small")).await;
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
    until_seen(&upstream, "/api/v1/metadata", 5).await;
    light.iter().for_each(tokio::task::JoinHandle::abort);
    upstream.abandoned(5).await;
    assert_eq!(weir.get("/api/v1/status/buildinfo").await.status, 200);
    weir.until_idle().await;
}

/// Twenty clients of one tenant that take the head of a long answer and then nothing, beside another tenant.
#[tokio::test]
async fn light_answers_that_nobody_reads_shut_nobody_out() {
    let long = format!("{{\"status\":\"success\",\"data\":\"{}\"}}", "x".repeat(32 << 20));
    let script = move |seen: &Seen| {
        let is_long = seen.path() == "/api/v1/metadata" && !is_own(seen);
        if is_long { Act::json(&long) } else { database(seen) }
    };
    let upstream = FakeUpstream::start(script).await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\ntenancy: {{sources: [{{header: X-Scope-OrgID}}]}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
        let head = b"GET /api/v1/metadata HTTP/1.1\r\nhost: x\r\nx-scope-orgid: slow\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stalled.push(stream);
    }
    let _head = stalled[0].read_exact(&mut [0; 12]).await.unwrap();
    for target in
        ["/api/v1/query?query=1%2B1", "/api/v1/status/buildinfo", "/api/v1/query?query=small"].repeat(5)
    {
        let began = Instant::now();
        let answer = weir.get_as(target, &[("x-scope-orgid", "quick")]).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        assert!(began.elapsed() < Duration::from_secs(1), "{target}: {:?}", began.elapsed());
    }
}
