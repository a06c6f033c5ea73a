//! Floods and jumps: more than anybody sends in good faith, and clocks that nobody wound.

use std::{
    sync::atomic::{AtomicI64, Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    proxy::forward::{before, database},
    support::{
        fake_upstream::{Act, FakeUpstream, Seen, chunk, head},
        weir::{Weir, now_ms, settings},
    },
};

/// Longer than any of this takes, shorter than patience.
const SOON: Duration = Duration::from_secs(60);

/// Waits until no connection of a client is open.
async fn until_alone(weir: &Weir) {
    let end = Instant::now() + SOON;
    loop {
        let metrics = weir.metrics();
        let open = metrics.lines().find(|line| line.starts_with("weir_client_connections ")).unwrap();
        if open == "weir_client_connections 0" {
            return;
        }
        assert!(Instant::now() < end, "{open}");
        tokio::task::yield_now().await;
    }
}

/// The bytes that come back on a connection until its end.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end too: the bytes before it count.
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The wall clock of `a_clock_that_jumps_changes_nothing`.
static CLOCK: AtomicI64 = AtomicI64::new(0);

#[tokio::test]
async fn a_clock_that_jumps_changes_nothing() {
    let upstream =
        FakeUpstream::start(
            |seen: &Seen| {
                if seen.target.contains("slow") { Act::hang() } else { database(seen) }
            },
        )
        .await;
    let yaml = format!(
        "backends: [{{name: main, kind: victoriametrics, urls: [\"{}\"]}}]\n\
         limits: {{default: {{in_flight: {{queries: 2}}, queue: {{wait: 1h}}, rate: {{queries: 100/h}}, \
         per_query: {{timeout: 1h}}}}}}",
        upstream.url()
    );
    CLOCK.store(now_ms(), SeqCst);
    let weir = Weir::start_at(&yaml, || CLOCK.load(SeqCst)).await;
    weir.proxy.warm().await;
    let ask = |query: &str| {
        tokio::spawn(weir.client.request(weir.request(&format!("/api/v1/query?query={query}"))))
    };
    let running = [ask("slow"), ask("slow")];
    weir.until_load(2, 0).await;
    let mut asked = 2;
    let year = 365 * 86_400_000;
    for now in [0, 10 * year, -10 * year, 86_400_000, i64::MAX, i64::MIN, 0, 1] {
        CLOCK.store(now_ms().saturating_add(now), SeqCst);
        if now == i64::MIN {
            CLOCK.store(now, SeqCst);
        }
        // Who waits goes on waiting, whatever time it is; who gives up leaves.
        let waiting = ask("small");
        weir.until_load(2, 1).await;
        waiting.abort();
        weir.until_load(2, 0).await;
        // Times that the proxy fills in itself, and a reload, which notes the time.
        let cost = weir.get("/api/v1/query_range_cost?query=small").await;
        assert_eq!(cost.status, 200, "{now}: {}", cost.body);
        weir.proxy.note_reload(None);
        weir.metrics();
        // The query and its explanation: both cost Weir the same until it would be admitted.
        asked += 2;
    }
    running.iter().for_each(tokio::task::JoinHandle::abort);
    weir.until_idle().await;
    // The rate counts all requests and forgets none, though years went by on the wall.
    let mut refused = None;
    while refused.is_none() && asked < 200 {
        asked += 1;
        let answer = weir.get("/api/v1/query?query=small").await;
        refused = Some(answer).filter(|answer| answer.status != 200);
    }
    let refused = refused.expect("a rate that holds");
    assert_eq!((refused.status.as_u16(), asked), (429, 101), "{}", refused.body);
    assert_eq!(refused.headers["weir-limit"].to_str().unwrap().split(';').next(), Some("weir-rate-queries"));
    weir.until_idle().await;
}

#[tokio::test]
async fn a_megabyte_of_pipelined_requests_is_answered_in_turn() {
    let (upstream, weir) = before(database, "limits: {default: {rate: {queries: unlimited}}}").await;
    let one = "GET /api/v1/query?query=small HTTP/1.1\r\nhost: x\r\nx-padding: 0123456789012345678901234567890123456789\r\n\r\n";
    let count = (1 << 20) / one.len();
    let last = "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let stream = TcpStream::connect(weir.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut most = 0;
    let mut answers = String::new();
    let sending = async {
        write.write_all(one.repeat(count).as_bytes()).await.unwrap();
        write.write_all(last.as_bytes()).await.unwrap();
    };
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = read.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            answers.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            most = most.max(weir.load().0 + weir.load().1);
        }
    };
    timeout(SOON, async { tokio::join!(sending, reading) }).await.expect("all of them are answered");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), count);
    assert!(
        answers.matches("HTTP/1.1 404").count() == 1 && answers.ends_with('}'),
        "the last one comes last"
    );
    // One connection has one query under way, however many it asks for.
    assert!(most <= 1, "{most} at a time");
    assert!(upstream.connections() < 20, "{} connections to the backend", upstream.connections());
    until_alone(&weir).await;
    weir.until_idle().await;
}

