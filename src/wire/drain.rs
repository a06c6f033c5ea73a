//! The end of a server.

use std::time::Duration;

use tokio::{task::JoinSet, time::timeout};

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that were cut with an answer under way when the grace period was over.
    pub cut: usize,
}

/// Waits for connections that are ending; those that have not when `grace` is over are cut.
pub async fn drain(mut connections: JoinSet<()>, grace: Duration) -> Served {
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, ended).await.is_ok() {
        return Served { cut: 0 };
    }
    while connections.try_join_next().is_some() {}
    let cut = connections.len();
    connections.shutdown().await;
    Served { cut }
}
