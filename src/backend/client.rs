//! One backend: a request goes in, an answer comes out, or the reason why not.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::time::Instant;

use super::{
    Body, Kind, Outgoing, Settings,
    condition::Failure,
    endpoint::Endpoint,
    error::{BackendError, Cause},
    headers::{self, Tenancy},
    places::Claim,
    pool::SendOutcome,
    probe::Probes,
    replicas::{Lease, Replica, Replicas},
    split::merge_budget,
};
use crate::{base::TenantId, http::ByteBudget};

/// A database behind Weir, one or several replicas of it.
#[derive(Debug)]
pub struct Backend {
    pub(super) settings: Settings,
    pub(super) name: Arc<str>,
    pub(super) replicas: Replicas,
    pub(super) probes: Probes,
    /// Bytes that answers in the course of being merged may hold.
    pub(super) merges: ByteBudget,
    /// Its table of series, where it has one.
    pub(super) tsdb_status: Endpoint,
}

/// One try on one replica.
enum Attempt {
    Answered(Response<Body>),
    Failed { error: BackendError, left: bool },
}

impl Backend {
    /// A backend with these settings; no connection is made yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        let replicas = Replicas::new(&settings);
        Arc::new(Self {
            name: settings.name.as_str().into(),
            replicas,
            probes: Probes::new(settings.probe),
            merges: merge_budget(),
            tsdb_status: Endpoint::default(),
            settings,
        })
    }

    /// The backend for new settings: the same one where nothing changed, and else a new one that knows which replicas
    /// were found to fail. TLS is taken for changed, since its files may be.
    pub fn renewed(self: &Arc<Self>, settings: Settings) -> Arc<Self> {
        if self.settings == settings {
            return Arc::clone(self);
        }
        let renewed = Self::new(settings);
        renewed.replicas.know_of(&self.replicas);
        renewed
    }

    /// Whether these settings lead to the same data, in the same form.
    pub fn reads_as(&self, settings: &Settings) -> bool {
        let mine = &self.settings;
        (mine.kind, &mine.urls, &mine.headers, &mine.tenancy)
            == (settings.kind, &settings.urls, &settings.headers, &settings.tenancy)
    }

    /// How long a count of its series is kept.
    pub const fn counts_kept(&self) -> std::time::Duration {
        self.settings.probe.ttl
    }

    /// The name in metrics and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, for those that keep it.
    pub const fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// How the tenant is named to it.
    pub const fn tenancy(&self) -> &Tenancy {
        &self.settings.tenancy
    }

    /// Which API it speaks.
    pub const fn kind(&self) -> Kind {
        self.settings.kind
    }

    /// Whether a replica is believed to answer. A backend that is not ready is still tried.
    pub fn ready(&self) -> bool {
        self.replicas.any_works()
    }

    /// Whether every replica is known to fail: shed, do not queue.
    pub fn sick(&self) -> bool {
        !self.ready()
    }

    /// Ends when [`Self::sick`] may have changed since the last call; for one caller at a time.
    pub async fn changed(&self) {
        self.replicas.changed().await;
    }

    /// Sends a request to the least loaded replica and waits for the head of the answer, until `deadline` or the
    /// backend's response timeout. A request that did not leave is tried once more on another replica, and so is an
    /// idempotent one whose connection ended without an answer while the first replica lives on. The body ends by
    /// `deadline` too; dropping the future or the body cancels the query.
    pub fn send(
        &self,
        request: impl Into<Box<Outgoing>>,
        deadline: Instant,
        idempotent: bool,
    ) -> impl Future<Output = Result<Response<Body>, BackendError>> + Send {
        self.send_in(Claim::Query, request.into(), deadline, idempotent)
    }

    /// Sends a request that costs the backend next to nothing, over the few connections that are kept for such: it
    /// neither waits for queries nor takes a connection from them. One tenant has three quarters of them at most.
    pub fn send_light(
        &self,
        tenant: &TenantId,
        request: impl Into<Box<Outgoing>>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response<Body>, BackendError>> + Send {
        self.send_in(Claim::Light(tenant), request.into(), deadline, true)
    }

    /// The request is in a box, since each of the futures from here on holds it.
    async fn send_in(
        &self,
        claim: Claim<'_>,
        request: Box<Outgoing>,
        deadline: Instant,
        idempotent: bool,
    ) -> Result<Response<Body>, BackendError> {
        let Some(first) = self.replicas.choose(None) else {
            return Err(self.error(None, Cause::NoReplica));
        };
        if !self.replicas.several() {
            return match self.attempt(claim, first, request, deadline, idempotent).await {
                Attempt::Answered(response) => Ok(response),
                Attempt::Failed { error, .. } => Err(error),
            };
        }
        let (error, left) = match self.attempt(claim, first, request.clone(), deadline, idempotent).await {
            Attempt::Answered(response) => return Ok(response),
            Attempt::Failed { error, left } => (error, left),
        };
        let is_harmless = match error.cause() {
            Cause::Connect(_) | Cause::ConnectTimeout(_) => !left,
            Cause::NoAnswer(_) => !left || (idempotent && self.survived(first, deadline).await),
            _ => false,
        };
        if !is_harmless {
            return Err(error);
        }
        let Some(second) = self.replicas.choose(Some(first)) else {
            return Err(error);
        };
        match self.attempt(claim, second, request, deadline, idempotent).await {
            Attempt::Answered(response) => Ok(response),
            Attempt::Failed { error, .. } => Err(error),
        }
    }

    /// Whether a replica that ended the connection without an answer lives on: a request that may have ended the process
    /// is not for another one.
    async fn survived(&self, replica: &Replica, deadline: Instant) -> bool {
        let is_alive = replica.pool.is_alive(deadline).await;
        if !is_alive {
            replica.failed(Failure::Unreachable, "it takes no connections".to_owned());
        }
        is_alive
    }

    async fn attempt(
        &self,
        claim: Claim<'_>,
        replica: &Arc<Replica>,
        request: Box<Outgoing>,
        deadline: Instant,
        idempotent: bool,
    ) -> Attempt {
        let mut lease = replica.lease();
        let head_by = deadline.min(Instant::now() + self.settings.response_timeout);
        let failed = |cause, left| Attempt::Failed { error: self.error(Some(replica), cause), left };
        if !lease.take_place(claim, head_by).await {
            return failed(Cause::Busy(claim.lane()), false);
        }
        let request = match self.prepare(replica, *request) {
            Ok(request) => Box::new(request),
            Err(error) => return failed(Cause::Request(error.to_string()), false),
        };
        match replica.pool.exchange(request, head_by, idempotent).await {
            SendOutcome::Answered(response, connection) => {
                match response.status() {
                    // It may be the query's fault: where no other replica does better, nothing is held against it.
                    StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY if replica.others_work() => {
                        let why = Cause::Status(response.status().as_u16()).to_string();
                        replica.failed(Failure::Unanswered, why);
                    }
                    _ => replica.answered(),
                }
                lease.hold(connection);
                Attempt::Answered(self.receive(response, lease, deadline))
            }
            SendOutcome::Failed { cause, left } => {
                if let Some(how) = self.fault_of_replica(&cause) {
                    replica.failed(how, cause.to_string());
                }
                failed(cause, left)
            }
        }
    }

    /// Whether a failure speaks against the replica: a deadline that a client chose does not, or a few queries with
    /// a timeout of a millisecond would take a backend from everybody.
    fn fault_of_replica(&self, cause: &Cause) -> Option<Failure> {
        match cause {
            Cause::Connect(_) | Cause::ConnectTimeout(_) => Some(Failure::Unreachable),
            Cause::NoAnswer(_) => Some(Failure::Unanswered),
            Cause::Late(after) if *after >= self.settings.response_timeout => Some(Failure::Unanswered),
            _ => None,
        }
    }

    fn prepare(&self, replica: &Replica, request: Outgoing) -> Result<Request<Full<Bytes>>, http::Error> {
        let url = replica.pool.url();
        let mut out = Request::new(Full::new(request.body));
        *out.method_mut() = request.method;
        *out.uri_mut() = url.target(&request.path_and_query)?;
        *out.headers_mut() = request.headers;
        headers::to_backend(out.headers_mut());
        self.add_own_headers(replica, out.headers_mut());
        Ok(out)
    }

    fn receive(
        &self,
        mut response: Response<hyper::body::Incoming>,
        lease: Lease,
        deadline: Instant,
    ) -> Response<Body> {
        if response.headers().contains_key(header::TRANSFER_ENCODING) {
            // Where both are there, this one is wrong (RFC 9112, 6.3).
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        headers::strip_hop_by_hop(response.headers_mut());
        response.map(|incoming| Body::new(incoming, lease, deadline, Arc::clone(&self.name)))
    }

    pub(super) fn error(&self, replica: Option<&Arc<Replica>>, cause: Cause) -> BackendError {
        BackendError::new(&self.name, replica.map(|r| r.pool.url().as_str()), cause)
    }
}
