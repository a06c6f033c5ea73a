//! Serves the query API over HTTP/1 on a bound listener, until told to stop.

use std::{net::SocketAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use http::Response;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Proxy,
    leash::Leash,
    listener::{HANDSHAKES_MAX, Stream, shake},
    respond::Body,
    respond::failure::Failure,
    tls::ServerTls,
    typed::Typed,
    workers::Workers,
};
use crate::{
    base::ErrorKind,
    wire::{Acceptor, Patience, Served, carry, drain},
};

/// Accepts and answers until `shutdown`, then finishes what is in flight within the grace period of the settings.
/// Connections are accepted here and served by the workers.
pub async fn serve(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    workers: Workers,
    shutdown: impl Future<Output = ()>,
) -> Served {
    let listener = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    let unready = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let ending = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            drop(proxy.connections.acquire().await);
            let unready = Arc::clone(&unready).acquire_owned().await;
            (listener.accept().await, unready)
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
        // A child: polling it takes a lock, which connections then do not share.
        let (proxy, ending) = (Arc::clone(&proxy), ending.child_token());
        let (worker, load) = workers.least();
        let serving = async move {
            let placed = async {
                let stream = ready(stream, tls, peer, &proxy).await?;
                let place = match place {
                    Some(place) => Ok(place),
                    None => Arc::clone(&proxy.connections).acquire_owned().await,
                };
                Some((stream, place))
            };
            let placed = tokio::select! {
                biased;
                placed = placed => placed,
                () = ending.cancelled() => None,
            };
            let Some((stream, place)) = placed else { return };
            drop(unready);
            let leash = Arc::default();
            tokio::select! {
                () = connection(stream, peer, &proxy, &leash, ending) => {}
                () = leash.pulled() => {}
            }
            drop((place, load));
        };
        connections.spawn_on(serving, worker);
    }
    drop(listener);
    ending.cancel();
    proxy.stop();
    drain(connections, proxy.grace()).await
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

/// Serves the query API on a connection until it ends, or `ending` and nothing is in flight on it.
async fn connection(
    stream: Stream,
    peer: SocketAddr,
    proxy: &Arc<Proxy>,
    leash: &Arc<Leash>,
    ending: CancellationToken,
) {
    let answer = |request| {
        let (proxy, leash) = (Arc::clone(proxy), Arc::clone(leash));
        async move {
            // In a box: it is some kilobytes, and each of the futures around it would move them once more.
            let answering = AssertUnwindSafe(Box::pin(proxy.answer(request, peer))).catch_unwind();
            let response: Response<Body> = answering.await.unwrap_or_else(|_| {
                Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more").into_response()
            });
            if let Some(progress) = response.body().to_come() {
                leash.hold(Arc::clone(progress));
            }
            response
        }
    };
    carry(Typed::new(stream), Patience::default(), ending, answer).await;
}
