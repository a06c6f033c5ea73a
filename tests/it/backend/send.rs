//! Requests to backends that answer, refuse, hang, dawdle and die.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use weir::{
    backend::{Backend, BackendError, BaseUrl, Body, Days, Kind, Outgoing, Settings},
    base::{ErrorKind, WorkerId},
};

use crate::support::fake_upstream::{Act, FakeUpstream, Seen, chunk, head};

const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(5);

fn settings(urls: &[String]) -> Settings {
    Settings::new("main", Kind::Prometheus, urls.iter().map(|u| BaseUrl::parse(u).unwrap()).collect())
}

fn get(target: &str) -> Outgoing {
    Outgoing {
        method: Method::GET,
        path_and_query: target.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}

async fn send(backend: &Backend, within: Duration) -> Result<Response<Body>, BackendError> {
    backend.send(get("/api/v1/query?query=up"), tokio::time::Instant::now() + within, true).await
}

async fn body(response: Response<Body>) -> Result<Bytes, BackendError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn an_answer_comes_back_and_its_connection_is_used_again() {
    let upstream = FakeUpstream::start(|seen| match seen.index % 3 {
        0 => Act::json("{}"),
        1 => Act::answer(204, &[], b""),
        _ => Act::Raw([head(200, &[], None), chunk(b"{"), chunk(b"}"), chunk(b"")].concat()),
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url() + "/prefix/"]));
    for round in 0..30 {
        let response = send(&backend, LATER).await.unwrap();
        assert_eq!(response.status(), if round % 3 == 1 { 204 } else { 200 });
        let expected: &[u8] = if round % 3 == 1 { b"" } else { b"{}" };
        assert_eq!(body(response).await.unwrap(), expected);
    }
    assert_eq!(upstream.connections(), 1);
    let seen = &upstream.seen()[0];
    assert_eq!(seen.target, "/prefix/api/v1/query?query=up");
    assert_eq!(seen.header("host"), Some(upstream.address.to_string().as_str()));
    assert_eq!(backend.snapshot().replicas[0].in_flight, 0);
    assert_eq!(backend.snapshot().replicas[0].idle, 1);
}

#[tokio::test]
async fn a_post_arrives_with_its_body() {
    let upstream = FakeUpstream::start(|_| Act::json("{}")).await;
    let backend = Backend::new(settings(&[upstream.url()]));
    let mut request = get("/api/v1/query");
    request.method = Method::POST;
    request.body = Bytes::from_static(b"query=up");
    request.headers.insert("content-length", "999".parse().unwrap());
    let response = backend.send(request, tokio::time::Instant::now() + LATER, true).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        (upstream.seen()[0].body.as_slice(), upstream.seen()[0].method.as_str()),
        (b"query=up".as_slice(), "POST")
    );
}

