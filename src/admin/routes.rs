//! The admin API: metrics, health and reload, on a listener of its own that query load does not touch.

use std::{fmt, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, RawQuery, State},
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::Semaphore};
use tower::ServiceBuilder;

use super::{Snapshot, limits, live::Live, queries, rules, top, views};
use crate::{
    http::{self, BrowserGuard, ListenerTls, Options, Timeouts, TokenGuard, Workers},
    proxy::Proxy,
    telemetry::{
        metrics,
        profile::{What, respond},
    },
};

/// How long a shutdown waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);

/// Reloads the configuration: returns the changes, or the mistakes in the file.
pub type Reload = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// Suggests limits for a tenant from the journal, as a patch to the configuration, or says why it cannot. Takes seconds.
pub type Suggest = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// What only the process around the proxy can do.
#[derive(Clone, Default)]
pub struct Operations {
    /// Reads the configuration again; `None` where there is no file.
    pub reload: Option<Reload>,
    /// Suggests limits; `None` where no journal is kept.
    pub suggest: Option<Suggest>,
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl From<Option<Reload>> for Operations {
    fn from(reload: Option<Reload>) -> Self {
        Self { reload, suggest: None }
    }
}

const ENDPOINTS: &str = "\
Weir's admin API. Queries go to the other address (server.listen).
GET  /                     the page for people, in a browser: what happens now; also /top, /refused, /explain, /limits and /rules
GET  /status.json          the same for machines
GET  /metrics              metrics of the proxy
GET  /-/healthy            whether the process answers
GET  /-/ready              whether it takes queries, and which backends answer
GET  /api/v1/admin/queries the queries that wait or run; DELETE …/queries/ID or …/queries?tenant=&dashboard=&user=&fingerprint= stops them
GET  /api/v1/admin/top     who asks for most: ?window=5m|1h|24h&by=fingerprint|dashboard|user|rule|tenant|client&sort=memory|count|samples|seconds|refused|shadow_refused&limit=20
GET  /api/v1/admin/rules   the rules against single queries; POST sets one, DELETE …/rules/NAME takes one away
GET  /api/v1/admin/explain ?query=&range=&step=&tenant=: the cost of each part of a query, and whether it would run
GET  /api/v1/admin/limits  ?tenant=: the limits of a tenant and where each is written; &suggest=true: what the journal suggests
POST /-/reload             reads the configuration file again
GET  /debug/pprof/profile  CPU profile, if telemetry.profiling is enabled
GET  /debug/pprof/heap     what holds memory, likewise
";

#[derive(Clone)]
pub(super) struct Admin {
    pub(super) proxy: Arc<Proxy>,
    pub(super) live: Arc<Live>,
    pub(super) operations: Operations,
    /// One at a time: it reads all of the journal.
    pub(super) suggesting: Arc<Semaphore>,
}

/// Serves the admin API until `shutdown`.
pub async fn serve_admin(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    operations: impl Into<Operations>,
    shutdown: impl Future<Output = ()>,
) {
    let named = Arc::clone(&proxy);
    let guard = BrowserGuard::hosts_and_writes(move || named.live().admin_hosts.clone());
    let opened = Arc::clone(&proxy);
    let tokens = TokenGuard::new(move || opened.live().admin_tokens.clone());
    let (secured, counted) = (Arc::clone(&proxy), Arc::clone(&proxy.metrics));
    let tls = ListenerTls::new(
        move || secured.live().admin_tls.clone(),
        move |result| counted.tls_handshake("admin", result),
    );
    let options = Options {
        connections: Arc::clone(&proxy.admin_connections),
        timeouts: Timeouts::default(),
        tls,
        workers: Workers::here(),
        grace: || GRACE,
    };
    let (operations, suggesting) = (operations.into(), Arc::new(Semaphore::new(1)));
    let live = Live::new(Arc::clone(&proxy));
    let (watched, closing) = (Arc::clone(&live), Arc::clone(&live));
    let routes = Router::new()
        .route("/endpoints", get(|| async { ENDPOINTS }))
        .route("/status.json", get(status_json))
        .route("/metrics", get(metrics_text))
        .route("/-/healthy", get(|| async { "Weir is healthy.\n" }))
        .route("/-/ready", get(ready))
        .route(
            "/debug/pprof/profile",
            get(async |RawQuery(asked)| respond(What::Cpu, asked).await.map(Body::from)),
        )
        .route(
            "/debug/pprof/heap",
            get(async |RawQuery(asked)| respond(What::Heap, asked).await.map(Body::from)),
        )
        .route("/-/reload", post(reload_now).put(reload_now))
        .route("/api/v1/admin/queries", get(queries::list).delete(queries::kill_matching))
        .route("/api/v1/admin/queries/{id}", delete(queries::kill_one))
        .route("/api/v1/admin/limits", get(limits::limits))
        .route("/api/v1/admin/top", get(top::rank))
        .route("/api/v1/admin/rules", get(rules::list).post(rules::add))
        .route("/api/v1/admin/rules/{name}", delete(rules::remove))
        .layer(DefaultBodyLimit::max(rules::RULE_BYTES_MAX))
        .layer(tokens.clone())
        .merge(views::router(tokens))
        .with_state(Admin { proxy, live, operations, suggesting })
        .layer(guard);
    let service = |peer: SocketAddr| {
        let with_peer = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        };
        ServiceBuilder::new().map_request(with_peer).service(routes.clone())
    };
    let shutdown = async move {
        shutdown.await;
        closing.close();
    };
    tokio::select! {
        _ = http::serve(listener, service, options, shutdown) => {}
        () = watched.run() => {}
    }
}

async fn status_json(State(admin): State<Admin>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match Snapshot::take(&admin.proxy).json() {
        Ok(text) => (headers, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("status: {error}\n")).into_response(),
    }
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    match admin.proxy.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

/// Ready as long as it answers queries, and be it with an error: a sick backend is no reason to take the proxy, whose
/// answers name the reason, out of service.
async fn ready(State(admin): State<Admin>) -> Response {
    if admin.proxy.stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "Weir is shutting down.\n").into_response();
    }
    let mut text = "Weir is ready.\n".to_owned();
    for (name, ready) in admin.proxy.backends() {
        let state = if ready { "ready" } else { "not answering" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "backend {name}: {state}");
    }
    text.into_response()
}

async fn reload_now(State(admin): State<Admin>) -> Response {
    let Some(reload) = admin.operations.reload else {
        return (StatusCode::BAD_REQUEST, "Weir runs without a configuration file.\n").into_response();
    };
    // Reading a file blocks.
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(changes)) if changes.is_empty() => "nothing changed\n".into_response(),
        Ok(Ok(changes)) => format!("{}\n", changes.join("\n")).into_response(),
        Ok(Err(report)) => (StatusCode::BAD_REQUEST, format!("{report}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
