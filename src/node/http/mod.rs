//! The node's HTTP API: Prometheus' own, so that Grafana, promtool and Weir's proxy need nothing special.
//!
//! | module | endpoints |
//! |---|---|
//! | `query` | `query`, `query_range`, `query_cost`, `query_range_cost`, `parse_query`, `format_query` |
//! | `list` | `series`, `labels`, `label/{name}/values` |
//! | `status` | `status/*`, `metadata`, `query_exemplars`, health, `/metrics` |
//! | `remote_read` | `read` |
//! | `write` | `write`, `import/prometheus` |
//!
//! Reads run on threads for blocking work, a bounded number at a time (`read_limiter`); a client that leaves stops its
//! query.

mod answer;
mod connections;
mod cors;
mod error;
mod json;
mod lent;
mod list;
mod metrics;
mod node;
mod number;
mod pools;
mod query;
mod read_limiter;
mod read_quota;
mod remote_read;
mod request;
mod server;
mod settings;
mod status;
mod tree;
mod write;
mod write_limiter;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{OriginalUri, RawQuery},
    response::IntoResponse as _,
    routing::{get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

pub use node::Node;
pub use pools::PoolSettings;
pub use read_quota::{QuotaLimit, QuotaSettings};
pub use server::serve;
pub use settings::Settings;
pub use write::{Label, store_metrics};

use crate::{
    base::ErrorKind,
    http::{BrowserGuard, HostNames},
    telemetry::profile::{What, respond},
};
use answer::success_text;
use error::Failure;

const NO_ALERTMANAGERS: &str = r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#;

/// The API of a node.
pub fn router(node: Arc<Node>) -> Router {
    let api = Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/query_cost", get(query::cost).post(query::cost))
        .route("/query_range_cost", get(query::range_cost).post(query::range_cost))
        .route("/parse_query", get(query::parse).post(query::parse))
        .route("/format_query", get(query::format).post(query::format))
        .route("/series", get(list::series).post(list::series))
        .route("/labels", get(list::labels).post(list::labels))
        .route("/label/{name}/values", get(list::values))
        .route("/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/metadata", get(status::metadata))
        .route("/rules", get(async || success_text(r#"{"groups":[]}"#, &[])))
        .route("/alerts", get(async || success_text(r#"{"alerts":[]}"#, &[])))
        .route("/targets", get(async || success_text(r#"{"activeTargets":[],"droppedTargets":[]}"#, &[])))
        .route("/targets/metadata", get(async || success_text("[]", &[])))
        .route("/scrape_pools", get(async || success_text(r#"{"scrapePools":[]}"#, &[])))
        .route("/alertmanagers", get(async || success_text(NO_ALERTMANAGERS, &[])))
        .route("/status/walreplay", get(async || success_text(r#"{"min":0,"max":0,"current":0}"#, &[])))
        .route("/status/buildinfo", get(status::build))
        .route("/status/runtimeinfo", get(status::runtime))
        .route("/status/flags", get(status::flags))
        .route("/status/config", get(status::config))
        .route("/status/tsdb", get(status::tsdb))
        .route("/read", post(remote_read::read))
        .route("/write", post(write::remote).layer(BrowserGuard::writes(HostNames::default)))
        .route("/import/prometheus", post(write::text).layer(BrowserGuard::writes(HostNames::default)));
    Router::new()
        .nest("/api/v1", api)
        .route("/-/healthy", get(|| async { "The node is healthy.\n" }))
        .route("/-/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route(
            "/debug/pprof/profile",
            get(async |RawQuery(asked)| respond(What::Cpu, asked).await.map(Body::from)),
        )
        .route(
            "/debug/pprof/heap",
            get(async |RawQuery(asked)| respond(What::Heap, asked).await.map(Body::from)),
        )
        .fallback(async |OriginalUri(uri): OriginalUri| {
            Failure::new(ErrorKind::NotFound, format!("the node has no {}", uri.path()))
        })
        .method_not_allowed_fallback(async || {
            Failure::new(ErrorKind::MethodNotAllowed, "this endpoint does not take this method")
        })
        .layer(CompressionLayer::new().gzip(true))
        .layer(axum::middleware::from_fn(cors::answer))
        .layer(CatchPanicLayer::custom(|_| {
            Failure::new(ErrorKind::Internal, "a defect in the node; its log says more").into_response()
        }))
        .with_state(node)
}
