//! The way of a request through a whole proxy: the request at the backend, the answer at the client.

use serde_json::json;

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    weir::{Weir, settings},
};

pub(crate) const VECTOR: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}"#;

/// Says of one metric that it has 20,000 series, of every other that it has 10, since the beginning of time.
pub(crate) fn database(seen: &Seen) -> Act {
    if seen.path().ends_with("/status/tsdb") {
        let table = json!({"status": "success", "data": {
            "headStats": {"numSeries": 25_000, "minTime": -1_000_000_000_000_i64},
            "seriesCountByMetricName": [{"name": "big", "value": 20_000}, {"name": "small", "value": 10}],
            "seriesCountByLabelValuePair": [{"name": "job=api", "value": 9_000}],
        }});
        return Act::json(&table.to_string());
    }
    if seen.path().ends_with("/api/v1/series") {
        let asked = format!("{}{}", seen.target, String::from_utf8_lossy(&seen.body));
        let series = vec![r#"{"__name__":"a"}"#; if asked.contains("big") { 20_000 } else { 2 }].join(",");
        return Act::json(&format!(r#"{{"status":"success","data":[{series}]}}"#));
    }
    if seen.params("query").iter().any(|query| asks_type(query)) {
        return Act::json(&VECTOR.replace("\"2\"", "\"0\""));
    }
    if seen.params("query").iter().any(|query| is_probe(query) && query.contains("big")) {
        return Act::json(&VECTOR.replace("\"2\"", "\"20000\""));
    }
    Act::json(VECTOR)
}

/// A warmed-up Weir with these further settings before [`database`], whose queries `act` answers.
pub(crate) async fn before(
    act: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    more: &str,
) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(move |seen: &Seen| {
        if seen.path().starts_with("/api/v1/query") { act(seen) } else { database(seen) }
    })
    .await;
    let weir =
        Weir::start(&format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{more}", upstream.url())).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

fn is_probe(query: &str) -> bool {
    query.starts_with("count(") || asks_type(query)
}

fn asks_type(query: &str) -> bool {
    query.starts_with("(count(histogram_count(")
}

fn queries(upstream: &FakeUpstream) -> Vec<Seen> {
    let own = [
        "/status/tsdb",
        "/-/ready",
        "/health",
        "/api/v1/series",
        "/status/buildinfo",
        "/metrics",
        "/metadata",
    ];
    let is_own = |seen: &Seen| {
        own.iter().any(|path| seen.path().ends_with(path)) || seen.params("query").iter().any(|q| is_probe(q))
    };
    upstream.seen().into_iter().filter(|seen| !is_own(seen)).collect()
}

async fn over(yaml: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(database).await;
    let weir =
        Weir::start(&format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{yaml}", upstream.url())).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

#[tokio::test]
async fn what_is_admitted_goes_on_untouched() {
    let (upstream, weir) = over("").await;
    let answer = weir.get_as(
        "/prometheus/api/v1/query?query=sum(small)%20&time=7&custom=a%2Fb",
        &[
            ("traceparent", "00-1-2-01"),
            ("accept-encoding", "br, gzip"),
            ("connection", "x-secret"),
            ("x-secret", "1"),
        ],
    );
    let answer = answer.await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, VECTOR));
    assert!(
        answer.headers["weir-estimate"].to_str().unwrap().starts_with("series=10;"),
        "{:?}",
        answer.headers
    );
    assert!(answer.headers.contains_key("server-timing"));
    // The one series of a `sum` does not show how many it read.
    let told = format!("answer_series=1; answer_samples=1; answer_bytes={}", VECTOR.len());
    assert_eq!(answer.headers["weir-cost"], told);
    let plain = weir.get("/api/v1/query?query=small").await;
    assert_eq!(plain.headers["weir-cost"], format!("series=1; {told}"));
    let seen = queries(&upstream);
    assert_eq!(seen[0].target, "/api/v1/query?timeout=60000ms&query=sum(small)%20&time=7&custom=a%2Fb");
    assert_eq!(seen[0].header("traceparent"), Some("00-1-2-01"));
    assert_eq!(seen[0].header("accept-encoding"), Some("gzip"));
    assert_eq!(seen[0].header("x-secret"), None);
    weir.until_idle().await;
}

#[tokio::test]
async fn a_post_stays_a_post_and_its_form_is_read() {
    let (upstream, weir) = over("").await;
    let answer =
        weir.post("/api/v1/query_range?stats=all", "query=small&start=0&end=600&step=60&timeout=5").await;
    assert_eq!(answer.status, 200);
    let seen = queries(&upstream);
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/api/v1/query_range?stats=all"));
    assert_eq!(seen[0].body, b"query=small&start=0&end=600&step=60&timeout=5");
}

#[tokio::test]
async fn what_costs_too_much_never_reaches_the_backend() {
    let (upstream, weir) = over("limits: {default: {per_query: {series: 10_000, selectors: 2}}}").await;
    let far = "start=0&end=2592000&step=3600";
    for (path, id) in [
        (format!("/api/v1/query_range?query=%7B__name__%3D~%22.%2B%22%7D&{far}"), "weir-max-series"),
        (format!("/api/v1/query_range?query=rate(big[5m])&{far}"), "weir-max-series"),
        ("/api/v1/query_range?query=small&start=0&end=20000&step=1".to_owned(), "weir-max-steps"),
        ("/api/v1/query_range?query=small&start=0&end=3000000&step=3600".to_owned(), "weir-max-range"),
        ("/api/v1/query?query=small%2Bsmall%2Bsmall".to_owned(), "weir-max-selectors"),
    ] {
        let answer = weir.get(&path).await;
        assert_eq!(answer.status, 422, "{path}: {}", answer.body);
        assert!(answer.error().contains(&format!("({id}")), "{path}: {}", answer.body);
        assert!(answer.error().contains("To fix it: "), "{}", answer.body);
        assert!(answer.headers["weir-limit"].to_str().unwrap().starts_with(id));
        assert!(answer.headers.contains_key("weir-estimate"));
    }
    assert_eq!(queries(&upstream).len(), 0);
    let metrics = weir.metrics();
    assert!(metrics.contains("weir_refusals_total{") && metrics.contains("weir-max-series"), "{metrics}");
    weir.until_idle().await;
}

#[tokio::test]
async fn shadow_lets_run_and_counts() {
    let (upstream, weir) =
        over("limits: {default: {modes: {series: shadow}, per_query: {series: 10_000}}}").await;
    assert_eq!(weir.get("/api/v1/query?query=sum(big)").await.status, 200);
    assert_eq!(queries(&upstream).len(), 1);
    assert!(weir.metrics().contains("mode=\"shadow\""));
}

#[tokio::test]
async fn what_reads_nothing_is_never_counted() {
    let (_upstream, weir) = over("limits: {default: {rate: {queries: 1/h}}}").await;
    for _ in 0..5 {
        for path in ["/api/v1/query?query=1%2B1", "/api/v1/query?query=vector(1)", "/api/v1/status/buildinfo"]
        {
            assert_eq!(weir.get(path).await.status, 200, "{path}");
        }
    }
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    let late = weir.get("/api/v1/query?query=small").await;
    assert_eq!(late.status, 429);
    assert!(late.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 60);
    assert!(late.error().starts_with("retry in "), "{}", late.body);
}

#[tokio::test]
async fn costs_are_told_without_running() {
    let (upstream, weir) = over("limits: {default: {per_query: {series: 10_000}}}").await;
    let cost = weir.get("/api/v1/query_cost?query=sum(rate(small[5m]))").await.json();
    assert_eq!(cost["status"], "success");
    assert_eq!(cost["data"]["estimate"]["seriesTouched"], 10);
    assert_eq!(cost["data"]["estimate"]["samplesScanned"], 200);
    assert_eq!(cost["data"]["verdict"]["admitted"], true);
    let cost = weir.post("/api/v1/query_range_cost", "query=big&start=0&end=3600&step=60").await.json();
    assert_eq!(cost["data"]["estimate"]["seriesTouched"], 20_000);
    assert_eq!(cost["data"]["verdict"]["limit"], "weir-max-series");
    assert_eq!(queries(&upstream).len(), 0);
}

#[tokio::test]
async fn label_browsing_survives() {
    let (_upstream, weir) = over("").await;
    for path in [
        "/api/v1/series?match[]=%7B__name__!%3D%22%22%7D",
        "/api/v1/labels",
        "/api/v1/labels?match[]=small",
        "/api/v1/label/job/values?start=0&end=1700000000",
        "/api/v1/metadata",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/query_exemplars?query=small&start=0&end=60",
        "/api/v1/format_query?query=a%2Bb",
    ] {
        assert_eq!(weir.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn tenants_go_where_their_route_says() {
    let (a, b) = (FakeUpstream::start(database).await, FakeUpstream::start(database).await);
    let weir = Weir::start(&format!(
        "backends: [{{name: a, urls: [\"{}\"]}}, {{name: b, tenant_header: X-Scope-OrgID, urls: [\"{}/prefix\"]}}]\nroutes: [{{tenants: [blue], backend: b}}]",
        a.url(),
        b.url()
    ))
    .await;
    assert_eq!(weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", "blue")]).await.status, 200);
    assert_eq!(queries(&a).len(), 0);
    let seen = queries(&b);
    assert_eq!(seen[0].path(), "/prefix/api/v1/query");
    assert_eq!(seen[0].header("x-scope-orgid"), Some("blue"));
}

#[tokio::test]
async fn m3_gets_limits_that_a_client_can_only_lower() {
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: m, kind: m3, push_down: true, urls: [\"{}\"]}}]\n\
         limits: {{default: {{per_query: {{series: 500}}}}}}",
        upstream.url()
    ))
    .await;
    for (asked, sent) in [(None, "501"), (Some("100"), "100"), (Some("9000"), "501")] {
        let headers: Vec<_> = asked.map(|asked| ("m3-limit-max-series", asked)).into_iter().collect();
        let answer = weir.get_as("/api/v1/query?query=small", &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let sent_on = queries(&upstream);
        let sent_on = sent_on.last().unwrap();
        assert_eq!(sent_on.header("m3-limit-max-series"), Some(sent));
        // Nobody wrote these: M3's own hold.
        for built_in in ["m3-limit-max-docs", "m3-limit-max-range", "m3-timeout"] {
            assert_eq!(sent_on.header(built_in), None, "{built_in}");
        }
        assert!(sent_on.params("timeout").is_empty());
    }
}

#[tokio::test]
async fn a_dashboard_burst_is_queued_and_answered() {
    let (upstream, weir) = over("").await;
    let ask = |i: usize| {
        let path = format!("/api/v1/query_range?query=sum(rate(small[{}m]))&start=0&end=3600&step=60", i + 1);
        let weir = &weir;
        async move { weir.get_as(&path, &[("x-dashboard-uid", "d1")]).await }
    };
    let answers = futures_util::future::join_all((0..60).map(ask)).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(queries(&upstream).len(), 60);
    weir.until_idle().await;
}

#[tokio::test]
async fn what_m3_says_it_touched_is_learned() {
    let upstream = FakeUpstream::start(|seen: &Seen| {
        if seen.path() == "/api/v1/query" {
            let headers = [("content-type", "application/json"), ("m3-series-count", "1234")];
            return Act::answer(200, &headers, VECTOR.as_bytes());
        }
        Act::answer(404, &[], b"")
    })
    .await;
    let weir = Weir::before(&upstream.url(), "m3").await;
    let known =
        |answer: &crate::support::weir::Answer| answer.headers["weir-estimate"].to_str().unwrap().to_owned();
    let first = weir.get("/api/v1/query?query=sum(small)").await;
    assert!(known(&first).ends_with("known=assumed"), "{}", known(&first));
    weir.until_idle().await;
    let second = weir.get("/api/v1/query?query=sum(small)").await;
    assert!(
        known(&second).starts_with("series=1234;") && known(&second).ends_with("known=learned"),
        "{}",
        known(&second)
    );
}

#[tokio::test]
async fn a_tenant_header_cannot_be_lost_on_the_way() {
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\ntenancy: {{sources: [{{header: X-Team}}]}}\n\
         limits: {{tenants: {{blue: {{per_query: {{steps: 1}}}}}}}}",
        upstream.url()
    ))
    .await;
    let graph = "/api/v1/query_range?query=small&start=0&end=60&step=15";
    assert_eq!(weir.get_as(graph, &[("x-team", "blue")]).await.status, 422);
    // Lost for the backend, it is lost for the limits as well: nobody is charged for another's data.
    let sly = weir.get_as(graph, &[("x-team", "blue"), ("connection", "x-team")]).await;
    assert_eq!(sly.status, 200);
    assert_eq!(queries(&upstream).last().unwrap().header("x-team"), None);
}

#[tokio::test]
async fn a_remote_read_is_priced_by_its_matchers() {
    let (upstream, weir) = over("limits: {default: {per_query: {series: 10_000}}}").await;
    let read = async |name: &str| {
        let matcher = [&[0x12, 8][..], b"__name__", &[0x1a, name.len() as u8], name.as_bytes()].concat();
        let query = [&[0x10, 0xe0, 0xd4, 0x03, 0x1a, matcher.len() as u8][..], &matcher].concat();
        let request = [&[0x0a, query.len() as u8][..], &query].concat();
        let body = snap::raw::Encoder::new().compress_vec(&request).unwrap();
        let request = http::Request::post(weir.url("/api/v1/read")).header("content-encoding", "snappy");
        weir.ask(request.body(http_body_util::Full::from(body)).unwrap()).await
    };
    assert_eq!(read("small").await.status, 200);
    let refused = read("big").await;
    assert_eq!(refused.status, 422);
    assert!(refused.error().contains("(weir-max-series"), "{}", refused.body);
    assert_eq!(queries(&upstream).len(), 1);
    let damaged =
        weir.ask(http::Request::post(weir.url("/api/v1/read")).body("garbage".into()).unwrap()).await;
    assert_eq!(damaged.status, 400);
}

#[tokio::test]
async fn what_was_learned_under_other_limits_is_asked_anew() {
    let upstream = FakeUpstream::start(|seen: &Seen| match seen.path() {
        "/api/v1/query" if seen.params("query")[0].starts_with("count") => {
            Act::json(r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[0,"40"]}]}}"#)
        }
        "/api/v1/query_range" => Act::json(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
        "/api/v1/series" => {
            let series = vec![r#"{"__name__":"up"}"#; 40].join(",");
            Act::json(&format!(r#"{{"status":"success","data":[{series}]}}"#))
        }
        _ => Act::answer(404, &[], b""),
    })
    .await;
    let yaml = |series: u64| {
        format!(
            "backends: [{{name: main, urls: [\"{}\"]}}]\nlimits: {{default: {{per_query: {{series: {series}}}}}}}",
            upstream.url()
        )
    };
    let weir = Weir::start(&yaml(1_000)).await;
    let range = "/api/v1/query_range?query=sum(up)&start=0&end=3600&step=60";
    assert_eq!(weir.get(range).await.status, 200);
    weir.proxy.reload(settings(&yaml(30)));
    let refused = weir.get(range).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["weir-limit"].to_str().unwrap()[..15]),
        (422, "weir-max-series")
    );
}

/// A client's own headers and parameters change no count, and those that a kind would obey are priced, stripped or
/// refused.
#[tokio::test]
async fn what_changes_the_reading_is_priced_stripped_or_refused() {
    let upstream = FakeUpstream::start(database).await;
    let weir = Weir::before(&upstream.url(), "m3").await;
    let other = weir.get("/api/v1/query?query=small&engine=m3query").await;
    assert!(
        other.status == 400 && other.error().contains("`engine` may only be `prometheus`"),
        "{}",
        other.body
    );
    let header = weir.get_as("/api/v1/query?query=small", &[("m3-engine", "m3query")]).await;
    assert_eq!(header.status, 400, "{}", header.body);
    let headers = [("m3-limit-max-returned-seriesmetadata", "1"), ("m3-read-consistency-level", "all")];
    let answer = weir.get_as("/api/v1/query?query=odd&block-type=x", &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = upstream.seen();
    let is_probe = |seen: &&Seen| seen.path().ends_with("/api/v1/series");
    assert!(seen.iter().any(|seen| is_probe(&seen)));
    assert!(seen.iter().filter(is_probe).all(|seen| seen.header(headers[0].0).is_none()));
    let sent = seen.iter().find(|seen| seen.path() == "/api/v1/query").unwrap();
    assert_eq!(sent.target, "/api/v1/query?query=odd");
    assert_eq!((sent.header(headers[0].0), sent.header(headers[1].0)), (Some("1"), None));
}

/// 4,000 parentheses take Prometheus 30 s to format, and so does a sum of 2,000 numbers; 5,000 of them take 750 MiB.
#[tokio::test]
async fn what_is_formatted_is_read_first() {
    let (upstream, weir) = over("").await;
    let nested = format!("{}1{}", "(".repeat(4_000), ")".repeat(4_000));
    for path in ["format_query", "parse_query"] {
        assert_eq!(weir.get(&format!("/api/v1/{path}?query=sum(small)")).await.status, 200);
        let sent = upstream.seen().len();
        let refused = weir.post(&format!("/api/v1/{path}"), &format!("query={nested}")).await;
        assert!(refused.status.is_client_error(), "{}", refused.body);
        assert_eq!(upstream.seen().len(), sent);
    }
    let sum = vec!["1"; 300].join("%2B");
    for path in ["/api/v1/format_query", "/prometheus/api/v1/format_query"] {
        let answer = weir.post(path, &format!("query={sum}")).await;
        let lines = answer.json()["data"].as_str().unwrap().lines().count();
        assert_eq!((answer.status.as_u16(), lines), (200, 551), "{}", answer.body);
    }
    let too_wide =
        weir.post("/api/v1/format_query", &format!("query={}", vec!["1"; 4_000].join("%2B"))).await;
    assert_eq!(too_wide.status, 422, "{}", too_wide.body);
    assert!(upstream.seen().iter().all(|seen| !seen.path().ends_with("format_query")));
}
