//! Background tasks: health checks of the replicas, and the closing of unused connections.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Backend, Body, Lane,
    endpoint::Place,
    error::Cause,
    fetch::{ReadError, read_at_most},
    pool::SendOutcome,
    ready,
    replicas::Replica,
};

/// Far more than any backend says about its health.
const HEALTH_BODY_MAX: usize = 16 << 10;
/// The longest metrics page that is read.
const METRICS_BODY_MAX: usize = 8 << 20;
/// Time between two checks of a replica that is down or in doubt: it is used again this soon after it is ready.
const HURRIED: Duration = Duration::from_millis(250);
/// The user agent of Weir's own requests, for the log of the database.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION"), " (health check)"));
/// Mimir and Cortex want a tenant for every query; this is the one that they use without tenancy.
const TENANT: &str = "anonymous";

/// The state of a backend, for metrics and the page *Now*.
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
    /// Whether it is up as far as is known; true before the first check.
    pub healthy: bool,
    /// Why its latest check or request failed, as the end of a sentence about it; `None` since a check passed.
    pub last_error: Option<String>,
    /// It has no metrics page, neither at the root nor below the path of its URL.
    pub metrics_missing: bool,
}

impl Backend {
    /// Checks each replica at the configured interval, and sooner while it is down or in doubt, until `shutdown` ends.
    pub async fn run_background(self: Arc<Self>, shutdown: impl Future<Output = ()> + Send) {
        let rounds = self.replicas.iter().map(|replica| self.keep_checking(replica));
        tokio::select! {
            () = shutdown => {}
            _ = futures_util::future::join_all(rounds) => {}
        }
    }

    async fn keep_checking(&self, replica: &Arc<Replica>) {
        let interval = self.settings.health.interval.max(Duration::from_millis(1));
        let hurried = HURRIED.min(interval);
        loop {
            let began = Instant::now();
            self.check_one(replica).await;
            // The next check is no sooner than this, also where one is asked for.
            sleep(hurried).await;
            if !replica.condition().is_doubted() {
                tokio::select! {
                    () = sleep_until(began + interval) => {}
                    () = replica.check_now.notified() => {}
                }
            }
        }
    }

    /// One health check of each replica, all at a time.
    pub async fn check_all(&self) {
        futures_util::future::join_all(self.replicas.iter().map(|replica| self.check_one(replica))).await;
    }

    async fn check_one(&self, replica: &Arc<Replica>) {
        let before = replica.condition();
        let outcome = self.check(replica).await;
        if let (Err(why), false) = (&outcome, before.is_doubted()) {
            tracing::warn!(
                backend = self.name(),
                replica = replica.pool.url().as_str(),
                "not ready: it {why}"
            );
        }
        if outcome.is_ok() && before.is_down() {
            tracing::info!(backend = self.name(), replica = replica.pool.url().as_str(), "ready again");
        }
        replica.checked(outcome);
        replica.pool.prune(Instant::now());
    }