#[tokio::test]
async fn nobody_there_is_a_dead_backend_at_once() {
    let backend = Backend::new(settings(&[FakeUpstream::nobody()]));
    let began = Instant::now();
    let error = send(&backend, LATER).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpstreamDead);
    assert!(error.message().contains("could not be reached"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(backend.sick() && !backend.ready());
}

#[tokio::test]
async fn a_backend_that_hangs_is_late_and_is_told_to_stop() {
    let upstream = FakeUpstream::start(|_| Act::hang()).await;
    let backend = Backend::new(settings(&[upstream.url()]));
    let error = send(&backend, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpstreamTimeout);
    assert!(error.message().contains("did not answer within"), "{error}");
    upstream.abandoned(1).await;
    assert_eq!(upstream.seen().len(), 1, "a late answer is not asked for twice");
    // Impatient clients do not take a backend from the others.
    for _ in 0..5 {
        assert_eq!(
            send(&backend, Duration::from_millis(1)).await.unwrap_err().kind(),
            ErrorKind::UpstreamTimeout
        );
    }
    assert!(backend.ready());
}

#[tokio::test]
async fn the_response_timeout_counts_without_a_deadline() {
    let upstream = FakeUpstream::start(|_| Act::hang()).await;
    let backend = Backend::new(Settings { response_timeout: SOON, ..settings(&[upstream.url()]) });
    for _ in 0..5 {
        assert_eq!(send(&backend, LATER).await.unwrap_err().kind(), ErrorKind::UpstreamTimeout);
        assert!(backend.ready(), "it may be the queries: a check decides");
    }
    let late = backend.snapshot().replicas[0].last_error.clone();
    assert!(late.unwrap().starts_with("did not answer within "));
}

#[tokio::test]
async fn dropping_the_request_or_its_answer_cancels_upstream_at_once() {
    let upstream = FakeUpstream::start(|seen| match seen.index {
        0 => Act::hang(),
        _ => Act::ThenHang([head(200, &[], None), chunk(b"some")].concat()),
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    let waiting = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { send(&backend, LATER).await }
    });
    upstream.received(1).await;
    waiting.abort();
    upstream.abandoned(1).await;
    let mut response = send(&backend, LATER).await.unwrap();
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "some");
    assert_eq!(backend.snapshot().replicas[0].in_flight, 1);
    drop(response);
    upstream.abandoned(2).await;
    assert_eq!(backend.snapshot().replicas[0].in_flight, 0);
    assert_eq!(backend.snapshot().replicas[0].idle, 0);
}

/// Two replicas, the first of which does `act`; every answer of the second is `{}`.
async fn beside_a_good_one(act: Act) -> (FakeUpstream, FakeUpstream, Arc<Backend>) {
    let bad = FakeUpstream::start(move |_| act.clone()).await;
    let good = FakeUpstream::start(|_| Act::json("{}")).await;
    let backend = Backend::new(settings(&[bad.url(), good.url()]));
    (bad, good, backend)
}

#[tokio::test]
async fn a_read_without_an_answer_is_tried_on_another_replica_once() {
    let (bad, good, backend) = beside_a_good_one(Act::die()).await;
    for _ in 0..10 {
        assert_eq!(body(send(&backend, LATER).await.unwrap()).await.unwrap(), "{}");
    }
    assert_eq!(bad.seen().len(), 3, "after three failures in a row it is left alone");
    assert_eq!(good.seen().len(), 10);
    let ejected: Vec<bool> = backend.snapshot().replicas.iter().map(|r| r.ejected).collect();
    assert_eq!(ejected, [true, false]);
    assert!(backend.ready());
}

/// A request that ends one process would end all of them, one after another.
#[tokio::test]
async fn a_request_that_ends_a_replica_never_reaches_the_next() {
    let deadly = |seen: &Seen| if seen.target.contains("deadly") { Act::EndProcess } else { Act::json("{}") };
    for is_kept in [false, true] {
        let ups = [FakeUpstream::start(deadly).await, FakeUpstream::start(deadly).await];
        let backend = Backend::new(settings(&ups.each_ref().map(FakeUpstream::url)));
        // Requests alternate: then both have a connection that is kept.
        for _ in 0..(2 * usize::from(is_kept)) {
            body(send(&backend, LATER).await.unwrap()).await.unwrap();
        }
        let deadline = tokio::time::Instant::now() + LATER;
        let error = backend.send(get("/api/v1/labels?deadly"), deadline, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UpstreamDead);
        let killed =
            ups.each_ref().map(|up| up.seen().iter().filter(|s| s.target.contains("deadly")).count());
        assert_eq!(killed.iter().sum::<usize>(), 1, "{killed:?}");
        // It is known at once, and the other one goes on.
        let healthy = backend.snapshot().replicas.iter().filter(|replica| replica.healthy).count();
        assert_eq!(healthy, 1);
        body(send(&backend, LATER).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_read_is_not_sent_twice() {
    let (bad, good, backend) = beside_a_good_one(Act::die()).await;
    let error =
        backend.send(get("/api/v1/query"), tokio::time::Instant::now() + LATER, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpstreamDead);
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 0));
}

#[tokio::test]
async fn what_never_left_goes_to_another_replica_even_if_it_is_no_read() {
    let good = FakeUpstream::start(|_| Act::json("{}")).await;
    let backend = Backend::new(settings(&[FakeUpstream::nobody(), good.url()]));
    for _ in 0..5 {
        let sent = backend.send(get("/api/v1/query"), tokio::time::Instant::now() + LATER, false).await;
        assert_eq!(body(sent.unwrap()).await.unwrap(), "{}");
    }
    assert!(!backend.snapshot().replicas[0].healthy, "nobody there: left alone at once");
}

#[tokio::test]
async fn an_answer_that_began_is_never_begun_again() {
    let (bad, good, backend) = beside_a_good_one(Act::die_mid_body(100, b"{\"status\"")).await;
    let response = send(&backend, LATER).await.unwrap();
    let error = body(response).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpstreamDead);
    assert!(error.message().contains("broke off in the middle"), "{error}");
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 0));
    assert_eq!(backend.snapshot().replicas[0].in_flight, 0);
}