#[tokio::test]
async fn a_thousand_clients_that_close_at_any_byte_leave_nothing_behind() {
    let (_upstream, weir) = before(|_| Act::hang(), "limits: {default: {rate: {queries: unlimited}}}").await;
    let post = "POST /api/v1/query HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 11\r\n\r\nquery=small";
    let mut rng = fastrand::Rng::with_seed(11);
    let mut clients = JoinSet::new();
    for _ in 0..1_000 {
        let end = rng.usize(..=post.len());
        let address = weir.address;
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&post.as_bytes()[..end]).await.unwrap();
        });
    }
    timeout(SOON, clients.join_all()).await.expect("every one is accepted");
    until_alone(&weir).await;
    weir.until_idle().await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_and_cost_nothing() {
    let (upstream, weir) = before(database, "").await;
    let asked = upstream.seen().len();
    let line = "GET /api/v1/query?query=small HTTP/1.1\r\nhost: x\r\n";
    let many = |count: usize| (0..count).map(|i| format!("x-{i}: 1\r\n")).collect::<Vec<_>>().concat();
    for (what, text) in [
        ("a header of a megabyte", format!("{line}x: {}\r\n\r\n", "a".repeat(1 << 20))),
        ("ten thousand headers", format!("{line}{}\r\n", many(10_000))),
        ("a target of a megabyte", format!("GET /?{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20))),
        ("no end", format!("{line}{}", "x: y\r\n".repeat(50_000))),
        ("a name that is none", format!("{line}a b\x01c: 1\r\n\r\n")),
        ("a folded line", format!("{line}a: 1\r\n b\r\n\r\n")),
        ("two lengths", format!("{line}content-length: 1\r\ncontent-length: 2\r\n\r\nab")),
        ("no number", format!("{line}content-length: -1\r\n\r\n")),
        ("another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}".to_owned()),
    ] {
        let mut stream = TcpStream::connect(weir.address).await.unwrap();
        // Refused before it is read to its end, so that the rest may find the connection closed.
        let _ = stream.write_all(text.as_bytes()).await;
        let answer = rest(stream).await;
        let refused = ["HTTP/1.1 400", "HTTP/1.1 414", "HTTP/1.1 431"];
        assert!(
            answer.is_empty() || refused.iter().any(|status| answer.starts_with(status)),
            "{what}: {answer:.200}"
        );
    }
    until_alone(&weir).await;
    let own = upstream.seen()[asked..].iter().filter(|seen| seen.path() == "/api/v1/query").count();
    assert_eq!(own, 0, "none of them was taken for a query");
    assert_eq!(weir.get("/api/v1/query?query=small").await.status, 200);
    weir.until_idle().await;
}

#[tokio::test]
async fn a_backend_that_talks_rubbish_is_named_and_frees_its_permit() {
    let json = [("content-type", "application/json")];
    let head_of = |lines: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}\r\n").into_bytes()
    };
    let endless = "x: y\r\n".repeat(100_000);
    let mut gzip = head(200, &[json[0], ("content-encoding", "gzip")], Some(20));
    gzip.extend([0xff; 20]);
    let mut bad_chunk = head(200, &json, None);
    bad_chunk.extend(chunk(b"{"));
    bad_chunk.extend(b"zz\r\n");
    // The rubbish, and whether the client gets an error in words; if not, it gets no whole answer, or the rubbish
    // itself, which no JSON parser takes for an answer.
    let cases: Vec<(&str, Act, bool)> = vec![
        ("endless headers", Act::Raw(head_of(&endless)), true),
        ("two lengths", Act::Raw(head_of("content-length: 1\r\ncontent-length: 2\r\n")), true),
        ("no length", Act::Raw(head_of("content-length: many\r\n")), true),
        ("no version", Act::Raw(b"HTTP/9.9 200 OK\r\n\r\n".to_vec()), true),
        ("no status", Act::Raw(b"HTTP/1.1 abc OK\r\n\r\n".to_vec()), true),
        ("only hints", Act::ThenDie(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1_000)), true),
        ("zeros", Act::ThenDie(vec![0; 1 << 20]), true),
        ("nothing", Act::ThenDie(Vec::new()), true),
        ("a chunk that is none", Act::Raw(bad_chunk), false),
        ("gzip that is none", Act::Raw(gzip), false),
    ];
    for (what, act, told) in cases {
        let (_upstream, weir) = before(move |_| act.clone(), "").await;
        let request = weir.request("/api/v1/query?query=small&timeout=5s");
        let (head, body) = weir.send(request).await.into_parts();
        let body = timeout(SOON, http_body_util::BodyExt::collect(body)).await.expect("an end");
        let body = body.map(http_body_util::Collected::to_bytes);
        if told {
            assert_eq!(head.status, 502, "{what}");
            let json: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
            assert!(json["error"].as_str().unwrap().contains("backend `main`"), "{what}: {json}");
        } else if let Ok(body) = body {
            let json = serde_json::from_slice::<serde_json::Value>(&body);
            assert!(json.is_err() || head.status == 502, "{what}: {body:?}");
        }
        weir.until_idle().await;
    }
}

#[tokio::test]
async fn reloads_under_a_flood_lose_nothing() {
    let one =
        "limits: {default: {in_flight: {queries: 3}, rate: {queries: unlimited}, queue: {length: 1000}}}";
    let (upstream, weir) = before(database, one).await;
    let mut clients = JoinSet::new();
    for i in 0..300 {
        clients.spawn(weir.client.request(weir.request(&format!("/api/v1/query?query=small&time={i}"))));
        if i % 10 == 0 {
            let yaml = format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{one}", upstream.url());
            weir.proxy.reload(settings(&yaml.replace("1000", &(1000 + i).to_string())));
        }
    }
    for answer in timeout(SOON, clients.join_all()).await.expect("all of them are answered") {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
    weir.until_idle().await;
}
