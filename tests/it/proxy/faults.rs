//! Bad input, bad backends, bad clients: each gets a clear error, and no permit is lost.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use weir::admin::Snapshot;

use crate::{
    proxy::forward::{before, database},
    support::{
        fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
        weir::{Weir, settings},
    },
};

#[tokio::test]
async fn bad_requests_get_clear_errors() {
    let (_upstream, weir) = before(database, "").await;
    let long = format!("/api/v1/query?query={}", "a".repeat(60_000));
    let nested = format!("/api/v1/query?query={}1{}", "(".repeat(5_000), ")".repeat(5_000));
    for (path, status, message) in [
        ("/api/v1/query?query=up%7B", 400, "invalid parameter \"query\": 1:"),
        ("/api/v1/query", 400, "invalid parameter \"query\": it is missing"),
        ("/api/v1/query?query=up&time=soon", 400, "invalid parameter \"time\": cannot parse \"soon\""),
        ("/api/v1/query_range?query=up&start=5&end=1&step=1", 400, "end timestamp must not be before start"),
        ("/api/v1/query_range?query=up&start=1&end=5&step=0", 400, "zero or negative query resolution"),
        ("/api/v1/query?query=up&query=down", 400, "given twice"),
        ("/api/v1/query?query=%ff", 400, "not valid UTF-8"),
        ("/api/v1/query?query=a;b", 400, "%3B"),
        ("/api/v1/unknown", 404, "no such endpoint"),
        ("/api/v1/status/config", 403, "closed"),
        ("/", 404, "no web interface"),
        (&nested, 422, "(weir-max-depth)"),
    ] {
        let answer = weir.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.body);
        assert!(answer.error().contains(message), "{path}: {}", answer.body);
    }
    // Long, but a name like any other.
    assert_eq!(weir.get(&long).await.status, 200);
    weir.until_idle().await;
}

