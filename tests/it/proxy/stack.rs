//! The duties of each layer of the stack towards its client: no work for a client over its rate, errors in one shape,
//! one timeout between two proxies, lists whole or refused, and a log that names the client.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
        logs::Logs,
        weir::Weir,
    },
};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn before(script: impl Fn(&Seen) -> Act + Send + Sync + 'static, more: &str) -> (FakeUpstream, Weir) {
    let upstream = FakeUpstream::start(script).await;
    let yaml = format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{more}", upstream.url());
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    (upstream, weir)
}

/// A query that is over its rate costs neither a body nor a parse nor a probe.
#[tokio::test]
async fn a_flood_over_its_rate_is_refused_before_anything_of_it_is_read() {
    let (upstream, weir) = before(database, "limits: {default: {rate: {queries: 1/h}}}").await;
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    let asked = upstream.seen().len();
    for target in ["query?query=big", "query?query=((", "query_cost?query=big", "series?match[]=big"] {
        let refused = weir.get(&format!("/api/v1/{target}")).await;
        assert_eq!(refused.status, 429, "{target}: {}", refused.body);
        assert!(refused.error().contains("(weir-rate-queries)"), "{}", refused.body);
        assert!(refused.headers["weir-limit"].to_str().unwrap().starts_with("weir-rate-queries;"));
    }
    assert_eq!(upstream.seen().len(), asked, "nothing was asked of the backend");

    // A body that is announced and never comes.
    let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    let head = "POST /api/v1/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 90000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 429");
    // Health checks cost nothing, and pass.
    assert_eq!(weir.post("/api/v1/query", "query=1%2B1").await.status, 200);
}

/// The statuses that the table in `stack.rs` names for the errors of a layer; a row without a layer goes on with the last.
fn statuses_of(layer: &str) -> Vec<u16> {
    let table = include_str!("../../../src/proxy/stack.rs");
    let (mut of, mut statuses) = ("", Vec::new());
    for row in table.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let (name, rest) = row.split_once('|').unwrap();
        of = if name.trim().is_empty() { of } else { name.trim() };
        if of == layer {
            let named = rest.split('|').next().unwrap().split_whitespace();
            statuses.extend(named.filter_map(|status| status.parse::<u16>().ok()));
        }
    }
    statuses
}

#[tokio::test]
async fn errors_have_the_statuses_that_the_stack_names() {
    let script = |seen: &Seen| match seen.params("query").first().map(String::as_str) {
        Some("small_login") => Act::answer(401, &JSON, b"{}"),
        _ => database(seen),
    };
    let more = "limits: {default: {per_query: {series: 10_000}}, tenants: {often: {rate: {queries: 1/h}}}}\n\
                tenancy: {sources: [{header: X-Scope-OrgID}, {bearer: {a: secret}}]}\n\
                rules: [{name: no-bad, match: {metric: bad}, action: refuse, reason: it is bad}]";
    let (_upstream, weir) = before(script, more).await;
    let often = [("x-scope-orgid", "often")];
    assert_eq!(weir.get_as("/api/v1/query?query=small", &often).await.status, 200);
    let deep = format!("query?query={}1", "(".repeat(200));
    for (layer, target, header, status) in [
        ("identify", "nothing", None, 404),
        ("identify", "write", None, 403),
        ("identify", "query?query=small", Some(("authorization", "Bearer x")), 401),
        ("rate", "query?query=small", Some(often[0]), 429),
        ("parse", "query?query=((", None, 400),
        ("parse", &deep, None, 422),
        ("rules", "query?query=bad", None, 422),
        ("admit", "query?query=big", None, 422),
        ("meter", "query?query=small_login", None, 502),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let answer = weir.get_as(&format!("/api/v1/{target}"), &headers).await;
        assert_eq!(answer.status, status, "{layer} {target}: {}", answer.body);
        assert!(statuses_of(layer).contains(&status), "{layer} {status}: {:?}", statuses_of(layer));
    }
}

