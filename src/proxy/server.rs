//! Serves the query API over HTTP/1 on a bound listener, until told to stop.

use std::{
    convert::Infallible, net::SocketAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration,
};

use futures_util::FutureExt;
use http::Response;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_io_timeout::TimeoutStream;

use super::{
    Proxy,
    failure::Failure,
    listener::{Listener, Stream},
    respond::Body,
};
use crate::base::ErrorKind;

/// A connection on which no whole request head arrives for so long is closed, idle ones included. Longer than the 90
/// seconds after which Go's clients, Grafana's among them, close idle connections themselves.
const HEAD_WAIT: Duration = Duration::from_secs(95);
/// A client that takes no byte of its answer for so long is given up; it holds a permit.
const STALLED: Duration = Duration::from_secs(30);
/// Bytes of a request head, and of the buffer an answer is written from.
const BUFFER: usize = 64 << 10;

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that were cut with an answer under way when the grace period was over.
    pub cut: usize,
}

/// Accepts and answers until `shutdown`, then finishes what is in flight within the grace period of the settings.
pub async fn serve(listener: TcpListener, proxy: Arc<Proxy>, shutdown: impl Future<Output = ()>) -> Served {
    let secured = Arc::clone(&proxy);
    let tls = move || secured.live().tls.clone();
    let mut listener = Listener::new(listener, "queries", Arc::clone(&proxy.metrics), tls);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // Only this loop takes places: one that is free now is free when somebody comes.
            drop(proxy.connections.acquire().await);
            listener.ready().await
        };
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let place = Arc::clone(&proxy.connections).try_acquire_owned();
        let serving = graceful.watch(connection(stream, peer, &proxy));
        connections.spawn(async move {
            // A connection that breaks is its client's affair; what was in flight on it settles by being dropped.
            drop(serving.await);
            drop(place);
        });
    }
    drop(listener);
    proxy.stop();
    let cut = match tokio::time::timeout(proxy.grace(), graceful.shutdown()).await {
        Ok(()) => 0,
        Err(_) => {
            while connections.try_join_next().is_some() {}
            connections.len()
        }
    };
    connections.shutdown().await;
    Served { cut }
}

fn connection(
    stream: Stream,
    peer: SocketAddr,
    proxy: &Arc<Proxy>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let proxy = Arc::clone(proxy);
    let service = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move {
            let answering = AssertUnwindSafe(proxy.answer(request, peer)).catch_unwind();
            Ok::<Response<Body>, Infallible>(answering.await.unwrap_or_else(|_| {
                Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more").into_response()
            }))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}