#[tokio::test]
async fn bad_bodies_get_clear_errors() {
    let (_upstream, weir) = before(database, "server: {request_body: 1MiB}").await;
    let form = "application/x-www-form-urlencoded";
    let megabytes = "a".repeat((1 << 20) + 1);
    for (method, content_type, body, status, message) in [
        ("POST", form, megabytes.as_str(), 413, "longer than 1MiB"),
        ("POST", "multipart/form-data; boundary=x", "query=up", 400, "application/x-www-form-urlencoded"),
        ("POST", "application/json", "{\"query\": \"up\"}", 400, "application/x-www-form-urlencoded"),
        ("DELETE", form, "query=up", 405, "GET, POST only"),
        ("PUT", form, "query=up", 405, "GET, POST only"),
        ("POST", form, "query=up%", 400, "%25"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(weir.url("/api/v1/query"))
            .header("content-type", content_type);
        let answer = weir.ask(request.body(Full::from(body.to_owned())).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(answer.error().contains(message), "{}", answer.body);
    }
    weir.until_idle().await;
}

#[tokio::test]
async fn a_failing_backend_is_named_and_frees_its_permit() {
    let json = &[("content-type", "application/json")][..];
    let error = r#"{"status":"error","errorType":"execution","error":"too many samples"}"#;
    let cases: Vec<(Act, u16, &str)> = vec![
        (Act::die(), 502, "backend `main`"),
        (Act::Raw(b"garbage\r\n\r\n".to_vec()), 502, "backend `main`"),
        (Act::die_mid_body(1_000, b"{\"status\""), 502, "backend `main`"),
        (Act::answer(500, &[("content-type", "text/plain")], b"out of\n memory"), 500, "out of memory"),
        (Act::answer(200, &[("content-type", "text/html")], b"<h1>login</h1>"), 502, "text/html"),
        (Act::answer(422, json, error.as_bytes()), 422, "too many samples"),
    ];
    for (act, status, message) in cases {
        let what = format!("{act:?}");
        let (_upstream, weir) = before(move |_| act.clone(), "").await;
        let answer = weir.get("/api/v1/query?query=small").await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.body);
        assert!(answer.error().contains(message), "{what}: {}", answer.body);
        weir.until_idle().await;
    }
    let weir = Weir::before(&FakeUpstream::nobody(), "prometheus").await;
    // 503 once its first check has found that nobody is there.
    let answer = weir.get("/api/v1/query?query=small").await;
    assert!([502, 503].contains(&answer.status.as_u16()), "{}", answer.body);
    weir.until_idle().await;
}

#[tokio::test]
async fn a_hanging_backend_costs_no_more_than_the_timeout() {
    let (upstream, weir) = before(|_| Act::hang(), "").await;
    let answer = weir.get("/api/v1/query?query=small&timeout=0.2").await;
    assert_eq!(answer.status, 504, "{}", answer.body);
    assert!(answer.error().contains("may take 200ms"), "{}", answer.body);
    upstream.abandoned(1).await;
    weir.until_idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_query_along() {
    let mut open = head(200, &[("content-type", "application/json")], None);
    open.extend(chunk(b"{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":["));
    let (upstream, weir) = before(move |_| Act::ThenHang(open.clone()), "").await;
    let response = weir.send(weir.request("/api/v1/query?query=small")).await;
    weir.until_load(1, 0).await;
    drop(response);
    upstream.abandoned(1).await;
    weir.until_idle().await;
}

#[tokio::test]
async fn who_leaves_the_queue_leaves_nothing_behind() {
    let one = "limits: {default: {in_flight: {queries: 1}}}";
    let (upstream, weir) = before(|_| Act::hang(), one).await;
    let running = tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small")));
    weir.until_load(1, 0).await;
    let waiting: Vec<_> = (0..5)
        .map(|_| tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small"))))
        .collect();
    weir.until_load(1, 5).await;
    for task in &waiting {
        task.abort();
    }
    weir.until_load(1, 0).await;
    running.abort();
    upstream.abandoned(1).await;
    weir.until_idle().await;
}

#[tokio::test]
async fn a_truncated_or_endless_answer_is_never_taken_for_whole() {
    let limits = "limits: {default: {per_query: {response: 1MiB}}}";
    let mut start = head(200, &[("content-type", "application/json")], None);
    start.extend(chunk(&vec![b' '; 600 << 10]));
    start.extend(chunk(&vec![b' '; 600 << 10]));
    let (_upstream, weir) = before(move |_| Act::ThenHang(start.clone()), limits).await;
    let response = weir.send(weir.request("/api/v1/query?query=small")).await;
    assert_eq!(response.status(), 200);
    // Its cost is not known yet.
    assert!(!response.headers().contains_key("weir-cost"));
    assert!(response.into_body().collect().await.is_err());
    weir.until_idle().await;

    let announced = head(200, &[("content-type", "application/json")], Some(2 << 20));
    let (_upstream, weir) = before(move |_| Act::ThenHang(announced.clone()), limits).await;
    let answer = weir.get("/api/v1/query?query=small").await;
    assert_eq!(answer.status, 422);
    assert!(answer.error().contains("weir-max-response"), "{}", answer.body);
    assert!(answer.headers["weir-limit"].to_str().unwrap().starts_with("weir-max-response; max=1048576;"));
    let cost = answer.headers["weir-cost"].to_str().unwrap();
    assert_eq!(cost, "answer_series=0; answer_samples=0; answer_bytes=0; whole=false");
    assert!(weir.metrics().contains("limit=\"weir-max-response\",mode=\"enforce\""));
    weir.until_idle().await;
}

#[tokio::test]
async fn a_thousand_tenants_from_the_wire_are_bounded() {
    let (_upstream, weir) = before(database, "").await;
    for i in 0..1_000 {
        let tenant = format!("tenant-{i}");
        let answer = weir.get_as("/api/v1/query?query=small", &[("x-scope-orgid", &tenant)]).await;
        assert_eq!(answer.status, 200);
    }
    let metrics = weir.metrics();
    let labelled = metrics.lines().filter(|line| line.starts_with("weir_admissions_total")).count();
    assert!(labelled <= 101, "{labelled}");
    assert!(metrics.contains("tenant=\"other\""));
    weir.until_idle().await;
}

#[tokio::test]
async fn a_reload_keeps_what_is_in_flight() {
    let (upstream, weir) = before(
        |seen: &Seen| {
            let whole = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
            let head = head(200, &[("content-type", "application/json")], Some(whole.len()));
            if seen.target.contains("slow") {
                Act::Slow(vec![head, whole.to_vec()], Duration::from_millis(150))
            } else {
                Act::json(std::str::from_utf8(whole).unwrap())
            }
        },
        "",
    )
    .await;
    let slow = tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=slow")));
    weir.until_load(1, 0).await;
    for i in 0..20 {
        let yaml = format!(
            "backends: [{{name: main, urls: [\"{}\"]}}]\nlimits: {{default: {{per_query: {{series: {}}}}}}}",
            upstream.url(),
            1_000 + i
        );
        weir.proxy.reload(settings(&yaml));
        assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    }
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    weir.until_idle().await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_or_says_what_it_cut() {
    let whole = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let slow = move |_: &Seen| {
        let head = head(200, &[("content-type", "application/json")], Some(whole.len()));
        Act::Slow(vec![head, whole.to_vec()], Duration::from_millis(100))
    };
    let (_upstream, weir) = before(slow, "").await;
    let asked = tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small")));
    weir.until_load(1, 0).await;
    assert_eq!(weir.stop().await.cut, 0);
    assert_eq!(asked.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(), &whole[..]);

    let (_upstream, weir) = before(|_| Act::hang(), "server: {grace: 100ms}").await;
    // Half a head is no answer that could be cut.
    let mut half = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    half.write_all(b"GET /api/v1/query?que").await.unwrap();
    let asked = tokio::spawn(weir.client.request(weir.request("/api/v1/query?query=small")));
    weir.until_load(1, 0).await;
    assert_eq!(weir.stop().await.cut, 1);
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("its grace period was over"), "{body:?}");
}

#[tokio::test]
async fn slow_and_broken_heads_keep_nobody_waiting() {
    let (_upstream, weir) = before(database, "").await;
    let mut dripping = Vec::new();
    for _ in 0..200 {
        let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
        stream.write_all(b"GET /api/v1/query?query=small HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        dripping.push(stream);
    }
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    let mut stream = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nA: ").await.unwrap();
    // The head is refused before it is read to its end, so that the rest may find the connection closed.
    let _ = stream.write_all(&vec![b'a'; 1 << 20]).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    weir.until_idle().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_backend_back() {
    const PIECE: usize = 1 << 20;
    const MUCH: usize = 64;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let weir =
        Weir::start(&format!("backends: [{{name: main, urls: [\"{url}\"], probe: {{deadline: 50ms}}}}]"))
            .await;
    let response = weir.client.request(weir.request("/api/v1/query?query=small&time=1"));
    let sending = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            if !request[..length].windows(12).any(|window| window == b"query=small&") {
                stream.write_all(&head(404, &[("connection", "close")], Some(0))).await.unwrap();
                continue;
            }
            stream.write_all(&head(200, &[("content-type", "application/json")], None)).await.unwrap();
            // One chunk of a GiB.
            stream.write_all(b"40000000\r\n").await.unwrap();
            let piece = vec![b'1'; PIECE];
            for sent in 0..MUCH {
                match tokio::time::timeout(Duration::from_secs(1), stream.write_all(&piece)).await {
                    Ok(written) => written.unwrap(),
                    Err(_) => return sent,
                }
            }
            return MUCH;
        }
    };
    let (response, sent) = tokio::join!(response, sending);
    assert!(sent < MUCH, "{sent} MiB were buffered for a client that reads nothing");
    drop(response);
}

#[tokio::test]
async fn who_does_not_read_holds_its_permit_no_longer_than_the_query_may_take() {
    let much = vec![b' '; 48 << 20];
    let (_upstream, weir) = before(
        move |_| Act::answer(200, &[("content-type", "application/json")], &much),
        "limits: {default: {per_query: {timeout: 500ms, response: unlimited}}}",
    )
    .await;
    let mut client = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    client.write_all(b"GET /api/v1/query?query=small HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    weir.until_load(1, 0).await;
    weir.until_idle().await;
    let ended = "weir_answers_total{backend=\"main\",outcome=\"late\"} 1";
    assert!(weir.metrics().contains(ended), "{}", weir.metrics());
    let mut came = Vec::new();
    // However it is closed: the answer is not whole.
    let _ = client.read_to_end(&mut came).await;
    assert!(came.len() < 48 << 20, "{} bytes", came.len());
}

#[tokio::test]
async fn a_query_may_be_typed_as_it_is() {
    let (_upstream, weir) = before(database, "").await;
    let mut client = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(format!("GET /api/v1/query?query=small{{a=\"b\"}}>0 {head}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn pages_of_other_hosts_may_read_what_went_wrong() {
    let (_upstream, weir) = before(database, "").await;
    let origin = [("origin", "https://elsewhere.example")];
    let asked = Request::builder().method("OPTIONS").uri(weir.url("/api/v1/query_range"));
    let asked = asked.header("origin", "https://elsewhere.example").body(Full::default()).unwrap();
    for answer in [weir.ask(asked).await, weir.get_as("/api/v1/query?query=sum(", &origin).await] {
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{}", answer.status);
    }
    assert!(!weir.get("/api/v1/query?query=sum(").await.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn odd_answers_are_set_right_or_named() {
    let heads: [(&str, u16, &str); 4] = [
        (
            "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n",
            200,
            "{\"a\":1}",
        ),
        ("content-length: 7\r\n\r\n{\"a\":1}", 200, "{\"a\":1}"),
        ("upgrade: h2c\r\nconnection: upgrade\r\n\r\n", 502, "answered 101"),
        ("content-type: text/plain\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nslow", 429, "retry in 7s: "),
    ];
    for (i, (rest, status, text)) in heads.into_iter().enumerate() {
        let line = ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK", "HTTP/1.1 101 Go", "HTTP/1.1 429 No"][i];
        let json = if status == 200 { "content-type: application/json\r\n" } else { "" };
        let raw = format!("{line}\r\n{json}{rest}").into_bytes();
        let (_upstream, weir) = before(move |_| Act::ThenDie(raw.clone()), "").await;
        let answer = weir.get("/api/v1/query?query=small").await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(answer.body.contains(text), "{line}: {}", answer.body);
        assert_eq!(answer.headers.get("retry-after").is_some(), status == 429, "{line}");
        weir.until_idle().await;
    }
}

/// Asking until something happens is no flood.
const UNHURRIED: &str = "limits: {default: {rate: {queries: unlimited}}}";

#[tokio::test]
async fn a_dead_backend_sheds_instead_of_queueing_and_comes_back() {
    let alive = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen_alive = std::sync::Arc::clone(&alive);
    let upstream = FakeUpstream::start(move |seen: &Seen| {
        if seen_alive.load(std::sync::atomic::Ordering::SeqCst) { database(seen) } else { Act::die() }
    })
    .await;
    let health = "health: {interval: 100ms, timeout: 100ms}";
    let weir = Weir::start(&format!(
        "backends: [{{name: main, urls: [\"{}\"], {health}}}]\n{UNHURRIED}",
        upstream.url()
    ))
    .await;
    weir.until_answer("/api/v1/query?query=small", 503).await;
    let shed = weir.get("/api/v1/query?query=small").await;
    assert!(shed.error().contains("(weir-backend-sick)"), "{}", shed.body);
    assert!(shed.headers.contains_key("retry-after"));
    alive.store(true, std::sync::atomic::Ordering::SeqCst);
    weir.until_answer("/api/v1/query?query=small", 200).await;
}

#[tokio::test]
async fn a_backend_whose_memory_stays_at_its_limit_is_a_finding_and_shuts_nobody_out() {
    let upstream = FakeUpstream::start(move |seen: &Seen| match seen.path() {
        "/metrics" => Act::answer(200, &[], b"process_resident_memory_bytes 99e6\n"),
        _ => database(seen),
    })
    .await;
    let limit = "pressure: {memory_limit: 100MB}";
    let weir =
        Weir::start(&format!("backends: [{{name: main, urls: [\"{}\"], {limit}}}]", upstream.url())).await;
    let finding = "holds 94.4MiB of 95.4MiB with no heavy query running";
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !Snapshot::take(&weir.proxy).json().unwrap().contains(finding) {
        assert!(tokio::time::Instant::now() < end, "{}", Snapshot::take(&weir.proxy).json().unwrap());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let heavy = "/api/v1/query_range?query=big&start=0&end=7200&step=60";
    for target in [heavy, "/api/v1/query?query=small", heavy] {
        assert_eq!(weir.get(target).await.status, 200);
    }
}

#[tokio::test]
async fn a_query_that_nobody_can_count_weighs_as_the_heaviest_allowed() {
    let silent = |seen: &Seen| {
        let probe = seen.params("query").iter().any(|query| query.starts_with("count("))
            || seen.path().ends_with("/series");
        if seen.path().ends_with("/status/tsdb") || probe { Act::hang() } else { database(seen) }
    };
    let upstream = FakeUpstream::start(silent).await;
    let yaml = format!(
        "backends: [{{name: main, urls: [\"{}\"], probe: {{deadline: 20ms}}}}]\nlimits: {{default: {{per_query: {{series: 7_000}}}}}}",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    let cost = weir.get("/api/v1/query_range_cost?query=big&start=0&end=86400&step=15").await.json();
    assert_eq!(cost["data"]["estimate"]["class"], "assumed", "{cost}");
    assert_eq!(cost["data"]["estimate"]["seriesTouched"], 7_000);
    assert_eq!(cost["data"]["estimate"]["memoryBytes"], 1_u64 << 30);
    assert_eq!(cost["data"]["verdict"]["admitted"], true);
    let all = weir.get("/api/v1/query_cost?query=count(%7B__name__!%3D%22%22%7D)").await.json();
    assert_eq!(all["data"]["verdict"]["limit"], "weir-max-series");
}
