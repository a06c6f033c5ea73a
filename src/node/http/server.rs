//! The node's listener.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::{Node, connections::Peer, router};
use crate::http::{self, ListenerTls, Options, Served, Timeouts, Workers};

/// How long a shutdown waits for answers under way.
const GRACE: Duration = Duration::from_secs(30);

/// Serves a node until `shutdown`; answers under way are then finished within a grace period.
pub async fn serve(listener: TcpListener, node: Arc<Node>, shutdown: impl Future<Output = ()>) -> Served {
    let options = Options {
        connections: Arc::clone(&node.connections.connections),
        timeouts: Timeouts { stalled: node.settings().stall, ..Timeouts::default() },
        tls: ListenerTls::never(),
        workers: Workers::here(),
        grace: || GRACE,
    };
    let router = router(node);
    let service = |peer: SocketAddr| {
        router.clone().map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer.ip()));
            request
        })
    };
    http::serve(listener, service, options, shutdown).await
}
