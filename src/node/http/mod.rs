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
//! Reads run on threads for blocking work, a bounded number at a time (`reads`); a client that leaves stops its query.

mod cors;
mod error;
mod json;
mod list;
mod metrics;
mod number;
mod pools;
mod query;
mod read_limiter;
mod read_quota;
mod remote_read;
mod server;
mod settings;
mod status;
mod tree;
mod write;
mod write_limiter;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest, OriginalUri, RawQuery, Request},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

pub use pools::PoolSettings;
pub use read_quota::{QuotaLimit, QuotaSettings};
pub use server::serve;
pub use settings::Settings;
pub use write::{Label, store_metrics};

use super::{
    db::Db,
    engine::{EvalError, Workers},
    pool::Loan,
};
use crate::{
    base::{ErrorKind, params::Params},
    http::{BrowserGuard, HostNames},
    promql,
    telemetry::profile::{What, respond},
};
use error::Failure;
use metrics::Metrics;
use pools::Pools;
use read_limiter::ReadLimiter;
use read_quota::{Counted, ReadQuota};
use server::{ClientConnections, Peer};
use write_limiter::WriteLimiter;

/// Parsed queries that are kept.
const CACHED_QUERIES: u64 = 1_000;

/// A database and what serving it takes.
#[derive(Debug)]
pub struct Node {
    db: Arc<Db>,
    settings: ArcSwap<Settings>,
    cache: promql::Cache,
    reads: ReadLimiter,
    workers: Workers,
    writes: WriteLimiter,
    metrics: Metrics,
    pools: Arc<Pools>,
    recent: Arc<ReadQuota>,
    connections: ClientConnections,
    started_ms: i64,
}

impl Node {
    /// A node over a database.
    ///
    /// # Errors
    /// Its metrics cannot be registered.
    pub fn new(db: Arc<Db>, settings: Settings) -> prometheus::Result<Arc<Self>> {
        let started_ms = (db.options().clock)();
        let metrics = Metrics::new()?;
        Ok(Arc::new(Self {
            pools: Arc::new(Pools::new(&settings.pool, metrics.registry())?),
            reads: ReadLimiter::new(&settings),
            recent: ReadQuota::new(settings.recent.clone()),
            workers: Workers::new(settings.query_threads, Workers::SERIES_MIN),
            writes: WriteLimiter::new(settings.write_bytes),
            connections: ClientConnections::new(settings.connections, metrics.registry())?,
            metrics,
            cache: promql::Cache::new(CACHED_QUERIES),
            db,
            settings: ArcSwap::from_pointee(settings),
            started_ms,
        }))
    }

    /// The settings of this moment.
    fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Sets anew what a single read may take. All else is as it was at the start.
    pub fn set_read_limits(&self, new: &Settings) {
        let &Settings { limits, lookback_ms, timeout, steps, list_entries, .. } = new;
        self.settings.rcu(|old| {
            let old = Settings::clone(old);
            Settings { limits, lookback_ms, timeout, steps, list_entries, ..old }
        });
    }

    /// The database.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// Keeps the node small, until the future is dropped: pools that nobody uses shrink.
    pub async fn shrink_pools(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.settings().pool.idle).await;
            let freed = self.pools.shrink();
            if freed > 0 {
                tracing::debug!(freed, "pools were idle and gave buffers back");
            }
        }
    }

    /// How much memory queries share, and why: a sentence.
    pub fn pool_size(&self) -> &str {
        &self.pools.said
    }

    /// Most bytes that its pools lend; `None` where nothing bounds them.
    pub fn pool_bytes(&self) -> Option<u64> {
        self.pools.lent_at_most()
    }

    /// Says in the log what queries never gave back; to be asked when none is left. Whether all is back.
    pub fn check_pools(&self) -> bool {
        let mut whole = true;
        for (pool, leaked) in self.pools.leaked() {
            tracing::error!(pool, objects = leaked.objects, bytes = leaked.bytes, "a pool leaks");
            whole = false;
        }
        whole
    }

    /// The node's metrics in Prometheus' text format, those of its process included.
    pub fn metrics_text(&self) -> prometheus::Result<String> {
        self.metrics.encode(self)
    }

    fn metrics_page(&self) -> prometheus::Result<String> {
        Ok(self.metrics_text()? + &self.metrics.encode_process()?)
    }

    fn now_ms(&self) -> i64 {
        (self.db.options().clock)()
    }
}

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

