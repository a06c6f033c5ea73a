//! The one accept loop: the proxy, its admin API and the storage node are served by it.

use std::{convert::Infallible, error::Error, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::either::Either;
use tower::Service;

use super::{
    accept::Acceptor,
    connection::serve_connection,
    connections::{Connections, Place},
    drain::Served,
    handshake::{handshakes, shake},
    timeouts::Timeouts,
    tls::{ListenerTls, ServerTls, client_certificate},
    workers::Workers,
};

/// The time to send refusals when the grace period is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a listener is served.
pub struct Options<G> {
    /// The places for connections; kept by the caller for metrics and for other limits.
    pub connections: Arc<Connections>,
    /// Patience with clients.
    pub timeouts: Timeouts,
    /// How connections are secured.
    pub tls: ListenerTls,
    /// Where connections are served.
    pub workers: Workers,
    /// Called when the shutdown begins: how long answers under way may take.
    pub grace: G,
}

impl<G> std::fmt::Debug for Options<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// Accepts connections and answers on them until `shutdown`; `service` makes the service of one connection from the
/// address of its peer. Answers under way are then finished within the grace period. When that is over, requests without
/// an answer get a 503 that says so, and the rest is cut.
pub async fn serve<M, S, B, G>(
    listener: TcpListener,
    service: M,
    options: Options<G>,
    shutdown: impl Future<Output = ()>,
) -> Served
where
    M: Fn(SocketAddr) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    G: FnOnce() -> Duration,
{
    let Options { connections, timeouts, tls, workers, grace } = options;
    let (acceptor, handshakes, mut tasks) = (Acceptor::new(listener), handshakes(), JoinSet::new());
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        let secured = tls.current();
        // One that must shake hands first counts as a connection when it is through.
        let first = if secured.is_some() { &handshakes } else { &connections };
        let Some(place) = first.admit(peer.ip()) else { continue };
        let Ok(stream) = stream.into_std() else { continue };
        let (service, connections, tls) = (service(peer), Arc::clone(&connections), tls.clone());
        let (worker, load) = workers.least();
        let serving = async move {
            // As this thread's runtime watches it.
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let (stream, place, certificate): (_, Place, _) = match secured {
                None => (Either::Left(stream), place, None),
                Some(secured) => {
                    let (shaken, result) = shake(secured.clone(), stream, place).await;
                    tls.count(result);
                    let (Some(stream), Some(place)) = (shaken, connections.admit(peer.ip())) else { return };
                    // A reload ended the connections that it found; this one was none yet.
                    if ServerTls::accepts_others(tls.current().as_ref(), Some(&secured)) {
                        return;
                    }
                    let certificate = client_certificate(&stream);
                    (Either::Right(stream), place, certificate)
                }
            };
            serve_connection(stream, service, &place, timeouts, certificate).await;
            drop(load);
        };
        tasks.spawn_on(serving, worker);
    }
    drop(acceptor);
    let grace = grace();
    handshakes.end();
    connections.end();
    drain(tasks, &connections, grace).await
}

/// Waits for connections that are ending; those that have not when `grace` is over are cut.
async fn drain(mut tasks: JoinSet<()>, connections: &Connections, grace: Duration) -> Served {
    let all_ended = async |tasks: &mut JoinSet<()>| while tasks.join_next().await.is_some() {};
    if timeout(grace, all_ended(&mut tasks)).await.is_ok() {
        return Served { cut: 0 };
    }
    let cut = connections.expire();
    // A client that reads its refusal in time has it.
    let _ = timeout(LAST_WORDS, all_ended(&mut tasks)).await;
    tasks.shutdown().await;
    Served { cut }
}
