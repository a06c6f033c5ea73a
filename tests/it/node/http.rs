//! The storage node's API over sockets, and the whole of Weir in one process.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, serve},
};

use crate::support::{
    process::AllInOne,
    sockets::{HttpClient, client},
};

/// The node's clock, seconds.
const NOW: i64 = 1_700_000_000;

struct Running {
    address: SocketAddr,
    client: HttpClient,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl Running {
    async fn start(options: Options, settings: Settings) -> Self {
        let db = Db::in_memory(Options { clock: || NOW * 1_000, ..options });
        let node = Node::new(Arc::new(db), settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            serve(listener, node, std::future::pending()).await;
        });
        Self { address, client: client(), serving }
    }

    /// Two series of `up` and one with a longer history.
    async fn filled(settings: Settings) -> Self {
        let node = Self::start(Options::default(), settings).await;
        let mut text = format!(
            "# TYPE up gauge\nup{{job=\"a\"}} 1 {0}\nup{{job=\"b\",le=\"0.5\"}} 0 {0}\n",
            (NOW - 10) * 1_000
        );
        for i in 0..10 {
            let time = (NOW - 150 + i * 15) * 1_000;
            writeln!(text, "hits_total{{job=\"a\"}} {} {time}", i * 3).unwrap();
        }
        assert_eq!(node.post("/api/v1/import/prometheus", "text/plain", text).await.status, 204);
        node
    }

    async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, target: &str) -> Answer {
        self.send(Request::get(format!("http://{}{target}", self.address)), "").await
    }

    async fn post(&self, target: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(format!("http://{}{target}", self.address)).header("content-type", kind);
        self.send(request, body).await
    }

    async fn form(&self, target: &str, form: &str) -> Answer {
        self.post(target, "application/x-www-form-urlencoded", form.to_owned()).await
    }
}

#[tokio::test]
async fn what_is_written_is_read() {
    let node = Running::filled(Settings::default()).await;
    let (from, to) = (NOW - 60, NOW);
    let cases = [
        (
            "/api/v1/query?query=up%7Bjob%3D%22a%22%7D".to_owned(),
            json!({"resultType": "vector", "result": [
                {"metric": {"__name__": "up", "job": "a"}, "value": [NOW, "1"]}]}),
        ),
        (
            "/api/v1/query?query=1%2F0&time=5.5".to_owned(),
            json!({"resultType": "scalar", "result": [5.5, "+Inf"]}),
        ),
        (
            "/api/v1/query?query=%22a%22&time=1".to_owned(),
            json!({"resultType": "string", "result": [1, "a"]}),
        ),
        (
            format!("/api/v1/query_range?query=sum(hits_total)&start={from}&end={to}&step=30"),
            json!({"resultType": "matrix", "result": [{"metric": {}, "values": [
                [NOW - 60, "18"], [NOW - 30, "24"], [NOW, "27"]]}]}),
        ),
        (
            "/api/v1/series?match[]=up".to_owned(),
            json!([{"__name__": "up", "job": "a"}, {"__name__": "up", "job": "b", "le": "0.5"}]),
        ),
        ("/api/v1/labels".to_owned(), json!(["__name__", "job", "le"])),
        ("/api/v1/labels?match[]=hits_total".to_owned(), json!(["__name__", "job"])),
        ("/api/v1/label/__name__/values".to_owned(), json!(["hits_total", "up"])),
        ("/api/v1/label/job/values?match[]=up&match[]=nothing".to_owned(), json!(["a", "b"])),
        ("/api/v1/label/job/values?end=5".to_owned(), json!([])),
        ("/api/v1/format_query?query=sum(%0A++up)+%23+all".to_owned(), json!("sum(up)")),
        (
            "/api/v1/parse_query?query=(-1)".to_owned(),
            json!({"type": "parenExpr", "expr": {"type": "numberLiteral", "val": "-1"}}),
        ),
        ("/api/v1/metadata".to_owned(), json!({"up": [{"type": "gauge", "help": "", "unit": ""}]})),
        ("/api/v1/query_exemplars?query=up".to_owned(), json!([])),
    ];
    for (target, want) in cases {
        let answer = node.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {:?}", answer.body);
        assert_eq!(answer.json(), json!({"status": "success", "data": want}), "{target}");
        // A form says the same as a URL.
        if let Some((path, query)) = target.split_once('?').filter(|(path, _)| !path.contains("label/")) {
            assert_eq!(node.form(path, query).await.body, answer.body, "{target}");
        }
    }
}