/// The parameters of a request, from its URL and its form, and who asks.
struct Asked {
    url: Option<String>,
    form: String,
    headers: HeaderMap,
    peer: Option<IpAddr>,
    /// The memory of the form.
    _lent: Option<Loan>,
}

impl Node {
    /// Counts a read against what its source and all have read lately: by the header that names it, which passes
    /// through Weir, or else by its address.
    fn counted(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Option<Arc<Counted>>, Failure> {
        let named = headers.get(self.settings().recent.header.as_str()).and_then(|name| name.to_str().ok());
        let named = named.filter(|name| !name.is_empty() && name.len() <= SOURCE_NAME_MAX).map(str::to_owned);
        let source = named.or_else(|| Some(peer?.to_string())).unwrap_or_default();
        self.recent.begin(&source)
    }
}

/// Longer names of sources are no names.
const SOURCE_NAME_MAX: usize = 256;

/// The largest form that is read, bytes; the proxy has the same limit.
const FORM_BYTES_MAX: usize = 4 << 20;
/// Longest wait for one.
const FORM_WAIT: Duration = Duration::from_secs(10);

impl Asked {
    fn params(&self) -> Result<Params<'_>, Failure> {
        Ok(Params::parse(self.url.as_deref().unwrap_or_default(), &self.form)?)
    }
}

impl FromRequest<Arc<Node>> for Asked {
    type Rejection = Failure;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self, Failure> {
        let url = request.uri().query().map(str::to_owned);
        let peer = peer_of(&request);
        let asked = Self { url, form: String::new(), headers: request.headers().clone(), peer, _lent: None };
        if request.method() != Method::POST {
            return Ok(asked);
        }
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(is_form);
        let (body, lent) = read_form(node, request).await?;
        if !is_form {
            return Ok(asked);
        }
        let form = String::from_utf8(body.into())
            .map_err(|_| Failure::new(ErrorKind::BadData, "the form is not UTF-8"))?;
        Ok(Self { form, _lent: Some(lent), ..asked })
    }
}

/// Whether a media type is that of a form: parameters may follow, and case does not matter.
fn is_form(media_type: &str) -> bool {
    let name = media_type.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn peer_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Bytes of memory for each byte of a form: as it comes, as text, and once more in what is read from it.
const FORM_COPIES: u64 = 3;

/// The body of a read, and its memory: a crowd that sends forms must not fill the node's before a query is worked out.
async fn read_form(node: &Node, request: Request) -> Result<(Bytes, Loan), Failure> {
    let said =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let most = said.map_or(FORM_BYTES_MAX, |bytes: usize| bytes.min(FORM_BYTES_MAX));
    let mut lent = node.pools.engine.working.loan();
    lent.try_grow(FORM_COPIES * most as u64).map_err(EvalError::Exhausted)?;
    match tokio::time::timeout(FORM_WAIT, axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX)).await {
        Ok(Ok(whole)) => {
            lent.keep_only(FORM_COPIES * whole.len() as u64);
            Ok((whole, lent))
        }
        Ok(Err(_)) => Err(Failure::new(
            ErrorKind::BodyTooLarge,
            format!("the body is cut off or larger than {FORM_BYTES_MAX} bytes"),
        )),
        Err(_) => Err(Failure::new(ErrorKind::BodyLate, "the request body did not arrive in time")),
    }
}

/// A JSON answer that is small enough to be made in one piece.
fn success(data: serde_json::Value, warnings: &[String]) -> Response {
    success_text(&data.to_string(), warnings)
}

/// The same with data that are JSON already.
fn success_text(data: &str, warnings: &[String]) -> Response {
    // By hand for the order of the keys, which people read.
    let warnings = match warnings {
        [] => String::new(),
        texts => format!(r#","warnings":{}"#, serde_json::json!(texts)),
    };
    let body = format!(r#"{{"status":"success","data":{data}{warnings}}}"#);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
