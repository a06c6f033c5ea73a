//! Route and identify: a request becomes a query with an owner, or is turned away before anything of it is read.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures_util::future::{Either, Ready, ready};
use http::{Request, Uri};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    config::ConfigSnapshot,
    exchange::{Common, Exchange, Identified, Rejected},
    log::{Origin, Owner, QueryLogs},
    respond::failure::Failure,
    route::route,
};
use crate::{backend::headers::strip_hop_by_hop, base::ErrorKind, limit::Admission};

/// A request as it comes from a connection.
#[derive(Debug)]
pub(super) struct Incoming<B> {
    /// The request.
    pub(super) request: Request<B>,
    /// The other end of its connection.
    pub(super) peer: SocketAddr,
}

/// What turns requests into queries.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) config: ArcSwap<ConfigSnapshot>,
    pub(super) admission: Arc<Admission>,
    pub(super) logs: Arc<QueryLogs>,
    pub(super) stopping: AtomicBool,
}

impl Front {
    fn identify<B>(&self, incoming: Incoming<B>) -> Result<Exchange<Identified<B>>, Rejected> {
        let began = Instant::now();
        let (mut head, body) = incoming.request.into_parts();
        // Before anybody is told apart by a header: naming one in `Connection` would lose it on the way down.
        strip_hop_by_hop(&mut head.headers);
        let routed = route(&head.method, head.uri.path());
        let routed = routed.map_err(|error| Rejected { log: None, failure: error.into() })?;
        let endpoint = routed.endpoint;
        let moved = (routed.path != head.uri.path()).then(|| with_path(&head.uri, routed.path));
        let mut log = self.logs.begin(endpoint, began, &mut head.headers);
        let config = self.config.load_full();
        let caller = match config.rules.identify(&head.headers, incoming.peer) {
            Ok(caller) => caller,
            Err(error) => return Err(Rejected { log: Some(log), failure: error.into() }),
        };
        let Some(upstream) = config.upstream(&caller.tenant).map(Arc::clone) else {
            let failure = Failure::new(ErrorKind::Internal, "no backend is configured");
            return Err(Rejected { log: Some(log), failure });
        };
        let owner = Owner {
            tenant: caller.tenant.clone(),
            actor: Arc::clone(&caller.actor),
            class: config.class_name(caller.class),
            backend: Arc::clone(upstream.backend.shared_name()),
        };
        let client = config.rules.client_of(&head.headers, incoming.peer);
        log.identified(owner, Origin::of(&head.headers, client, caller.trusted));
        let policy = Arc::clone(self.admission.policy().tenant(&caller.tenant));
        if let Some(uri) = moved.transpose().map_err(|failure| Rejected { log: None, failure })? {
            head.uri = uri;
        }
        let common = Box::new(Common { config, head, endpoint, caller, upstream, policy, log });
        if self.stopping.load(Relaxed) {
            return Err(common.reject(Failure::new(ErrorKind::ShuttingDown, "Weir is shutting down")));
        }
        Ok(Exchange { common, stage: Identified { body, over_rate: None } })
    }
}

/// The same target with the backend's own path.
fn with_path(uri: &Uri, path: &str) -> Result<Uri, Failure> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    target.parse().map_err(|error| Failure::new(ErrorKind::BadData, format!("the request target: {error}")))
}

/// Puts [`Front`] before the service that takes identified queries.
#[derive(Clone, Debug)]
pub(super) struct IdentifyLayer(pub(super) Arc<Front>);

impl<S> Layer<S> for IdentifyLayer {
    type Service = Identify<S>;

    fn layer(&self, inner: S) -> Identify<S> {
        Identify { inner, front: Arc::clone(&self.0) }
    }
}

/// Made by [`IdentifyLayer`].
#[derive(Clone, Debug)]
pub(super) struct Identify<S> {
    inner: S,
    front: Arc<Front>,
}

impl<S, B> Service<Incoming<B>> for Identify<S>
where
    S: Service<Exchange<Identified<B>>, Error = Rejected>,
{
    type Response = S::Response;
    type Error = Rejected;
    type Future = Either<S::Future, Ready<Result<S::Response, Rejected>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming<B>) -> Self::Future {
        match self.front.identify(incoming) {
            Ok(exchange) => Either::Left(self.inner.call(exchange)),
            Err(rejected) => Either::Right(ready(Err(rejected))),
        }
    }
}
