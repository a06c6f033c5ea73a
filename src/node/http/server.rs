//! The node's listener: takes a bounded number of connections, and ends in good order.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use prometheus::{IntGauge, Registry};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Node, router};
use crate::wire::{Acceptor, Patience, Served, carry, drain, places};

/// Most connections at a time, where the system allows so many; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 4_096;

/// How long a shutdown waits for answers under way.
const GRACE: Duration = Duration::from_secs(30);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Places for connections.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    most: usize,
    open: IntGauge,
}

impl Places {
    /// As many as the system allows, in these metrics.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let most = places(CONNECTIONS_MAX);
        let open = IntGauge::new("weir_node_connections", "Open connections of clients.")?;
        let help = "Most connections of clients; more wait to be accepted.";
        let bound = IntGauge::new("weir_node_connections_max", help)?;
        bound.set(most as i64);
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(bound))?;
        Ok(Self { free: Arc::new(Semaphore::new(most)), most, open })
    }

    /// Shows in the metrics how many are taken.
    pub(super) fn show(&self) {
        self.open.set(self.taken() as i64);
    }

    fn taken(&self) -> usize {
        self.most.saturating_sub(self.free.available_permits())
    }
}

/// Serves a node until `shutdown`; answers under way are then finished within a grace period.
pub async fn serve(listener: TcpListener, node: Arc<Node>, shutdown: impl Future<Output = ()>) -> Served {
    let router = router(Arc::clone(&node));
    let ending = CancellationToken::new();
    let listener = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // Only here are places taken: one that is free stays so.
            drop(node.connections.free.acquire().await);
            listener.accept().await
        };
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let place = Arc::clone(&node.connections.free).try_acquire_owned();
        let patience = Patience { stalled: node.settings.stall, ..Patience::default() };
        let (router, ending) = (router.clone(), ending.child_token());
        connections.spawn(async move {
            let answer = |request: Request<_>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer.ip()));
                let answering = router.clone().oneshot(request);
                async { answering.await.unwrap_or_else(|never| match never {}) }
            };
            carry(stream, patience, ending, answer).await;
            drop(place);
        });
    }
    drop(listener);
    ending.cancel();
    drain(connections, GRACE).await
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;
    use crate::node::{
        db::{Db, Options},
        http::Settings,
    };

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let node = Node::new(Arc::new(Db::in_memory(Options::default())), Settings::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let most = node.connections.most;
        let _taken = node.connections.free.clone().try_acquire_many_owned(most as u32 - 1).unwrap();
        let serving = tokio::spawn(serve(listener, Arc::clone(&node), std::future::pending()));
        let asked = async || {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET /-/ready HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            client
        };
        let mut one = asked().await;
        assert_ne!(one.read(&mut [0; 512]).await.unwrap(), 0);
        assert_eq!(node.connections.taken(), most);
        let mut other = asked().await;
        let mut answer = [0; 512];
        let mut answered = pin!(other.read(&mut answer));
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!(futures_util::poll!(answered.as_mut()).is_pending());
        }
        drop(one);
        assert_ne!(answered.await.unwrap(), 0);
        serving.abort();
    }
}