/// M11, B7, and whose login it is.
#[tokio::test]
async fn errors_of_a_backend_reach_the_client_in_the_shape_of_the_query_api() {
    let script = |seen: &Seen| {
        let shaped = r#"{"status":"error","errorType":"execution","error":"too much"}"#;
        match seen.params("query").first().map(String::as_str) {
            Some("small_text") => Act::answer(422, &[("content-type", "text/plain")], shaped.as_bytes()),
            Some("small_bare") => Act::answer(400, &JSON, br#"{"status":"error","error":"no such thing"}"#),
            Some("small_login") => Act::answer(401, &JSON, shaped.as_bytes()),
            Some("small_path") => Act::answer(404, &[("content-type", "text/plain")], b"404 page not found"),
            _ => database(seen),
        }
    };
    let (_upstream, weir) = before(script, "").await;
    for (query, status, error_type, text) in [
        ("small_text", 422, "execution", "too much"),
        ("small_bare", 400, "bad_data", "no such thing"),
        ("small_login", 502, "unavailable", "answered 401 to Weir: too much"),
        ("small_path", 502, "unavailable", "answered 404 to Weir: 404 page not found"),
    ] {
        let answer = weir.get(&format!("/api/v1/query?query={query}&time=1")).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/json", "{query}");
        assert_eq!(answer.json()["errorType"], error_type, "{query}");
        assert!(answer.error().contains(text), "{query}: {}", answer.body);
    }
}

/// The first lowers the timeout of a query; the second must find one value only.
#[tokio::test]
async fn a_second_weir_takes_what_the_first_one_sends() {
    let upstream = FakeUpstream::start(database).await;
    let second = Weir::before(&upstream.url(), "prometheus").await;
    second.proxy.warm().await;
    let yaml = format!(
        "backends: [{{name: main, kind: weir, urls: [\"{}\"]}}]\n\
         limits: {{default: {{per_query: {{timeout: 20s}}}}}}",
        second.url("")
    );
    let first = Weir::start(&yaml).await;
    let query = "query=small&time=1&timeout=2m";
    assert_eq!(first.get(&format!("/api/v1/query?{query}")).await.status, 200);
    assert_eq!(first.post("/api/v1/query", query).await.status, 200);
    assert_eq!(first.post("/api/v1/query?timeout=2m", "query=small&time=1&timeout=2m").await.status, 200);
    let seen = upstream.seen().into_iter().filter(|seen| seen.path().ends_with("/query")).collect::<Vec<_>>();
    for seen in seen.iter().filter(|seen| seen.target.contains("small") || !seen.body.is_empty()) {
        let all = format!("{}&{}", seen.target, String::from_utf8_lossy(&seen.body));
        assert!(all.matches("timeout=").count() <= 1, "{all}");
    }
}

/// B9: a list that a limit would cut is refused before its first byte, however slowly it comes.
#[tokio::test]
async fn a_list_is_whole_or_refused() {
    let script = |seen: &Seen| {
        if !seen.path().ends_with("/series") {
            return database(seen);
        }
        let mut parts = vec![head(200, &JSON, None), chunk(br#"{"status":"success","data":["#)];
        for i in 0..20 {
            let sets: Vec<_> = (0..10).map(|n| format!(r#"{{"__name__":"a","n":"{i}-{n}"}}"#)).collect();
            parts.push(chunk(format!("{}{}", if i == 0 { "" } else { "," }, sets.join(",")).as_bytes()));
        }
        parts.extend([chunk(b"]}"), chunk(b"")]);
        Act::Slow(parts, Duration::from_millis(5))
    };
    for (limit, status) in [(100, 422), (1_000, 200)] {
        let upstream = FakeUpstream::start(script).await;
        let weir = Weir::start(&format!(
            "backends: [{{name: main, kind: cortex, urls: [\"{}\"]}}]\n\
             limits: {{default: {{per_query: {{series: {limit}}}}}}}",
            upstream.url()
        ))
        .await;
        let answer = weir.get("/api/v1/series?match[]=a").await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let json = answer.json();
        if status == 200 {
            assert_eq!(json["data"].as_array().unwrap().len(), 200);
        } else {
            assert!(answer.error().contains("(weir-max-series"), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn the_log_says_who_asked_for_which_time_and_what_was_passed() {
    let logs = Logs::catch();
    let script = |seen: &Seen| {
        if seen.params("query").iter().any(|query| query == "small_broken") {
            return Act::answer(
                422,
                &JSON,
                br#"{"status":"error","errorType":"execution","error":"the reason"}"#,
            );
        }
        database(seen)
    };
    let upstream = FakeUpstream::start(script).await;
    let weir = Weir::start_here(&format!(
        "backends: [{{name: main, urls: [\"{}\"]}}]\n\
         limits: {{default: {{modes: {{steps: shadow}}, per_query: {{steps: 10}}}}}}",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let headers = [
        ("x-grafana-user", "ann"),
        ("x-dashboard-uid", "d1"),
        ("x-panel-id", "7"),
        ("x-forwarded-for", "203.0.113.9"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let target = "/api/v1/query_range?query=small&start=0&end=100&step=1";
    assert_eq!(weir.get_as(target, &headers).await.status, 200);
    let line = &logs.queries(1).await[0];
    let wanted = json!({
        "user": "ann", "dashboard": "d1", "panel": "7", "client": "203.0.113.9",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "start_ms": 0, "end_ms": 100_000, "step_ms": 1_000, "shadowed": "weir-max-steps",
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&line[name], value, "`{name}` of {line:#}");
    }
    let shadow = &logs.of("weir::shadow")[0];
    assert_eq!((&shadow["query"], &shadow["actor"]), (&json!("small"), &json!("dashboard:d1")));
    assert_eq!(shadow["fingerprint"], line["fingerprint"]);

    assert_eq!(weir.get("/api/v1/query?query=small_broken&time=1").await.status, 422);
    let line = &logs.queries(2).await[1];
    assert_eq!((&line["error"], &line["shadowed"]), (&json!("the reason"), &Value::Null));
}

#[tokio::test]
async fn counters_are_there_before_anything_is_counted() {
    let (_upstream, weir) = before(database, "").await;
    let metrics = weir.metrics();
    for line in [
        "weir_requests_total{endpoint=\"query_range\",outcome=\"refused\",status=\"4xx\"} 0",
        "weir_upstream_responses_total{backend=\"main\",status=\"5xx\"} 0",
        "weir_answers_total{backend=\"main\",outcome=\"complete\"} 0",
        "weir_probes_total{backend=\"main\",result=\"counted\"} 0",
        "weir_divided_queries_total{backend=\"main\",outcome=\"joined\"} 0",
        "weir_config_reloads_total{result=\"failure\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}

/// A query that began before a reload is charged to its own backend, wherever the reload has put that.
#[tokio::test]
async fn a_reload_between_two_stages_charges_nobody_else() {
    let slow = |seen: &Seen| {
        let is_query = String::from_utf8_lossy(&seen.body).contains("small");
        if is_query { Act::hang() } else { database(seen) }
    };
    let one = FakeUpstream::start(slow).await;
    let two = FakeUpstream::start(database).await;
    let of =
        |name: &str, upstream: &FakeUpstream| format!("{{name: {name}, urls: [\"{}\"]}}", upstream.url());
    let weir = Weir::start(&format!("backends: [{}, {}]", of("one", &one), of("two", &two))).await;
    weir.proxy.warm().await;

    let form = "query=small&time=1";
    let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    let head = format!(
        "POST /api/v1/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n",
        form.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&form.as_bytes()[..5]).await.unwrap();
    // Its head is read and its owner known; its body is not there.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let swapped = format!("backends: [{}, {}]", of("two", &two), of("one", &one));
    weir.proxy.reload(crate::support::weir::settings(&swapped));
    stream.write_all(&form.as_bytes()[5..]).await.unwrap();
    weir.until_load(1, 0).await;
    let held: Vec<_> =
        weir.proxy.snapshot().backends.iter().map(|b| (b.name.to_string(), b.queries)).collect();
    assert_eq!(held, [("two".to_owned(), 0), ("one".to_owned(), 1)]);
}

/// Clients that take the head of an answer and then nothing hold no slot for long.
#[tokio::test]
async fn answers_that_nobody_reads_give_their_slots_back() {
    let long = format!("{{\"status\":\"success\",\"data\":\"{}\"}}", "x".repeat(32 << 20));
    let script = move |seen: &Seen| {
        let is_long = seen.params("query").iter().any(|query| query == "small_long");
        if is_long { Act::json(&long) } else { database(seen) }
    };
    let upstream = FakeUpstream::start(script).await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"], budget: {{memory: 1GiB, queries: 2}}}}]",
        upstream.url()
    ))
    .await;
    weir.proxy.warm().await;
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
        stream
            .write_all(b"GET /api/v1/query?query=small_long&time=1 HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        stalled.push(stream);
    }
    let began = std::time::Instant::now();
    let answer = weir.get("/api/v1/query?query=small&time=1").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
