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
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::{
    Proxy,
    failure::Failure,
    leash::Leash,
    listener::{HANDSHAKES_MAX, Stream, accept, shake},
    respond::Body,
    tls::ServerTls,
    typed::Typed,
    workers::Workers,
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
/// Connections are accepted here and served by the workers.
pub async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    workers: Workers,
    shutdown: impl Future<Output = ()>,
) -> Served {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let unready = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let ending = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            drop(proxy.connections.acquire().await);
            let unready = Arc::clone(&unready).acquire_owned().await;
            (accept(&listener).await, unready)
        };
        let ((stream, peer), unready) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let Ok(stream) = stream.into_std() else { continue };
        let tls = proxy.live().tls.clone();
        // One that must shake hands counts when it is through.
        let place = Arc::clone(&proxy.connections).try_acquire_owned().ok().filter(|_| tls.is_none());
        let (proxy, watcher, ending) = (Arc::clone(&proxy), graceful.watcher(), ending.clone());
        let (worker, load) = workers.least();
        let serving = async move {
            let stream = tokio::select! {
                stream = ready(stream, tls, peer, &proxy) => stream,
                () = ending.cancelled() => None,
            };
            let Some(stream) = stream else { return };
            let place = match place {
                Some(place) => Ok(place),
                None => Arc::clone(&proxy.connections).acquire_owned().await,
            };
            drop(unready);
            let leash = Arc::default();
            tokio::select! {
                // One that breaks is its client's affair; what was in flight on it settles by being dropped.
                _ = watcher.watch(connection(stream, peer, &proxy, &leash)) => {}
                () = leash.pulled() => {}
            }
            drop((place, load));
        };
        connections.spawn_on(serving, worker);
    }
    drop(listener);
    ending.cancel();
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

/// The connection as this thread's runtime watches it, hands shaken where `tls` says so.
async fn ready(
    stream: std::net::TcpStream,
    tls: Option<ServerTls>,
    peer: SocketAddr,
    proxy: &Proxy,
) -> Option<Stream> {
    let stream = TcpStream::from_std(stream).ok()?;
    let Some(tls) = tls else { return Some(Stream::Left(stream)) };
    shake(tls, stream, peer, "queries", &proxy.metrics).await
}

fn connection(
    stream: Stream,
    peer: SocketAddr,
    proxy: &Arc<Proxy>,
    leash: &Arc<Leash>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<> {
    let mut stream = TimeoutStream::new(Typed::new(stream));
    stream.set_write_timeout(Some(STALLED));
    let (proxy, leash) = (Arc::clone(proxy), Arc::clone(leash));
    let service = service_fn(move |request| {
        let (proxy, leash) = (Arc::clone(&proxy), Arc::clone(&leash));
        async move {
            // In a box: it is some kilobytes, and each of the futures around it would move them once more.
            let answering = AssertUnwindSafe(Box::pin(proxy.answer(request, peer))).catch_unwind();
            let response = answering.await.unwrap_or_else(|_| {
                Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more").into_response()
            });
            if let Some(progress) = response.body().to_come() {
                leash.hold(Arc::clone(progress));
            }
            Ok::<Response<Body>, Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}
