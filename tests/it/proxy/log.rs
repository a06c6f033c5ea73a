//! Every query leaves one line in the log, whatever its end.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
        logs::Logs,
        weir::Weir,
    },
};

/// Queries of `slow` never end, probes of `big` neither, and whatever names `huge` gets too much.
fn script(seen: &Seen) -> Act {
    let text = format!("{}{}", seen.target, String::from_utf8_lossy(&seen.body));
    let json = [("content-type", "application/json")];
    if text.contains("big") {
        Act::hang()
    } else if text.contains("streaming") {
        let mut open = head(200, &json, None);
        open.extend(chunk(b"{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":["));
        Act::ThenHang(open)
    } else if text.contains("slow") {
        Act::hang()
    } else if text.contains("huge") {
        Act::ThenHang(head(200, &json, Some(2 << 20)))
    } else if text.contains("deadly") {
        Act::die()
    } else {
        database(seen)
    }
}

async fn start(more: &str) -> (Logs, FakeUpstream, Weir) {
    let logs = Logs::catch();
    let upstream = FakeUpstream::start(script).await;
    let probe = "probe: {deadline: 1h}, response_timeout: 1h, health: {interval: 1h}";
    let yaml = format!("backends: [{{name: main, urls: [\"{}\"], {probe}}}]\n{more}", upstream.url());
    let weir = Weir::start_here(&yaml).await;
    weir.proxy.warm().await;
    (logs, upstream, weir)
}

/// Every field of the line stands in the table of fields.
fn documented(line: &Value) {
    let page = include_str!("../../../docs/operating.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Logs")).unwrap();
    for name in line.as_object().unwrap().keys() {
        let is_every_lines = ["timestamp", "level", "target", "message"].contains(&name.as_str());
        assert!(is_every_lines || section.contains(&format!("`{name}`")), "docs/operating.md lacks `{name}`");
    }
}

/// The line has all of these.
fn holds(line: &Value, wanted: &Value) {
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&line[name], value, "`{name}` of {line:#}");
    }
}

