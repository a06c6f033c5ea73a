//! The node's status endpoints.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Node,
    answer::success,
    error::Failure,
    json,
    lent::{self, Lent},
    list::limit,
    query::{selectors, timeout},
    request::RequestParams,
};
use crate::{
    base::{ErrorKind, duration::text as duration},
    node::index::status_bytes,
};

/// Entries of a list of `status/tsdb` when the request names no limit; Prometheus' number.
const TOP: usize = 10;
/// Most entries of such a list; Prometheus' number.
const TOP_MAX: usize = 10_000;

pub(super) async fn build() -> Response {
    // The version is that of the API: clients switch on features by it.
    success(
        json!({
            "version": "3.7.0", "revision": concat!("weir-", env!("CARGO_PKG_VERSION")), "branch": "",
            "buildUser": "", "buildDate": "", "goVersion": "",
        }),
        &[],
    )
}

pub(super) async fn runtime(State(node): State<Arc<Node>>) -> Response {
    let started =
        jiff::Timestamp::from_millisecond(node.started_ms).map(|t| t.to_string()).unwrap_or_default();
    let retention = duration(Duration::from_millis(node.db.options().retention_ms));
    success(
        json!({
            "startTime": started, "CWD": "", "reloadConfigSuccess": true, "lastConfigTime": started,
            "corruptionCount": 0, "goroutineCount": 0, "GOMAXPROCS": node.settings().query_threads,
            "GOGC": "", "GODEBUG": "", "storageRetention": retention,
        }),
        &[],
    )
}

pub(super) async fn flags(State(node): State<Arc<Node>>) -> Response {
    let settings = node.settings();
    success(
        json!({
            "query.lookback-delta": duration(Duration::from_millis(settings.lookback_ms)),
            "query.timeout": duration(settings.timeout),
            "query.max-concurrency": settings.reads_running.to_string(),
            "query.max-samples": settings.limits.samples.to_string(),
            "storage.tsdb.retention.time": duration(Duration::from_millis(node.db.options().retention_ms)),
        }),
        &[],
    )
}

/// Whether the node takes writes; it answers queries in any case.
pub(super) async fn ready(State(node): State<Arc<Node>>) -> (StatusCode, String) {
    match node.db.refuses_writes() {
        None => (StatusCode::OK, "The node is ready.\n".to_owned()),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("The node is not ready: {error}.\n")),
    }
}

pub(super) async fn config() -> Response {
    success(json!({"yaml": ""}), &[])
}

/// The metadata of metrics, one description each.
pub(super) async fn metadata(
    State(node): State<Arc<Node>>,
    asked: RequestParams,
) -> Result<Response, Failure> {
    let params = asked.params()?;
    let limit = limit(&params)?.unwrap_or(usize::MAX);
    let ((), held) = lent::run(&node, &asked, timeout(&node, &params)?, |_| Ok(())).await?;
    let found = node.db.metadata(params.one("metric")?.filter(|metric| !metric.is_empty()));
    Ok(json::descriptions(found.take(limit), held))
}

pub(super) async fn tsdb(State(node): State<Arc<Node>>, asked: RequestParams) -> Result<Response, Failure> {
    let params = asked.params()?;
    let selectors = selectors(&node, &params)?;
    let top = limit(&params)?.unwrap_or(TOP);
    if top > TOP_MAX {
        return Err(Failure::new(ErrorKind::BadData, format!("limit must not exceed {TOP_MAX}")));
    }
    let db = Arc::clone(&node.db);
    let read = move |lent: &mut Lent<'_>| {
        lent.take(status_bytes(top) + 3 * db.set_bytes())?;
        let status = db.tsdb_status(&selectors, top)?;
        lent.keep_only(status_bytes(top));
        Ok(status)
    };
    let (status, held) = lent::run(&node, &asked, timeout(&node, &params)?, read).await?;
    // Nothing older is there, and all that is there is counted: the lists hold for every window from here on.
    let (oldest, newest) = (node.db.stats().oldest_ms, node.db.stats().newest_ms);
    let head = json!({
        "numSeries": status.series, "numLabelPairs": status.label_pairs, "chunkCount": 0,
        "minTime": oldest, "maxTime": newest,
    });
    let tables = [
        ("seriesCountByMetricName", status.series_by_metric),
        ("labelValueCountByLabelName", status.values_by_label),
        ("memoryInBytesByLabelName", status.bytes_by_label),
        ("seriesCountByLabelValuePair", status.series_by_pair),
    ];
    Ok(json::tables(format!(r#"{{"status":"success","data":{{"headStats":{head}"#), tables, held))
}

pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Result<Response, Failure> {
    let text = node.metrics_page().map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, crate::telemetry::metrics::CONTENT_TYPE)], text).into_response())
}
