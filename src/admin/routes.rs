//! The admin API: metrics, health and reload, on a listener of its own that query load does not touch.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::{DefaultBodyLimit, State},
    http::{Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tower::ServiceBuilder;

use super::{
    Snapshot, api, limits::Suggester, live::Live, operations::Operations, reply::Failed, rules, state::Admin,
    views,
};
use crate::{
    base::ErrorKind,
    http::{self, BrowserGuard, ListenerTls, Options, Timeouts, TokenGuard, Workers},
    proxy::Proxy,
    telemetry::metrics,
};

/// For somebody who asks the wrong address.
const WHEREABOUTS: &str =
    "queries go to the query address (server.listen, port 9099 by default), and /endpoints lists this API";
/// How long a shutdown waits for answers under way.
const GRACE: Duration = Duration::from_secs(2);

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
    let Operations { reload, suggest } = operations.into();
    let live = Live::new(Arc::clone(&proxy));
    let (watched, closing) = (Arc::clone(&live), Arc::clone(&live));
    let routes = api::router()
        .route("/endpoints", get(async || api::text()))
        .layer(DefaultBodyLimit::max(rules::RULE_BYTES_MAX))
        .layer(tokens.clone())
        .merge(views::router(tokens))
        .fallback(async || Failed::missing(format!("no such path on the admin address; {WHEREABOUTS}")))
        .method_not_allowed_fallback(async |method: Method| {
            let message = format!("this path does not take {method}; {WHEREABOUTS}");
            Failed(ErrorKind::MethodNotAllowed, message)
        })
        .with_state(Admin { proxy, live, reload, suggester: Suggester::new(suggest) })
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

pub(super) async fn status_json(State(admin): State<Admin>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match Snapshot::take(&admin.proxy).json() {
        Ok(text) => (headers, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("status: {error}\n")).into_response(),
    }
}

pub(super) async fn metrics_text(State(admin): State<Admin>) -> Response {
    match admin.proxy.metrics_text() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

/// Ready as long as it answers queries, and be it with an error: a sick backend is no reason to take the proxy, whose
/// answers name the reason, out of service.
pub(super) async fn ready(State(admin): State<Admin>) -> Response {
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

pub(super) async fn reload_now(State(admin): State<Admin>) -> Response {
    let Some(reload) = admin.reload else {
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
