//! The meter between two real connections: the client's view, and the backend's.

use std::num::NonZeroU64;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use weir::{
    base::ErrorKind,
    limit::LimitName,
    proxy::{
        meter::{Actual, AnswerMeter, BodyError, MeterLimits, Outcome},
        respond::{self, Extra},
    },
};

use crate::support::sockets::{HttpClient, Server, client};

const MEMBER: &str = r#"{"metric":{"a":"[[\"{"},"values":[[1,"2"],[3,"4"]]}"#;

type BackendBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Told when the backend's endless answer is dropped.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        // The test may have stopped listening.
        let _ = self.0.try_send(());
    }
}

/// Answers `/<members>` with that number of members of a matrix, `/endless` with more and more; `?sized` announces the
/// length.
fn backend_answer(request: &Request<Incoming>, gone: Gone) -> Response<BackendBody> {
    let members = request.uri().path().trim_start_matches('/').parse().unwrap_or(usize::MAX);
    let head = r#"{"status":"success","data":{"resultType":"matrix","result":["#;
    let response = Response::builder().header("content-type", "application/json");
    if request.uri().query() == Some("sized") {
        let whole = format!("{head}{}]}}}}", vec![MEMBER; members].join(","));
        return response.body(UnsyncBoxBody::new(http_body_util::Full::from(whole))).unwrap();
    }
    // A hundred members a frame.
    let frames = stream::unfold((0, gone), move |(sent, gone)| async move {
        if sent > members {
            return None;
        }
        let now = (members - sent).min(100);
        let mut text = if sent == 0 { head.to_owned() } else { String::new() };
        for i in sent..sent + now {
            text.push_str(if i == 0 { "" } else { "," });
            text.push_str(MEMBER);
        }
        let next = sent + now;
        let next = if next == members {
            text.push_str("]}}");
            members + 1
        } else {
            next
        };
        Some((Ok(Frame::data(Bytes::from(text))), (next, gone)))
    });
    response.body(UnsyncBoxBody::new(StreamBody::new(frames))).unwrap()
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
    std::io::Error::other(error)
}

/// A backend, and before it the smallest proxy that meters.
struct Chain {
    proxy: Server,
    _backend: Server,
    client: HttpClient,
    endings: mpsc::Receiver<(Outcome, Actual)>,
    backend_gone: mpsc::Receiver<()>,
}

impl Chain {
    async fn start(limits: MeterLimits) -> Self {
        let (gone, backend_gone) = mpsc::channel(8);
        let (ended, endings) = mpsc::channel(8);
        let backend = Server::start(move |request| {
            let gone = Gone(gone.clone());
            async move { backend_answer(&request, gone) }
        })
        .await;
        let (address, upstream) = (backend.address, client());
        let proxy = Server::start(move |request: Request<Incoming>| {
            let (upstream, ended) = (upstream.clone(), ended.clone());
            async move {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let request =
                    Request::get(format!("http://{address}{path}")).body(http_body_util::Full::default());
                let (parts, body) = upstream.request(request.unwrap()).await.unwrap().into_parts();
                let on_end = Box::new(move |outcome, actual| ended.try_send((outcome, actual)).unwrap());
                let kind = match AnswerMeter::new(limits, on_end).wrap(&parts.headers, body).peek().await {
                    Ok(body) => return Response::from_parts(parts, body.map_err(other).boxed_unsync()),
                    Err(BodyError::CutOff(cut)) => (ErrorKind::LimitExceeded, cut.to_string()),
                    Err(error) => (ErrorKind::UpstreamDead, error.to_string()),
                };
                respond::error(kind.0, &kind.1, Extra::default())
                    .map(|body| body.map_err(other).boxed_unsync())
            }
        })
        .await;
        Self { proxy, _backend: backend, client: client(), endings, backend_gone }
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        self.client.request(self.proxy.get(path)).await.unwrap()
    }
}

fn limits(bytes: u64, series: u64) -> MeterLimits {
    MeterLimits { bytes: NonZeroU64::new(bytes), series: NonZeroU64::new(series), points: None }
}

#[tokio::test]
async fn a_whole_answer_arrives_as_it_was_sent() {
    let mut chain = Chain::start(limits(0, 3000)).await;
    for path in ["/3000", "/3000?sized", "/1", "/1?sized"] {
        let response = chain.get(path).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let members: usize = path[1..].split('?').next().unwrap().parse().unwrap();
        let expected = vec![MEMBER; members].join(",");
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.ends_with(&format!("[{expected}]}}}}")), "{path}");
        let (outcome, actual) = chain.endings.recv().await.unwrap();
        assert_eq!(outcome, Outcome::Complete, "{path}");
        let members = members as u64;
        assert_eq!((actual.series, actual.samples, actual.counted), (members, 2 * members, true));
        assert_eq!(actual.bytes_wire, body.len() as u64);
    }
}

#[tokio::test]
async fn a_limit_hit_before_the_first_byte_is_a_clean_refusal() {
    for (limits, path, id) in [
        (limits(0, 50), "/endless", "weir-max-series, err-mimir-max-series-per-query"),
        (limits(1000, 0), "/5000?sized", "weir-max-response"),
    ] {
        let mut chain = Chain::start(limits).await;
        let response = chain.get(path).await;
        assert_eq!(response.status(), 422);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(parsed["errorType"], "execution");
        assert!(parsed["error"].as_str().unwrap().contains(id), "{parsed}");
        assert!(matches!(chain.endings.recv().await.unwrap().0, Outcome::CutOff(_)));
        if path == "/endless" {
            chain.backend_gone.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_answer_cut_off_is_never_mistaken_for_a_whole_one() {
    for path in ["/endless", "/20000?sized"] {
        let mut chain = Chain::start(limits(0, 5000)).await;
        let response = chain.get(path).await;
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err(), "{path}");
        let (outcome, actual) = chain.endings.recv().await.unwrap();
        assert_eq!((outcome, actual.counted), (Outcome::CutOff(LimitName::MaxSeries), false));
        if path == "/endless" {
            chain.backend_gone.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_backend() {
    let mut chain = Chain::start(MeterLimits::default()).await;
    let mut body = chain.get("/endless").await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    assert_eq!(chain.endings.recv().await.unwrap().0, Outcome::Dropped);
    chain.backend_gone.recv().await.unwrap();
}
