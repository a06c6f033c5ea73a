//! What runs beside the requests: health checks of the replicas, and the closing of unused connections.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Backend, Body, Lane, fetch::read_at_most, pool::Sent, replicas::Replica};

/// Far more than any backend says about its health.
const HEALTH_BODY_MAX: usize = 16 << 10;

/// The state of a backend, for metrics and the status page.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub backend: Arc<str>,
    /// Each replica.
    pub replicas: Vec<ReplicaSnapshot>,
    /// Probes since the start.
    pub probes: super::probe::Counts,
}

/// The state of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSnapshot {
    /// Its URL.
    pub url: String,
    /// Requests sent or waiting for a connection, whose answer has not ended.
    pub in_flight: usize,
    /// Connections open and unused.
    pub idle: usize,
    /// Left alone for a while after failures.
    pub ejected: bool,
    /// The verdict of the health checks; true before the first.
    pub healthy: bool,
}

impl Backend {
    /// Checks the replicas at the configured interval until `shutdown` ends.
    pub async fn run_background(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let rounds = async {
            let mut tick = interval(self.settings.health.interval.max(std::time::Duration::from_millis(1)));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.check_all().await;
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = rounds => {}
        }
    }

    /// One round of health checks, all replicas at a time.
    pub async fn check_all(&self) {
        let checks = self.replicas.iter().map(|replica| async {
            replica.checked(self.check(replica).await);
            replica.pool.prune(Instant::now());
        });
        futures_util::future::join_all(checks).await;
    }

    /// Connections in use now to all replicas, of how many.
    pub fn connections(&self, lane: Lane) -> (usize, usize) {
        let each = self.replicas.iter().map(|replica| replica.pool.taken(lane));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1.saturating_add(one.1)))
    }

    /// What is known of the replicas now.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let replicas = self.replicas.iter().map(|r| ReplicaSnapshot {
            url: r.pool.url().as_str().to_owned(),
            in_flight: r.in_flight(),
            idle: r.pool.idle_count(),
            ejected: r.ejected(now),
            healthy: r.healthy(),
        });
        Snapshot {
            backend: Arc::clone(&self.name),
            replicas: replicas.collect(),
            probes: self.probes.counts(),
        }
    }

    /// Whether a replica says that it can answer. It takes no place among the connections, so that a full backend is
    /// not taken for a sick one; anything but a server error means that something is alive there.
    async fn check(&self, replica: &Arc<Replica>) -> bool {
        let deadline = Instant::now() + self.settings.health.timeout;
        let (path, below_prefix) = self.settings.kind.health_path();
        let path = PathAndQuery::from_static(path);
        let target = if below_prefix { replica.pool.url().target(&path) } else { Ok(Uri::from(path)) };
        let Ok(target) = target else { return false };
        self.ask_replica(replica, target, deadline, HEALTH_BODY_MAX).await.is_some_and(|(alive, _)| alive)
    }

    /// Fetches a path below the URL of one replica, on a lane of its own: it takes no place among the connections.
    /// Says whether the answer is no server error, and gives its body.
    pub(super) async fn ask_own(
        &self,
        replica: &Arc<Replica>,
        path: &PathAndQuery,
        deadline: Instant,
        max: usize,
    ) -> Option<(bool, Bytes)> {
        self.ask_replica(replica, replica.pool.url().target(path).ok()?, deadline, max).await
    }

    async fn ask_replica(
        &self,
        replica: &Arc<Replica>,
        target: Uri,
        deadline: Instant,
        max: usize,
    ) -> Option<(bool, Bytes)> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = target;
        self.add_own_headers(replica, request.headers_mut());
        let mut lease = replica.lease();
        let Sent::Answered(response, connection) = replica.pool.exchange(request, deadline).await else {
            return None;
        };
        lease.hold(connection);
        let alive = !response.status().is_server_error();
        let body = Body::new(response.into_body(), lease, deadline, Arc::clone(&self.name));
        Some((alive, read_at_most(body, max).await.ok()?))
    }

    /// Credentials and the address; over whatever the client sent under these names.
    pub(super) fn add_own_headers(&self, replica: &Replica, headers: &mut HeaderMap) {
        for (name, value) in &self.settings.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(header::HOST, replica.pool.url().authority.clone());
    }
}