#[tokio::test]
async fn two_dead_replicas_end_after_two_tries() {
    let ups = [FakeUpstream::start(|_| Act::die()).await, FakeUpstream::start(|_| Act::die()).await];
    let backend = Backend::new(settings(&[ups[0].url(), ups[1].url()]));
    assert_eq!(send(&backend, LATER).await.unwrap_err().kind(), ErrorKind::UpstreamDead);
    assert_eq!((ups[0].seen().len(), ups[1].seen().len()), (1, 1));
}

#[tokio::test]
async fn new_settings_keep_what_is_known_of_a_backend() {
    let backend = Backend::new(settings(&[FakeUpstream::nobody()]));
    for _ in 0..2 {
        backend.check_all().await;
    }
    assert!(backend.sick());
    assert!(Arc::ptr_eq(&backend.renewed(settings(&[backend.snapshot().replicas[0].url.clone()])), &backend));
    let others = settings(&[backend.snapshot().replicas[0].url.clone(), FakeUpstream::nobody()]);
    let others = backend.renewed(others);
    let healthy: Vec<_> = others.snapshot().replicas.iter().map(|replica| replica.healthy).collect();
    assert_eq!(healthy, [false, true]);
}

#[tokio::test]
async fn a_replica_that_only_fails_is_left_alone_beside_one_that_works() {
    let [bad, good] = [500, 200].map(|status| FakeUpstream::start(move |_| Act::answer(status, &[], b"{}")));
    let (bad, good) = (bad.await, good.await);
    let backend = Backend::new(settings(&[bad.url(), good.url()]));
    for _ in 0..40 {
        drop(send(&backend, LATER).await.unwrap());
    }
    assert!(bad.seen().len() <= 3, "{} of 40 went to it", bad.seen().len());
    // Alone it is asked all the same.
    let backend = Backend::new(settings(&[bad.url()]));
    for _ in 0..10 {
        assert_eq!(send(&backend, LATER).await.unwrap().status(), 500);
    }
    assert!(!backend.sick());
}

