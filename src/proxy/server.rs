//! Serves the query API on a bound listener, until a shutdown.

use std::{
    convert::Infallible,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::{Proxy, respond::Body, respond::failure::Failure};
use crate::{
    base::ErrorKind,
    http::{ListenerTls, Options, Served, Timed, Timeouts, Workers},
};

/// Accepts and answers until `shutdown`, then finishes what is in flight within the grace period of the settings.
/// Connections are accepted here and served by the workers.
pub async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    workers: Workers,
    shutdown: impl Future<Output = ()>,
) -> Served {
    let (secured, counted, ended) = (Arc::clone(&proxy), Arc::clone(&proxy.metrics), Arc::clone(&proxy));
    let tls = ListenerTls::new(
        move || secured.live().tls.clone(),
        move |result| counted.tls_handshake("queries", result),
    );
    let grace = move || {
        ended.stop();
        ended.grace()
    };
    let connections = Arc::clone(&proxy.connections);
    let options = Options { connections, timeouts: Timeouts::default(), tls, workers, grace };
    let service = |peer| QueryService { proxy: Arc::clone(&proxy), peer };
    crate::http::serve(listener, service, options, shutdown).await
}

/// The query API for one client.
#[derive(Clone)]
struct QueryService {
    proxy: Arc<Proxy>,
    peer: SocketAddr,
}

impl tower::Service<Request<Incoming>> for QueryService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (proxy, peer) = (Arc::clone(&self.proxy), self.peer);
        // In a box: it is some kilobytes, and each of the futures around it would move them once more.
        Box::pin(async move {
            let answering = AssertUnwindSafe(proxy.answer(request, peer)).catch_unwind();
            let mut response = answering.await.unwrap_or_else(|_| {
                Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more").into_response()
            });
            if let Some(progress) = response.body().to_come() {
                let deadline = Timed(Arc::<super::meter::Progress>::clone(progress));
                response.extensions_mut().insert(deadline);
            }
            Ok(response)
        })
    }
}
