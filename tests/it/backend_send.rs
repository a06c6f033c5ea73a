//! Requests to backends that answer, refuse, hang, dawdle and die.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use weir::{
    backend::{Backend, BackendError, BaseUrl, Body, Kind, Outgoing, Settings},
    base::ErrorKind,
};

use crate::support::fake_upstream::{Act, FakeUpstream, chunk, head};

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
}

#[tokio::test]
async fn the_response_timeout_counts_without_a_deadline() {
    let upstream = FakeUpstream::start(|_| Act::hang()).await;
    let backend = Backend::new(Settings { response_timeout: SOON, ..settings(&[upstream.url()]) });
    assert_eq!(send(&backend, LATER).await.unwrap_err().kind(), ErrorKind::UpstreamTimeout);
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