    /// Connections in use now to all replicas, of how many.
    pub fn connections(&self, lane: Lane) -> (usize, usize) {
        let each = self.replicas.iter().map(|replica| replica.pool.taken(lane));
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1.saturating_add(one.1)))
    }

    /// The condition of the replicas now.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let replicas = self.replicas.iter().map(|r| {
            let condition = r.condition();
            ReplicaSnapshot {
                url: r.pool.url().as_str().to_owned(),
                in_flight: r.in_flight(),
                idle: r.pool.idle_count(),
                ejected: condition.is_ejected(now),
                healthy: !condition.is_down(),
                last_error: condition.last_error().map(str::to_owned),
                metrics_missing: r.metrics.is_missing(),
            }
        });
        Snapshot {
            backend: Arc::clone(&self.name),
            replicas: replicas.collect(),
            probes: self.probes.counts(),
        }
    }

    /// Why its replicas failed last, each with its URL.
    pub fn whys(&self) -> String {
        let snapshot = self.snapshot();
        let whys = snapshot.replicas.iter().map(|replica| {
            format!("{} {}", replica.url, replica.last_error.as_deref().unwrap_or("does not answer"))
        });
        whys.collect::<Vec<_>>().join("; ")
    }

    /// Whether a replica can answer queries; why not, as the end of a sentence about it. It takes no place among the
    /// connections, and a query that is late counts only where nothing else says that the replica is ready: a full
    /// backend is not a sick one.
    async fn check(&self, replica: &Arc<Replica>) -> Result<(), String> {
        let deadline = Instant::now() + self.settings.health.timeout;
        let says_ready = self.ask_own_word(replica, deadline).await?;
        let query = ready::query(self.kind());
        match self.ask(replica, Place::Prefix, query, deadline, HEALTH_BODY_MAX).await {
            // Where clients bring their own credentials, Weir has none.
            Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _))
                if self.settings.tenancy.forward_credentials =>
            {
                Ok(())
            }
            Ok((status, body)) => ready::judge(status, &body),
            Err(Cause::Late(_) | Cause::LateBody) if says_ready => Ok(()),
            Err(cause) => Err(cause.to_string()),
        }
    }

    /// Whether the replica itself says that it is ready; `false` where it says nothing.
    async fn ask_own_word(&self, replica: &Arc<Replica>, deadline: Instant) -> Result<bool, String> {
        let (path, usual) = ready::own_word(self.kind());
        for &place in replica.own_word.places(usual, Instant::now()) {
            let asked = self.ask(replica, place, path, deadline, HEALTH_BODY_MAX).await;
            let (status, _) = asked.map_err(|cause| cause.to_string())?;
            if status.is_client_error() {
                continue;
            }
            replica.own_word.found(place);
            return match status {
                status if status.is_success() => Ok(true),
                status if status.is_server_error() => {
                    Err(format!("says {} at {path}: it is starting, stopping or sick", status.as_u16()))
                }
                _ => Ok(false),
            };
        }
        if replica.own_word.not_found(Instant::now()) {
            tracing::info!(
                backend = self.name(),
                "the backend has no {path}: only a query shows whether it is ready"
            );
        }
        Ok(false)
    }

    /// The metrics page of a replica, if one comes by the deadline: where this kind has it, or at the other place.
    pub(super) async fn metrics_page(&self, replica: &Arc<Replica>, deadline: Instant) -> Option<Bytes> {
        let (path, usual) = ready::metrics(self.kind());
        for &place in replica.metrics.places(usual, Instant::now()) {
            let (status, page) = self.ask(replica, place, path, deadline, METRICS_BODY_MAX).await.ok()?;
            // Some gateways answer a page for people to any path.
            if ready::is_missing(status.as_u16()) || page.starts_with(b"<") {
                continue;
            }
            let page = (status == StatusCode::OK).then_some(page)?;
            replica.metrics.found(place);
            return Some(page);
        }
        if replica.metrics.not_found(Instant::now()) {
            tracing::warn!(
                backend = self.name(),
                replica = replica.pool.url().as_str(),
                "the backend has no {path}, neither at the root nor below its path: set pressure.metrics_urls to have its memory seen"
            );
        }
        None
    }

    /// Asks one replica for a path, on a lane of its own: it takes no place among the connections.
    async fn ask(
        &self,
        replica: &Arc<Replica>,
        place: Place,
        path: &'static str,
        deadline: Instant,
        max: usize,
    ) -> Result<(StatusCode, Bytes), Cause> {
        let path = PathAndQuery::from_static(path);
        let target = match place {
            Place::Root => Ok(Uri::from(path)),
            Place::Prefix => replica.pool.url().target(&path),
        };
        let mut request = Request::new(Full::<Bytes>::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = target.map_err(|error| Cause::Request(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        self.settings.tenancy.apply(headers, TENANT);
        self.add_own_headers(replica, headers);
        let mut lease = replica.lease();
        let (response, connection) = match replica.pool.exchange(Box::new(request), deadline, true).await {
            SendOutcome::Answered(response, connection) => (response, connection),
            SendOutcome::Failed { cause, .. } => return Err(cause),
        };
        lease.hold(connection);
        let status = response.status();
        let body = Body::new(response.into_body(), lease, deadline, Arc::clone(&self.name));
        match read_at_most(body, max).await {
            Ok(body) => Ok((status, body)),
            Err(ReadError::Backend(error)) => Err(error.cause().clone()),
            Err(ReadError::TooLong) => Err(Cause::TooLong(max)),
        }
    }

    /// Credentials and the address; over those that the client sent under these names.
    pub(super) fn add_own_headers(&self, replica: &Replica, headers: &mut HeaderMap) {
        for (name, value) in &self.settings.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(header::HOST, replica.pool.url().authority.clone());
    }
}
