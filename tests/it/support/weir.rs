//! A whole proxy on port 0, over any backend.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use weir::{
    admin::serve_admin,
    config,
    cost::History,
    http::Served,
    proxy::{Proxy, Workers, serve},
    telemetry::metrics::Metrics,
};

use crate::support::sockets::{HttpClient, client};

/// Longest wait for something that is about to happen.
const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Weir {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) client: HttpClient,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<Served>>,
}

/// An answer read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The message of an error in Prometheus' shape.
    pub(crate) fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json["status"], "error", "{}", self.body);
        json["error"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn settings(yaml: &str) -> weir::proxy::Settings {
    let loaded = config::load_text("test.yaml", yaml, &|_| None).unwrap_or_else(|report| panic!("{report}"));
    config::resolve(&loaded.raw).unwrap()
}

/// As many as it takes for connections to end up on different ones.
const WORKERS: NonZeroUsize = NonZeroUsize::new(2).unwrap();

pub(crate) fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Weir {
    /// A proxy with this configuration.
    pub(crate) async fn start(yaml: &str) -> Self {
        Self::start_at(yaml, now_ms).await
    }

    pub(crate) async fn start_at(yaml: &str, clock: fn() -> i64) -> Self {
        Self::start_on(yaml, clock, Workers::start(WORKERS).unwrap()).await
    }

    /// The same on this thread alone, whose log lines are caught.
    pub(crate) async fn start_here(yaml: &str) -> Self {
        Self::start_on(yaml, now_ms, Workers::here()).await
    }

    async fn start_on(yaml: &str, clock: fn() -> i64, workers: Workers) -> Self {
        let metrics = Arc::new(Metrics::new(100).unwrap());
        let proxy = Proxy::new(settings(yaml), metrics, Arc::new(History::new(1_000)), clock);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, Arc::clone(&proxy), workers, async move {
            // Sent or dropped: both end it.
            let _ = stopped.await;
        });
        let served = Some(tokio::spawn(serving));
        Self { address, proxy, client: client(), stop: Some(stop), served }
    }

    /// Its admin API, until the runtime ends.
    pub(crate) async fn admin(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_admin(listener, Arc::clone(&self.proxy), None, std::future::pending()));
        address
    }

    /// A proxy with default limits before this backend.
    pub(crate) async fn before(url: &str, kind: &str) -> Self {
        Self::start(&format!("backends: [{{name: main, kind: {kind}, urls: [\"{url}\"]}}]")).await
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        timeout(SOON, self.client.request(request)).await.expect("an answer in time").unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.send(request).await.into_parts();
        let body = timeout(SOON, body.collect()).await.expect("a body in time").unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    pub(crate) fn request(&self, target: &str) -> Request<Full<Bytes>> {
        Request::get(self.url(target)).body(Full::default()).unwrap()
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(self.request(target)).await
    }

    pub(crate) async fn get_as(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(self.url(target));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post(&self, target: &str, form: &str) -> Answer {
        self.post_as(target, form, &[]).await
    }

    pub(crate) async fn post_as(&self, target: &str, form: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            Request::post(self.url(target)).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::from(form.to_owned())).unwrap()).await
    }

    /// Queries in flight and waiting.
    pub(crate) fn load(&self) -> (u64, u64) {
        let snapshot = self.proxy.snapshot();
        let sum = |of: fn(&weir::limit::BackendSnapshot) -> u64| snapshot.backends.iter().map(of).sum();
        (sum(|b| b.queries), sum(|b| b.waiting))
    }

    /// Waits until these numbers of queries are in flight and wait.
    pub(crate) async fn until_load(&self, in_flight: u64, waiting: u64) {
        let end = Instant::now() + SOON;
        while self.load() != (in_flight, waiting) {
            assert!(
                Instant::now() < end,
                "{:?} in flight and waiting, not {:?}",
                self.load(),
                (in_flight, waiting)
            );
            tokio::task::yield_now().await;
        }
    }

    /// Asks until the answer has this status.
    pub(crate) async fn until_answer(&self, target: &str, status: u16) {
        let end = Instant::now() + SOON;
        loop {
            let answer = self.get(target).await;
            if answer.status.as_u16() == status {
                return;
            }
            assert!(Instant::now() < end, "{} instead of {status}: {}", answer.status, answer.body);
        }
    }

    /// Nothing is held: every permit came back.
    pub(crate) async fn until_idle(&self) {
        self.until_load(0, 0).await;
        let snapshot = self.proxy.snapshot();
        assert!(snapshot.backends.iter().all(|b| b.memory == 0), "{snapshot:?}");
    }

    pub(crate) fn metrics(&self) -> String {
        self.proxy.metrics_text().unwrap()
    }

    /// Shuts down; returns the number of answers cut.
    pub(crate) async fn stop(mut self) -> Served {
        drop(self.stop.take());
        self.served.take().unwrap().await.unwrap()
    }
}
