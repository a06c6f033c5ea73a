//! Weir in front of a real VictoriaMetrics. Skipped, by name, where it is not installed.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    real::prometheus::{
        NO_RATE, QUERIES, before, browses, estimates_are_true, refuses_the_heavy, same_answers,
    },
    support::real::{Database, victoria_metrics},
};

/// Functions that PromQL does not have.
const METRICS_QL: [&str; 7] = [
    "rate(requests_0_total)",
    "sum(level_0) keep_metric_names",
    "level_0 default 3",
    "WITH (x = level_0) sum(x) by (job)",
    "median(level_1)",
    "range_avg(level_2)",
    "rollup_rate(requests_1_total[5m])",
];

#[tokio::test]
async fn answers_are_victoria_metrics_own_byte_for_byte() {
    let name = "answers_are_victoria_metrics_own_byte_for_byte";
    let Some((_alone, database)) = victoria_metrics(name).await else { return };
    let weir = before(database, "victoriametrics", NO_RATE).await;
    same_answers(database, &weir, &QUERIES).await;
    same_answers(database, &weir, &METRICS_QL).await;
}

#[tokio::test]
async fn victoria_metrics_series_are_estimated_within_two_percent() {
    let name = "victoria_metrics_series_are_estimated_within_two_percent";
    let Some((_alone, database)) = victoria_metrics(name).await else { return };
    // Its index knows days, and a series that lived today is one of the last ten minutes to it.
    estimates_are_true(database, "victoriametrics", false).await;
}

#[tokio::test]
async fn what_is_too_heavy_never_runs_on_victoria_metrics() {
    let name = "what_is_too_heavy_never_runs_on_victoria_metrics";
    let Some((_alone, database)) = victoria_metrics(name).await else { return };
    let weir = before(database, "victoriametrics", "limits: {default: {per_query: {series: 1_000}}}").await;
    let before = range_queries(database).await;
    refuses_the_heavy(database, &weir).await;
    assert_eq!(range_queries(database).await, before, "a refused query ran");
}

/// Range queries until now. VictoriaMetrics makes its page of metrics once a second, so that the page of the next second is the
/// first one that has all of them.
async fn range_queries(database: &Database) -> f64 {
    let second = async || database.own_metric("vm_app_uptime_seconds", &[]).await;
    let asked = second().await;
    while second().await == asked {
        sleep(Duration::from_millis(20)).await;
    }
    database.own_metric("vm_http_requests_total", &["path=\"/api/v1/query_range\""]).await
}

#[tokio::test]
async fn victoria_metrics_is_browsed_as_without_weir() {
    let name = "victoria_metrics_is_browsed_as_without_weir";
    let Some((_alone, database)) = victoria_metrics(name).await else { return };
    let weir = before(database, "victoriametrics", NO_RATE).await;
    let targets = [
        "/api/v1/labels?TIMES",
        "/api/v1/label/job/values?TIMES",
        "/api/v1/label/path/values?match[]=level_0&TIMES",
        "/api/v1/series?match[]=level_0&TIMES",
        "/api/v1/series?match[]=%7B__name__!=%22%22%7D&TIMES",
        "/api/v1/metadata",
        "/api/v1/status/buildinfo",
    ];
    browses(database, &weir, &targets).await;
}