#[tokio::test]
async fn a_tree_as_deep_as_it_is_long_is_shown() {
    let node = Running::start(Options::default(), Settings::default()).await;
    let query = "1".to_owned() + &"%2B1".repeat(4_000);
    let tree = node.form("/api/v1/parse_query", &format!("query={query}")).await;
    assert_eq!(tree.status, 200);
    assert!(tree.body.starts_with(b"{\"status\":\"success\",\"data\":{\"bool\":false,\"lhs\":{\"bool\""));
    let lines = node.form("/api/v1/format_query", &format!("query={query}")).await;
    assert_eq!(lines.status, 422, "{:?}", lines.body);
    let tree = node.get("/api/v1/parse_query?query=rate(up%7Ba=~%22b%22%7D[5m]%20offset%201m)").await.json();
    let matrix = json!({"type": "matrixSelector", "name": "up", "range": 300_000, "offset": 60_000,
        "timestamp": null, "startOrEnd": null, "matchers": [
            {"name": "a", "type": "=~", "value": "b"}, {"name": "__name__", "type": "=", "value": "up"}]});
    assert_eq!(
        tree["data"],
        json!({"type": "call", "args": [matrix], "func": {
        "name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}})
    );
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let node = Running::start(Options::default(), Settings::default()).await;
    let url = format!("http://{}/api/v1/query?query=1&stats=all", node.address);
    let asked = node.send(Request::options(&url).header("origin", "http://elsewhere"), "").await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.headers["access-control-allow-methods"], "GET, POST, OPTIONS");
    let read = node.send(Request::get(&url).header("origin", "http://elsewhere"), "").await;
    assert_eq!(read.headers["access-control-allow-origin"], "*");
    assert!(read.json()["data"]["stats"]["timings"]["evalTotalTime"].is_number());
    assert_eq!(node.get("/api/v1/labels").await.headers.get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn lists_are_cut_with_a_warning() {
    let node = Running::filled(Settings::default()).await;
    for (target, rest) in [
        ("/api/v1/labels?limit=1", json!(["__name__"])),
        ("/api/v1/label/job/values?limit=1", json!(["a"])),
        ("/api/v1/series?match[]=up&limit=1", json!([{"__name__": "up", "job": "a"}])),
        (
            "/api/v1/query?query=sum%20by%20(job)(up)&limit=1",
            json!([{"metric": {"job": "a"}, "value": [NOW, "1"]}]),
        ),
        (
            "/api/v1/query_range?query=up&start=1699999999&end=1699999999&step=1&limit=1",
            json!([{"metric": {"__name__": "up", "job": "a"}, "values": [[NOW - 1, "1"]]}]),
        ),
    ] {
        let answer = node.get(target).await.json();
        let data = &answer["data"];
        assert_eq!(data.get("result").unwrap_or(data), &rest, "{target}");
        assert_eq!(answer["warnings"], json!(["results truncated due to limit"]), "{target}");
    }
    for target in
        ["/api/v1/labels?limit=3", "/api/v1/query?query=up&limit=2", "/api/v1/query?query=1&limit=1"]
    {
        assert_eq!(node.get(target).await.json().get("warnings"), None, "{target}");
    }
}

#[tokio::test]
async fn cost_is_exact_and_the_table_covers_all() {
    let node = Running::filled(Settings::default()).await;
    let cost = |answer: Answer| {
        let estimate = answer.json()["data"]["estimate"].clone();
        (estimate["seriesTouched"].as_u64(), estimate["samplesScanned"].as_u64())
    };
    let instant = node.form("/api/v1/query_cost", "query=up%20%2B%20rate(hits_total[1m])").await;
    assert_eq!(cost(instant), (Some(3), Some(5)));
    let target = format!("start={}&end={NOW}&step=15&query=hits_total", NOW - 60);
    let range = node.get(&format!("/api/v1/query_range_cost?{target}")).await;
    assert_eq!(cost(range), (Some(1), Some(10)));

    let table = node.get("/api/v1/status/tsdb?limit=1").await.json();
    assert_eq!(table["data"]["headStats"]["numSeries"], 3);
    assert_eq!(table["data"]["headStats"]["maxTime"], (NOW - 10) * 1_000);
    assert_eq!(table["data"]["seriesCountByMetricName"], json!([{"name": "up", "value": 2}]));
    let some = node.get("/api/v1/status/tsdb?match[]=%7Ble!=%22%22%7D").await.json();
    assert_eq!(some["data"]["headStats"]["numSeries"], 1);
}

#[tokio::test]
async fn what_is_empty_is_answered_as_prometheus_does() {
    let node = Running::filled(Settings::default()).await;
    for (target, data) in [
        ("/api/v1/series?match[]=up&start=1700000000&end=1600000000", "[]"),
        ("/api/v1/labels?start=1700000000&end=1600000000", "[]"),
        ("/api/v1/label/job/values?start=1700000000&end=1600000000", "[]"),
        ("/api/v1/targets/metadata", "[]"),
        ("/api/v1/scrape_pools", r#"{"scrapePools":[]}"#),
        ("/api/v1/alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("/api/v1/status/walreplay", r#"{"min":0,"max":0,"current":0}"#),
    ] {
        let answer = node.get(target).await;
        let want = format!(r#"{{"status":"success","data":{data}}}"#);
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, want.as_bytes()), "{target}");
    }
    let most = node.get("/api/v1/query_range?query=1&start=0&end=11000&step=1").await.json();
    assert_eq!(most["data"]["result"][0]["values"].as_array().unwrap().len(), 11_001);
    // One query over all of time that names no series.
    let nothing_named = b"\x0a\x08\x08\x00\x10\xff\xff\xff\xff\x7f";
    let packed = snap::raw::Encoder::new().compress_vec(nothing_named).unwrap();
    let answer = node.post("/api/v1/read", "application/x-protobuf", packed).await;
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&answer.body).unwrap(), b"\x0a\x00");
}

#[tokio::test]
async fn bad_input_is_named() {
    let node = Running::filled(Settings { steps: 100, ..Settings::default() }).await;
    for (target, status, kind, part) in [
        ("/api/v1/query?query=sum(", 400, "bad_data", "unclosed left parenthesis"),
        ("/api/v1/query", 400, "bad_data", "query"),
        ("/api/v1/query?query=up&time=soon", 400, "bad_data", "\"time\""),
        ("/api/v1/query_range?query=up&start=2&end=1&step=1", 400, "bad_data", "before start"),
        ("/api/v1/query_range?query=up&start=1&end=2&step=0", 400, "bad_data", "\"step\""),
        (
            "/api/v1/query_range?query=up&start=1&end=200&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution",
        ),
        ("/api/v1/query_range?query=up[5m]&start=1&end=2&step=1", 400, "bad_data", "range vector"),
        ("/api/v1/series", 400, "bad_data", "no match[]"),
        ("/api/v1/series?match[]=sum(up)", 400, "bad_data", "is not a series selector"),
        ("/api/v1/series?match[]=up%20offset%205m", 400, "bad_data", "is not a series selector"),
        ("/api/v1/labels?match[]=up%20%40%205", 400, "bad_data", "is not a series selector"),
        ("/api/v1/query?query=up&limit=-1", 400, "bad_data", "\"limit\""),
        ("/api/v1/query?query=up&timeout=0", 503, "timeout", "longer than 0 s"),
        ("/api/v1/query_range?query=1&start=0&end=11001&step=1", 400, "bad_data", "maximum resolution"),
        ("/api/v1/query_exemplars?query=up&start=2&end=1", 400, "bad_data", "before start"),
        ("/api/v1/labels?limit=-1", 400, "bad_data", "\"limit\""),
        ("/api/v1/status/tsdb?limit=10001", 400, "bad_data", "limit"),
        ("/api/v1/query?query=rate(up[2m/range()])", 400, "bad_data", "division by zero"),
        ("/api/v1/query_cost?query=rate(up[2m%25step()])", 400, "bad_data", "modulo by zero"),
        ("/api/v1/query?query=up[step()]", 400, "bad_data", "duration must be greater than 0"),
        ("/api/v1/query_exemplars?query=sum(", 400, "bad_data", "parenthesis"),
        ("/api/v1/metadata?limit=x", 400, "bad_data", "limit"),
        ("/api/v1/nothing", 404, "not_found", "/api/v1/nothing"),
        ("/api/v1/write", 405, "bad_data", "method"),
    ] {
        let answer = node.get(target).await;
        let json = answer.json();
        assert_eq!(answer.status, status, "{target}: {json}");
        assert_eq!(json["errorType"], kind, "{target}: {json}");
        assert!(json["error"].as_str().unwrap().contains(part), "{target}: {json}");
        assert!(answer.body.starts_with(b"{\"status\":\"error\",\"errorType\":"), "{target}");
    }
}

#[tokio::test]
async fn bad_writes_are_refused_and_good_ones_kept() {
    let node = Running::start(Options { max_series: 1, ..Options::default() }, Settings::default()).await;
    let text = "/api/v1/import/prometheus";
    for (target, body, status, part) in [
        (text, &b"up 1\n"[..], 204, ""),
        (text, b"up 1\ndown 1\n", 400, "0 samples were written, 1 refused; the first: the limit of series"),
        (
            text,
            b"up 1 1700000000500\ndown 1\n",
            400,
            "1 samples were written, 1 refused; the first: the limit",
        ),
        (text, b"down 1\n", 429, "down"),
        (text, b"up one\n", 400, "line 1"),
        (text, b"up 1 99999999999999\n", 400, "up"),
        ("/api/v1/write", b"not snappy", 400, "snappy"),
    ] {
        let answer = node.post(target, "", body.to_vec()).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{shown}");
        assert!(shown.contains(part), "{shown}");
    }
    // A request with a label {__name__="up"} and a sample 2 at NOW + 1 s.
    let label = [&b"\x0a\x0e\x0a\x08__name__\x12\x02up"[..]].concat();
    let mut sample = vec![0x09];
    sample.extend_from_slice(&2f64.to_le_bytes());
    sample.push(0x10);
    let mut time = ((NOW + 1) * 1_000) as u64;
    while time >= 0x80 {
        sample.push(time as u8 | 0x80);
        time >>= 7;
    }
    sample.push(time as u8);
    let series = [&label[..], &[0x12, sample.len() as u8], &sample].concat();
    let message = [&[0x0a, series.len() as u8][..], &series].concat();
    let packed = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    let written = node.post("/api/v1/write", "application/x-protobuf", packed).await;
    assert_eq!(written.status, 204, "{:?}", written.body);
    let read = node.get(&format!("/api/v1/query?query=up&time={}", NOW + 1)).await.json();
    assert_eq!(read["data"]["result"][0]["value"], json!([NOW + 1, "2"]));
}

#[tokio::test]
async fn limits_hold_while_a_query_runs() {
    let mut settings = Settings::default();
    settings.limits.series = 1;
    let node = Running::filled(settings).await;
    let answer = node.get("/api/v1/query?query=up").await;
    assert_eq!(answer.status, 422);
    assert!(answer.json()["error"].as_str().unwrap().contains("more than 1 series"));

    let none = Running::filled(Settings { reads_outstanding: 0, ..Settings::default() }).await;
    let refused = none.get("/api/v1/query?query=up").await;
    assert_eq!(
        (refused.status, &refused.json()["errorType"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
    );
    assert!(refused.headers.contains_key("retry-after"));
    let metrics = none.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body);
    assert!(text.contains("weir_node_reads_refused_total 1"), "{text}");
    assert!(text.contains("weir_node_series 3"), "{text}");
}

#[tokio::test]
async fn what_was_read_lately_is_limited_by_source() {
    let mut settings = Settings::default();
    settings.recent.source.series = 4;
    let node = Running::filled(settings).await;
    let ask = async |source: &str| {
        let url = format!("http://{}/api/v1/query?query=up", node.address);
        let request = Request::get(url).header("X-Scope-OrgID", source);
        node.send(request, "").await
    };
    for status in [200, 200, 429] {
        assert_eq!(ask("one").await.status, status);
    }
    let refused = ask("one").await;
    assert_eq!(refused.json()["errorType"], "too_many_requests");
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=15).contains(&seconds), "{seconds}");
    assert_eq!(ask("other").await.status, 200);
    // Without a name it is the address.
    for status in [200, 200, 429] {
        assert_eq!(node.get("/api/v1/query?query=up").await.status, status);
    }
    let metrics = node.get("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body);
    assert!(text.contains("weir_node_recent_refused_total 3"), "{text}");
}

#[tokio::test]
async fn large_answers_are_streamed_and_packed_on_demand() {
    let node = Running::start(Options::default(), Settings::default()).await;
    let filler = "x".repeat(40);
    let mut text = String::new();
    for i in 0..3_000 {
        writeln!(text, "wide{{number=\"{i}\",filler=\"{filler}\"}} {i}").unwrap();
    }
    assert_eq!(node.post("/api/v1/import/prometheus", "", text).await.status, 204);
    let target = "/api/v1/query?query=wide";
    let plain = node.get(target).await;
    assert_eq!(plain.json()["data"]["result"].as_array().unwrap().len(), 3_000);
    assert_eq!(plain.headers.get("content-length"), None);
    let request = Request::get(format!("http://{}{target}", node.address)).header("accept-encoding", "gzip");
    let packed = node.send(request, "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() * 5 < plain.body.len());
}

#[tokio::test]
async fn one_command_has_data_from_the_first_second() {
    let data = tempfile::tempdir().unwrap();
    let weir = AllInOne::start(data.path(), &[]).await;
    let client = client();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let request = Request::get(&weir.example).body(Full::<Bytes>::default()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap();
        if json["data"]["result"][0]["metric"]["job"] == "weir" {
            break;
        }
        assert!(Instant::now() < end, "{json}");
        tokio::task::yield_now().await;
    }
    assert!(data.path().join("node").is_dir());
}
