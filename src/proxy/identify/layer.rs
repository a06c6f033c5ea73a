//! Route and identify: a request becomes a query with an owner, or is turned away before anything of it is read.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use http::{HeaderValue, Request, Response, Uri, header, request::Parts};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{IdentifyError, Identity, OnBehalfOf, Presented};
use crate::{
    backend::headers::strip_hop_by_hop,
    base::ErrorKind,
    http::{
        ClientCertificate,
        openapi::{JSON, TEXT},
    },
    proxy::{
        api,
        config::ConfigSnapshot,
        exchange::{Common, Exchange, Identified, Rejected},
        log::{Origin, Owner, QueryLog},
        respond::{Body, failure::Failure},
        route::{Endpoint, Routed, route},
        shared::{Identifier, Shared},
        upstream::Upstream,
    },
};

/// How to ask well, for language models (llmstxt.org).
const GUIDE: &str = include_str!("../llms.txt");

/// A request as it comes from a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Incoming<B> {
    /// The request.
    pub(in crate::proxy) request: Request<B>,
    /// The other end of its connection.
    pub(in crate::proxy) peer: SocketAddr,
}

/// The caller, and the backend of its queries.
struct Identification {
    config: Arc<ConfigSnapshot>,
    caller: Identity,
    upstream: Arc<Upstream>,
    /// The target at the backend, where it is another.
    moved: Option<Uri>,
}

impl Identifier {
    /// A request that Weir answers itself is a response; any other becomes a query.
    fn enter<B>(
        &self,
        shared: &Arc<Shared>,
        incoming: Incoming<B>,
    ) -> Result<Either<Exchange<Identified<B>>, Response<Body>>, Rejected> {
        let began = Instant::now();
        let (mut head, body) = incoming.request.into_parts();
        // Before a header identifies anybody: naming it in `Connection` would drop it on the way down.
        strip_hop_by_hop(&mut head.headers);
        let routed = route(&head.method, head.uri.path()).map_err(|error| error.with(head.uri.query()));
        let routed = routed.map_err(|error| Rejected { log: None, failure: error.into() })?;
        let endpoint = routed.endpoint;
        if let Some(answer) = self.own(endpoint) {
            return answer.map(Either::Right).map_err(|failure| Rejected { log: None, failure });
        }
        let mut log = self.logs.begin(endpoint, began, &mut head.headers);
        match self.identify(&head, routed, incoming.peer, &mut log) {
            Ok(Identification { config, caller, upstream, moved }) => {
                if let Some(uri) = moved {
                    head.uri = uri;
                }
                let backend = (upstream.backend.kind(), upstream.backend.tenancy());
                config.attribution.forward(&mut head.headers, &caller, backend);
                let policy = shared.pricing.admission.policy();
                let several = policy.strictest(&caller.several);
                let policy = several.unwrap_or_else(|| Arc::clone(policy.tenant(&caller.tenant)));
                let shared = Arc::clone(shared);
                let enforced = config.enforced_on(&caller);
                let (rule, own_text, slow, warnings) = (None, None, false, Vec::new());
                let common = Common {
                    shared,
                    config,
                    head,
                    endpoint,
                    caller,
                    upstream,
                    policy,
                    log,
                    rule,
                    slow,
                    enforced,
                    own_text,
                    warnings,
                };
                let common = Box::new(common);
                Ok(Either::Left(Exchange { common, stage: Identified { body, over_rate: None } }))
            }
            Err(failure) => Err(Rejected { log: Some(log), failure }),
        }
    }

    /// The caller, its backend, and the target there if it is another.
    fn identify(
        &self,
        head: &Parts,
        routed: Routed<'_>,
        peer: SocketAddr,
        log: &mut QueryLog,
    ) -> Result<Identification, Failure> {
        let config = self.config.load_full();
        let certificate = head.extensions.get::<Arc<ClientCertificate>>().map(|one| &**one);
        let presented = Presented { headers: &head.headers, peer, certificate, clock: self.logs.clock };
        let unidentified = |error: IdentifyError| {
            self.logs.metrics.identified(error.source().as_str(), false);
            Failure::unidentified(&error, config.attribution.challenge())
        };
        let mut caller = match head.extensions.get() {
            Some(OnBehalfOf(tenant)) => config.attribution.on_behalf_of(tenant.clone()),
            None => config.attribution.identify(&presented).map_err(unidentified)?,
        };
        let nowhere = || Failure::new(ErrorKind::Internal, "no backend is configured");
        let upstream = config.upstream_of(&mut caller).map_err(unidentified)?;
        let upstream = Arc::clone(upstream.ok_or_else(nowhere)?);
        self.logs.metrics.identified(caller.source.as_str(), true);
        let client = config.attribution.client_of(&head.headers, peer);
        let owner = Owner {
            tenant: caller.tenant.clone(),
            actor: Arc::clone(&caller.actor),
            class: Arc::clone(config.class(caller.class)),
            backend: Arc::clone(upstream.backend.shared_name()),
            origin: Origin::of(&head.headers, client, caller.trusted),
        };
        log.identified(owner);
        if self.stopping.load(Relaxed) {
            return Err(Failure::new(ErrorKind::ShuttingDown, "Weir is shutting down"));
        }
        let path = routed.at(upstream.backend.kind()).path;
        let moved = (path != head.uri.path()).then(|| with_path(&head.uri, path)).transpose()?;
        Ok(Identification { config, caller, upstream, moved })
    }

    /// The answer to a request that is for Weir itself: load balancers check health on the address that they send queries to.
    fn own(&self, endpoint: Endpoint) -> Option<Result<Response<Body>, Failure>> {
        let (text, media) = match endpoint {
            Endpoint::Ready if self.stopping.load(Relaxed) => {
                return Some(Err(Failure::new(ErrorKind::ShuttingDown, "Weir is shutting down")));
            }
            Endpoint::Healthy => ("Weir is healthy.\n".into(), TEXT),
            Endpoint::Ready => ("Weir is ready.\n".into(), TEXT),
            Endpoint::Guide => (GUIDE.into(), TEXT),
            Endpoint::Description => (Bytes::from(api::description()), JSON),
            _ => return None,
        };
        let mut response = Response::new(Body::full(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        Some(Ok(response))
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

/// Puts [`Identifier`] before the service that takes identified queries.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct IdentifyLayer(pub(in crate::proxy) Arc<Shared>);

impl<S> Layer<S> for IdentifyLayer {
    type Service = Identify<S>;

    fn layer(&self, inner: S) -> Identify<S> {
        Identify { inner, shared: Arc::clone(&self.0) }
    }
}

/// Made by [`IdentifyLayer`].
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Identify<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, B> Service<Incoming<B>> for Identify<S>
where
    S: Service<Exchange<Identified<B>>, Response = Response<Body>, Error = Rejected>,
{
    type Response = Response<Body>;
    type Error = Rejected;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Rejected>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, incoming: Incoming<B>) -> Self::Future {
        match self.shared.identifier.enter(&self.shared, incoming) {
            Ok(Either::Left(exchange)) => Either::Left(self.inner.call(exchange)),
            Ok(Either::Right(response)) => Either::Right(ready(Ok(response))),
            Err(rejected) => Either::Right(ready(Err(rejected))),
        }
    }
}
