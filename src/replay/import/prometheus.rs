//! Prometheus' query log: a line of JSON for each query. `step` is in whole seconds; it names no tenant and no
//! dashboard.

use std::net::IpAddr;

use serde::Deserialize;

use super::fields::{endpoint, time, times};
use crate::journal::{Actual, Record, Text};

#[derive(Deserialize)]
struct Line {
    #[serde(default, alias = "ts")]
    time: String,
    params: Params,
    #[serde(default)]
    stats: Stats,
    error: Option<String>,
    #[serde(default, rename = "httpRequest")]
    request: Option<Request>,
    #[serde(default, rename = "ruleGroup")]
    rules: Option<RuleGroup>,
}

#[derive(Deserialize)]
struct Params {
    query: String,
    start: String,
    end: String,
    step: f64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stats {
    timings: Timings,
    samples: Samples,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Timings {
    exec_total_time: Option<f64>,
    exec_queue_time: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Samples {
    samples_read: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Request {
    #[serde(rename = "clientIP")]
    client: String,
    path: String,
}

#[derive(Deserialize)]
struct RuleGroup {
    #[serde(default)]
    name: String,
}

pub(super) fn record(line: &str) -> Option<Record> {
    let line: Line = serde_json::from_str(line).ok()?;
    let Params { query, start, end, step } = line.params;
    let (start, end) = (time(&start)?, time(&end)?);
    let step_ms = (step.max(0.0) * 1e3).round() as u64;
    let seconds = |time: Option<f64>| time.map(|seconds| (seconds.max(0.0) * 1e3).round() as u64);
    let request = line.request.unwrap_or_default();
    let path = if line.rules.is_some() { "query" } else { &request.path };
    let took = seconds(line.stats.timings.exec_total_time);
    let logged = time(&line.time).unwrap_or(end);
    Some(Record {
        at_ms: logged.saturating_sub_unsigned(took.unwrap_or(0)),
        took_ms: took,
        wait_ms: seconds(line.stats.timings.exec_queue_time),
        endpoint: endpoint(path),
        rule: line.rules.map(|group| Text::from(group.name)).unwrap_or_default(),
        client: request.client.parse::<IpAddr>().ok(),
        query: query.into(),
        times: Some(times(start, end, step_ms)),
        outcome: if line.error.is_some() { "failed" } else { "complete" }.into(),
        actual: Actual { samples_read: line.stats.samples.samples_read, ..Actual::default() },
        ..Record::default()
    })
}
