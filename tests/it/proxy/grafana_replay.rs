//! The real requests of Grafana's Prometheus data source, and the text that a person would read in the panel.

use futures_util::future::join_all;
use serde_json::Value;

use crate::{
    proxy::forward::{before, database},
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::{Answer, Weir},
    },
};

const PANEL: [(&str, &str); 4] =
    [("x-dashboard-uid", "d1"), ("x-panel-id", "4"), ("x-datasource-uid", "p1"), ("x-grafana-org-id", "1")];

/// The text that the data source shows: the parsed error of these statuses, the first KiB of any other.
fn rendered(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    if !matches!(status, 200..=299 | 400 | 422 | 503) {
        let end = answer.body.floor_char_boundary(1024);
        return format!("unexpected response with status code {status}: {}", &answer.body[..end]);
    }
    let parsed: Value = answer.json();
    let text = |key: &str| parsed[key].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", text("errorType"), text("error"))
}

#[tokio::test]
async fn the_health_check_passes_whatever_is_used_up() {
    let (upstream, weir) = before(database, "limits: {default: {rate: {queries: 1/h}}}").await;
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 429);
    for _ in 0..3 {
        assert_eq!(weir.post("/api/v1/query", "query=1%2B1&time=1700000000").await.status, 200);
        assert_eq!(weir.get("/api/v1/status/buildinfo").await.status, 200);
    }
    assert!(upstream.seen().iter().any(|seen| seen.body == b"query=1%2B1&time=1700000000"));
}

#[tokio::test]
async fn a_dashboard_loads() {
    let (upstream, weir) = before(database, "").await;
    let panels = (0..30).map(|panel| {
        let weir = &weir;
        async move {
            let query = format!("sum(rate(small[{}m]))", panel % 5 + 1);
            let range = format!("query={query}&start=1700000000&end=1700021600&step=15");
            let instant = format!("query={query}&time=1700021600");
            let (range, instant) = tokio::join!(
                weir.post_as("/api/v1/query_range?timeout=30s&custom=1", &range, &PANEL),
                weir.post_as("/api/v1/query?timeout=30s&custom=1", &instant, &PANEL),
            );
            (range.status, instant.status)
        }
    });
    let answers = join_all(panels).await;
    assert!(answers.iter().all(|(range, instant)| *range == 200 && *instant == 200), "{answers:?}");
    let sent = upstream.seen();
    let graphs: Vec<&Seen> = sent.iter().filter(|seen| seen.path() == "/api/v1/query_range").collect();
    assert_eq!(graphs.len(), 30);
    // Both halves of the parameters arrive where they were put.
    assert!(graphs.iter().all(|seen| seen.target.ends_with("?timeout=30s&custom=1")));
    assert!(graphs.iter().all(|seen| seen.body.starts_with(b"query=sum(rate(small")));
    assert!(weir.metrics().contains("class=\"dashboards\""));
    weir.until_idle().await;
}

#[tokio::test]
async fn errors_read_well_in_a_panel() {
    let (_upstream, weir) = before(database, "limits: {default: {per_query: {series: 5_000}}}").await;
    let panel = rendered(&weir.post("/api/v1/query", "query=sum(big)&time=1").await);
    assert!(panel.starts_with("execution: the query needs at least 20,000 series"), "{panel}");
    assert!(panel.contains("(weir-max-series, err-mimir-max-series-per-query)"), "{panel}");
    assert!(panel.ends_with("To fix it: add matchers to big, or use a recording rule"), "{panel}");
    let panel = rendered(&weir.post("/api/v1/query", "query=sum(big&time=1").await);
    assert!(panel.starts_with("bad_data: invalid parameter \"query\": 1:8: parse error: "), "{panel}");

    let (_upstream, weir) = before(database, "limits: {default: {rate: {queries: 1/h}}}").await;
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    let panel = rendered(&weir.get("/api/v1/query?query=small").await);
    let seen: String = panel.chars().take(200).collect();
    assert!(seen.contains("status code 429") && seen.contains("retry in "), "{seen}");
    assert!(seen.contains("asks for more queries than its rate allows"), "{seen}");

    let weir = Weir::before(&FakeUpstream::nobody(), "prometheus").await;
    let panel = rendered(&weir.get("/api/v1/query?query=small").await);
    // Before the first check of its health, or after it.
    let reached = panel.contains("status code 502") && panel.contains("could not be reached");
    assert!(reached || panel.starts_with("unavailable: backend `main` is down"), "{panel}");
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_read_well() {
    let busy = "limits: {default: {in_flight: {queries: 1}, queue: {length: 1, wait: 200ms}}}";
    let (_upstream, weir) = before(|_| Act::hang(), busy).await;
    let running = tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small")));
    weir.until_load(1, 0).await;
    let waiting = weir.get("/api/v1/query?query=small");
    let refused = async {
        weir.until_load(1, 1).await;
        weir.get("/api/v1/query?query=small").await
    };
    let (waited, refused) = tokio::join!(waiting, refused);
    let panel = rendered(&refused);
    assert!(panel.starts_with("unavailable: the queue of tenant `anonymous` is full: 1"), "{panel}");
    let panel = rendered(&waited);
    assert!(
        panel.starts_with("timeout: timed out after 200ms waiting for tenant `anonymous`: in_flight.queries"),
        "{panel}"
    );
    assert!(waited.headers.contains_key("retry-after") && refused.headers.contains_key("retry-after"));
    running.abort();
    weir.until_idle().await;
}

#[tokio::test]
async fn alerts_run_while_dashboards_fill_the_rest() {
    let upstream = FakeUpstream::start(|seen: &Seen| {
        let alert = seen.header("fromalert") == Some("true");
        if seen.path().starts_with("/api/v1/query") && !alert { Act::hang() } else { database(seen) }
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"], budget: {{queries: 10}}}}]\nlimits: {{default: {{in_flight: {{queries: 10}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let panels: Vec<_> = (0..12)
        .map(|_| tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small"))))
        .collect();
    // A fifth of ten places is kept for the class `rules`.
    weir.until_load(8, 4).await;
    let alert =
        weir.get_as("/api/v1/query?query=small", &[("fromalert", "true"), ("x-rule-uid", "r1")]).await;
    assert_eq!(alert.status, 200, "{}", alert.body);
    for panel in panels {
        panel.abort();
    }
    weir.until_idle().await;
}