#[tokio::test]
async fn rubbish_is_a_dead_backend() {
    let rubbish: [&[u8]; 4] =
        [b"\x16\x03\x01 TLS?", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200"];
    for bytes in rubbish {
        let upstream = FakeUpstream::start(move |_| Act::ThenDie(bytes.to_vec())).await;
        let backend = Backend::new(settings(&[upstream.url()]));
        let error = send(&backend, LATER).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UpstreamDead, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_at_the_deadline() {
    let upstream =
        FakeUpstream::start(|_| Act::ThenHang([head(200, &[], None), chunk(b"some")].concat())).await;
    let backend = Backend::new(settings(&[upstream.url()]));
    let response = send(&backend, SOON).await.unwrap();
    assert_eq!(body(response).await.unwrap_err().kind(), ErrorKind::UpstreamTimeout);
    upstream.abandoned(1).await;
}

#[tokio::test]
async fn a_slow_body_arrives_whole() {
    let upstream = FakeUpstream::start(|_| {
        let pieces = vec![head(200, &[], None), chunk(b"a"), chunk(b"b"), chunk(b"")];
        Act::Slow(pieces, Duration::from_millis(5))
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    assert_eq!(body(send(&backend, LATER).await.unwrap()).await.unwrap(), "ab");
    assert_eq!(backend.snapshot().replicas[0].idle, 1);
}

#[tokio::test]
async fn connections_are_capped_and_the_wait_for_one_ends_at_the_deadline() {
    let upstream = FakeUpstream::start(|seen| match seen.index {
        0 => Act::ThenHang([head(200, &[], None), chunk(b"some")].concat()),
        _ => Act::json("{}"),
    })
    .await;
    let backend = Backend::new(Settings { max_connections: 1, ..settings(&[upstream.url()]) });
    let held = send(&backend, LATER).await.unwrap();
    let error = send(&backend, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UpstreamTimeout);
    assert!(error.message().contains("max_connections"), "{error}");
    let waiting = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { body(send(&backend, LATER).await?).await }
    });
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), "{}");
}

#[tokio::test]
async fn the_least_loaded_replica_is_asked() {
    let hanging = || FakeUpstream::start(|_| Act::ThenHang([head(200, &[], None), chunk(b"x")].concat()));
    let ups = [hanging().await, hanging().await, hanging().await];
    let backend = Backend::new(settings(&ups.each_ref().map(FakeUpstream::url)));
    let mut held = Vec::new();
    for _ in 0..9 {
        held.push(send(&backend, LATER).await.unwrap());
    }
    let in_flight: Vec<usize> = backend.snapshot().replicas.iter().map(|r| r.in_flight).collect();
    assert_eq!(in_flight, [3, 3, 3]);
}

#[tokio::test]
async fn threads_keep_their_connections_and_share_them_rather_than_open_too_many() {
    let upstream = FakeUpstream::start(|_| Act::json("{}")).await;
    let places = Settings { max_connections: 2, light_connections: 1, ..settings(&[upstream.url()]) };
    let backend = Backend::new(places);
    // Which thread asks, and how many connections there are then.
    for (thread, connections) in [(1, 1), (2, 2), (1, 2), (2, 2), (3, 3), (4, 3), (1, 3), (5, 3)] {
        WorkerId::set(thread);
        body(send(&backend, LATER).await.unwrap()).await.unwrap();
        let open = (upstream.connections(), backend.snapshot().replicas[0].idle);
        assert_eq!(open, (connections, connections), "asked by {thread}");
    }
}

#[tokio::test]
async fn connections_closed_while_idle_cost_no_request() {
    // A backend that closes after each answer without saying so.
    let upstream = FakeUpstream::start(|_| {
        let Act::Raw(raw) = Act::json("{}") else { unreachable!() };
        Act::ThenDie(raw)
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    for _ in 0..20 {
        assert_eq!(body(send(&backend, LATER).await.unwrap()).await.unwrap(), "{}");
        // Its end of the connection needs a moment to arrive; a request sent into that moment may be lost.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn health_checks_find_the_sick_and_the_recovered() {
    let upstream = FakeUpstream::start(|seen| {
        assert_eq!(seen.path(), "/-/ready");
        Act::answer(if (2..5).contains(&seen.index) { 503 } else { 200 }, &[], b"")
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    let mut healthy = Vec::new();
    for _ in 0..7 {
        backend.check_all().await;
        healthy.push(backend.ready());
    }
    assert_eq!(healthy, [true, true, true, false, false, true, true], "one bad check is not an outage");
}

#[tokio::test]
async fn health_checks_run_until_they_are_told_to_stop() {
    let upstream = FakeUpstream::start(|_| Act::json("{}")).await;
    let mut settings = settings(&[upstream.url()]);
    settings.health.interval = Duration::from_millis(5);
    let backend = Backend::new(settings);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(backend.run_background(async move { drop(stopped.await) }));
    upstream.received(3).await;
    drop(stop);
    running.await.unwrap();
}

#[tokio::test]
async fn headers_pass_as_they_should() {
    let upstream = FakeUpstream::start(|_| {
        let headers = [("keep-alive", "timeout=9"), ("connection", "x-hop"), ("x-hop", "1"), ("etag", "e")];
        Act::answer(200, &headers, b"{}")
    })
    .await;
    let mut settings = settings(&[upstream.url()]);
    settings.headers.insert("authorization", "Bearer ours".parse().unwrap());
    let backend = Backend::new(settings);
    let mut request = get("/api/v1/query");
    for (name, value) in [
        ("host", "weir.example"),
        ("authorization", "Bearer theirs"),
        ("connection", "close, x-mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("accept-encoding", "gzip, br"),
        ("traceparent", "00-1-2-01"),
        ("x-scope-orgid", "team"),
    ] {
        request.headers.insert(name, value.parse().unwrap());
    }
    let response = backend.send(request, tokio::time::Instant::now() + LATER, true).await.unwrap();
    assert!(["keep-alive", "connection", "x-hop"].iter().all(|name| !response.headers().contains_key(*name)));
    assert_eq!(response.headers()["etag"], "e");
    let seen = &upstream.seen()[0];
    let address = upstream.address.to_string();
    for (name, value) in [
        ("host", Some(address.as_str())),
        ("authorization", Some("Bearer ours")),
        ("connection", None),
        ("x-mine", None),
        ("te", None),
        ("accept-encoding", Some("gzip")),
        ("traceparent", Some("00-1-2-01")),
        ("x-scope-orgid", Some("team")),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn the_backends_own_tables_are_fetched_with_a_bound() {
    let upstream = FakeUpstream::start(|seen| match seen.target.as_str() {
        "/api/v1/status/tsdb?limit=500" => Act::json("{}"),
        "/api/v1/status/buildinfo" => Act::json(&" ".repeat(100_000)),
        _ => Act::answer(404, &[], b""),
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    assert_eq!(backend.tsdb_status(500, Days::Latest).await.unwrap(), "{}");
    let error = backend.buildinfo().await.unwrap_err();
    assert!(error.message().contains("more than 64KiB"), "{error}");
    let error = backend.tsdb_status(1, Days::Latest).await.unwrap_err();
    assert!(error.message().contains("status 404"), "{error}");
}

#[tokio::test]
async fn a_kept_connection_that_dies_before_its_first_byte_is_tried_again_once() {
    let dies = |seen: &Seen| if seen.index % 2 == 1 { Act::die() } else { Act::json("{}") };
    for (idempotent, answered, seen) in [(true, true, 3), (false, false, 2)] {
        let upstream = FakeUpstream::start(dies).await;
        let backend = Backend::new(settings(&[upstream.url()]));
        body(send(&backend, LATER).await.unwrap()).await.unwrap();
        let deadline = tokio::time::Instant::now() + LATER;
        let again = backend.send(get("/api/v1/query"), deadline, idempotent).await;
        assert_eq!((again.is_ok(), upstream.seen().len()), (answered, seen));
    }
    // A new one is not: its backend has just been connected to.
    let upstream = FakeUpstream::start(|_| Act::die()).await;
    let backend = Backend::new(settings(&[upstream.url()]));
    assert!(send(&backend, LATER).await.is_err() && upstream.seen().len() == 1);
    // Nor is one whose answer has begun.
    let upstream = FakeUpstream::start(|seen| match seen.index {
        0 => Act::json("{}"),
        _ => Act::die_mid_body(100, b"{"),
    })
    .await;
    let backend = Backend::new(settings(&[upstream.url()]));
    body(send(&backend, LATER).await.unwrap()).await.unwrap();
    assert!(body(send(&backend, LATER).await.unwrap()).await.is_err() && upstream.seen().len() == 2);
}