#[tokio::test]
async fn every_answer_and_every_refusal_leaves_a_line() {
    let limits = "limits: {default: {per_query: {steps: 10, response: 1MiB}}}";
    let tokens = "tenancy: {sources: [{header: X-Scope-OrgID}, {bearer: {a: secret}}]}";
    let (logs, _upstream, weir) = start(&format!("{limits}\n{tokens}")).await;
    let refused = |verdict, status, stage| json!({"verdict": verdict, "status": status, "stage": stage, "outcome": "refused"});
    let cases = [
        (
            "query?query=small&time=1",
            json!({"verdict": "admitted", "status": 200, "outcome": "complete", "stage": "meter",
                "tenant": "anonymous", "actor": "ip:127.0.0.1", "class": "adhoc", "backend": "main",
                "query": "small", "est_series": 10, "answer_series": 1, "endpoint": "query"}),
        ),
        ("query?query=1%2B1", json!({"verdict": "free", "status": 200, "outcome": "passed", "query": "1+1"})),
        (
            "query_cost?query=small",
            json!({"verdict": "explained", "stage": "estimate", "status": 200, "est_series": 10}),
        ),
        ("query?query=small%7B", refused("bad_data", 400, "parse")),
        ("query?query=small%7B", json!({"query": "small{", "tenant": "anonymous"})),
        ("query", refused("bad_data", 400, "parse")),
        ("query?query=%ff", refused("bad_data", 400, "parse")),
        ("series?match[]=1", json!({"verdict": "bad_data", "endpoint": "series", "query": "1"})),
        ("query_range?query=small&start=0&end=100&step=1", refused("weir-max-steps", 422, "admit")),
        (
            "query?query=vector(1)&deadly=1",
            json!({"verdict": "free", "status": 502, "outcome": "failed", "stage": "forward"}),
        ),
        (
            "query?query=deadly_small&time=1",
            json!({"verdict": "admitted", "status": 502, "outcome": "failed", "stage": "forward"}),
        ),
        (
            "query?query=huge_small&time=1",
            json!({"verdict": "admitted", "status": 422, "outcome": "cut_off", "limit": "weir-max-response"}),
        ),
    ];
    for (i, (target, wanted)) in cases.iter().enumerate() {
        let answer = weir.get(&format!("/api/v1/{target}")).await;
        let lines = logs.queries(i + 1).await;
        assert_eq!(lines.len(), i + 1, "{target}");
        documented(&lines[i]);
        holds(&lines[i], wanted);
        assert_eq!(lines[i]["status"], answer.status.as_u16(), "what the client saw: {:#}", lines[i]);
        // Refusals and failures say why, in the words that the client got; nothing else does.
        let error = lines[i]["error"].as_str();
        assert_eq!(error.is_some(), !answer.status.is_success(), "{:#}", lines[i]);
        assert!(error.is_none_or(|error| answer.error() == error), "{error:?} {}", answer.body);
    }
    assert_eq!(weir.get_as("/api/v1/query?query=small", &[("authorization", "Bearer x")]).await.status, 401);
    holds(&logs.queries(cases.len() + 1).await[cases.len()], &refused("unauthorized", 401, "identify"));
    // A request that is no query leaves none.
    for (target, status) in [("status/buildinfo", 200), ("nothing", 404), ("write", 403)] {
        assert_eq!(weir.get(&format!("/api/v1/{target}")).await.status, status);
    }
    weir.until_idle().await;
    assert_eq!(logs.of("weir::query").len(), cases.len() + 1);
    // All of them are counted, as their clients saw them.
    let metrics = weir.metrics();
    for line in [
        "weir_requests_total{endpoint=\"query\",outcome=\"complete\",status=\"2xx\"} 1",
        "weir_requests_total{endpoint=\"query\",outcome=\"refused\",status=\"4xx\"} 5",
        "weir_requests_total{endpoint=\"query\",outcome=\"failed\",status=\"5xx\"} 2",
        "weir_requests_total{endpoint=\"query\",outcome=\"cut_off\",status=\"4xx\"} 1",
        "weir_requests_total{endpoint=\"light\",outcome=\"passed\",status=\"2xx\"} 1",
        "weir_request_seconds_count{endpoint=\"query\"} 10",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let grafana = [("x-grafana-user", "ann"), ("x-dashboard-uid", "d"), ("x-panel-id", "4")];
    assert_eq!(weir.get_as("/api/v1/query?query=small", &grafana).await.status, 200);
    let line = &logs.queries(cases.len() + 2).await[cases.len() + 1];
    holds(line, &json!({"user": "ann", "dashboard": "d", "panel": "4", "client": "127.0.0.1"}));
    documented(line);
}

#[tokio::test]
async fn who_leaves_is_on_record_wherever_it_was() {
    let one = "limits: {default: {in_flight: {queries: 1}, per_query: {series: 1_000}}}";
    let (logs, upstream, weir) = start(one).await;
    let ask = |query: &str| {
        tokio::spawn(weir.client.request(weir.request(&format!("/api/v1/query?query={query}"))))
    };

    let probing = ask("big");
    upstream.asked("big").await;
    probing.abort();
    let lines = logs.queries(1).await;
    holds(
        &lines[0],
        &json!({"verdict": "undecided", "outcome": "dropped", "stage": "estimate", "query": "big"}),
    );
    assert_eq!(lines[0]["status"], Value::Null, "nobody got one");

    let running = ask("slow_small&time=1");
    weir.until_load(1, 0).await;
    let waiting = ask("small");
    weir.until_load(1, 1).await;
    waiting.abort();
    let lines = logs.queries(2).await;
    holds(&lines[1], &json!({"verdict": "undecided", "stage": "admit", "query": "small", "est_series": 10}));
    running.abort();
    let lines = logs.queries(3).await;
    holds(
        &lines[2],
        &json!({"verdict": "admitted", "outcome": "dropped", "stage": "forward", "query": "slow_small"}),
    );

    let mut response = weir.send(weir.request("/api/v1/query?query=streaming&time=1")).await;
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    let lines = logs.queries(4).await;
    holds(&lines[3], &json!({"verdict": "admitted", "status": 200, "outcome": "dropped", "stage": "meter"}));

    let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    let head = "POST /api/v1/query HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"query").await.unwrap();
    drop(stream);
    let lines = logs.queries(5).await;
    // Half a body is an answer to be given, though nobody may read it.
    holds(&lines[4], &json!({"stage": "parse", "tenant": "anonymous", "query": "", "status": 400}));
    weir.until_idle().await;
    assert_eq!(logs.of("weir::query").len(), 5);
    let dropped = "weir_requests_total{endpoint=\"query\",outcome=\"dropped\",status=\"none\"} 3";
    assert!(weir.metrics().contains(dropped), "{}", weir.metrics());
}
