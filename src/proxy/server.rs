//! Serves the query API on a bound listener, until a shutdown.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tokio::net::TcpListener;
use tower::Service;

use super::{Proxy, identify::layer::Incoming, stack::Stack};
use crate::http::{ListenerTls, Options, Served, Timeouts, Workers};

/// Accepts and answers until `shutdown`, then finishes requests in flight within the grace period of the settings.
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
    let service = |peer| Client { stack: proxy.stack(), peer };
    crate::http::serve(listener, service, options, shutdown).await
}

/// The stack for the requests of one connection.
#[derive(Clone)]
struct Client {
    stack: Stack,
    peer: SocketAddr,
}

impl Service<Request<hyper::body::Incoming>> for Client {
    type Response = <Stack as Service<Incoming<hyper::body::Incoming>>>::Response;
    type Error = <Stack as Service<Incoming<hyper::body::Incoming>>>::Error;
    type Future = <Stack as Service<Incoming<hyper::body::Incoming>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Incoming<hyper::body::Incoming>>::poll_ready(&mut self.stack, cx)
    }

    fn call(&mut self, request: Request<hyper::body::Incoming>) -> Self::Future {
        self.stack.call(Incoming { request, peer: self.peer })
    }
}
