//! The other measurements of a database: memory of heavy queries, refusals, and a dashboard that reloads.

use super::{Before, TIMEOUT};
use crate::Options;
use crate::Result;
use crate::client::{Client, Request};
use crate::data::{generated, times};
use crate::incident::target::{Seed, Target};
use crate::process::{Scratch, Service, rss};
use crate::remote;
use crate::report::quantile;
use crate::targets::{self, metric};
use serde_json::{Value, json};
use std::time::Instant;

/// Every series, by name: a selector that matches everything is never asked about, and counts as too much.
const ALL: &str = r#"{__name__=~"c.*|g.*|h.*|m.*|r.*"}"#;
const SIX_HOURS: u64 = 6 * 3600 - 60;
const HOUR: u64 = 3600;
pub(super) const LOADS: u64 = 21;
/// Samples of a series that a live head holds: the last two and a half hours.
const LIVE: usize = 600;
/// Samples of a series in one request.
const LOADED: usize = 120;

/// A shape that is heavy on Prometheus, its step, and whether it sums up.
const HEAVY: [(&str, u64, bool); 4] = [
    ("sum by (job), 15 s steps", 15, true),
    ("raw, 15 s steps", 15, false),
    ("raw, 60 s steps", 60, false),
    ("raw, 300 s steps", 300, false),
];

const DASHBOARD: [&str; 15] = [
    r#"http_requests_total{job="api",instance="10.0.0.1:9100"}"#,
    "sum by(instance)(rate(http_requests_total[5m]))",
    r#"rate(http_requests_total{job="api"}[5m])"#,
    "sum by(job)(rate(http_requests_total[5m]))",
    "histogram_quantile(0.99,sum by(le,job)(rate(req_dur_bucket[5m])))",
    "topk(10,mem_usage)",
    r#"count by(job)({__name__=~"g0[1-9]_level",path=~"/p[0-4]"})"#,
    "avg by(job)(g01_level)",
    "max(g02_level)",
    "mem_usage*on(job,instance)group_left()sum by(job,instance)(rate(http_requests_total[5m]))",
    r#"sum(rate(c05_total{job="db"}[1m]))/sum(rate(c06_total{job="db"}[1m]))"#,
    "absent(nonexistent_metric)",
    r#"increase(c07_total{path="/p1"}[1h])"#,
    "max_over_time(mem_usage[1h])",
    "sum(c08_total) - sum(c08_total offset 1h)",
];

/// A heavy query on a fresh database.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) what: &'static str,
    pub(super) estimated: u64,
    /// The largest rise of the resident set.
    pub(super) rise: u64,
    /// The most that its pools lent, where it says.
    pub(super) lent: Option<u64>,
    pub(super) status: u16,
    pub(super) ms: f64,
    /// Milliseconds of its first probes, under the limits as they come.
    pub(super) probe_ms: f64,
}

impl Memory {
    /// Estimate over the memory lent, or else over the rise; `None` for a query that the database would not run.
    pub(super) fn ratio(&self) -> Option<f64> {
        (self.status == 200).then(|| self.estimated as f64 / self.lent.unwrap_or(self.rise) as f64)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"shape": self.what, "estimated_bytes": self.estimated, "rise_bytes": self.rise, "lent_bytes": self.lent,
            "status": self.status, "ms": self.ms, "probe_ms": self.probe_ms})
    }
}

fn range(query: &str, (start, end): (u64, u64), step: u64, path: &str) -> Request {
    let [start, end, step] = [start, end, step].map(|n| n.to_string());
    let parameters = [("query", query), ("start", &start), ("end", &end), ("step", &step), ("nocache", "1")];
    Request::get(path, &parameters, "bench")
}

/// Each shape on a database of its own: memory kept after an earlier query would hide the rise.
pub(super) fn memory(options: &Options, target: Target, seed: &Seed<'_>, end: u64) -> Result<Vec<Memory>> {
    HEAVY
        .iter()
        .map(|&(what, step, sums)| {
            let scratch = Scratch::new()?;
            let database = target.start(&scratch, options, seed)?;
            let query = if sums { format!("sum by(job)({ALL})") } else { ALL.to_owned() };
            let of = |path| range(&query, (end - SIX_HOURS, end), step, path);
            let probe_ms = first_probes(options, target, &database, &of("/api/v1/query_range_cost"))?;
            let limits =
                "modes: {series: off, samples: off, points: off, memory: off}, per_query: {samples: 1}";
            let before = Before::start(options, target, database.port, limits)?;
            let (_, body) = Client::new(before.port, TIMEOUT).page(&of("/api/v1/query_range_cost"))?;
            let json: Value = serde_json::from_slice(&body)?;
            let estimated = json["data"]["estimate"]["memoryBytes"].as_u64().unwrap_or(0);
            let (idle, begin) = (rss(database.pid()).unwrap_or(0), Instant::now());
            let answer = Client::new(database.port, TIMEOUT).get(&of("/api/v1/query_range"))?;
            let ms = begin.elapsed().as_secs_f64() * 1e3;
            let rise = database.peak_rss().saturating_sub(idle);
            let lent = metric(database.port, "/metrics", "weir_pool_peak_bytes")?.map(|bytes| bytes as u64);
            Ok(Memory { what, estimated, rise, lent, status: answer.status, ms, probe_ms })
        })
        .collect()
}

/// Milliseconds that the first probes of a query take, under the limits as they come.
fn first_probes(options: &Options, target: Target, database: &Service, query: &Request) -> Result<f64> {
    let before = Before::start(options, target, database.port, "queue: {wait: 10s}")?;
    Client::new(before.port, TIMEOUT).get(query)?;
    Ok(before.metric("weir_probe_seconds_sum")? * 1e3)
}

/// A query that is refused, and how soon.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) what: &'static str,
    pub(super) first_ms: f64,
    pub(super) warm_ms: Vec<f64>,
    /// All of them got 422.
    pub(super) all: bool,
    /// Range queries that the database ran meanwhile.
    pub(super) ran: f64,
}

impl Refused {
    pub(super) fn to_json(&self) -> Value {
        json!({"what": self.what, "first_ms": self.first_ms, "warm_ms": self.warm_ms, "all_refused": self.all,
            "ran": self.ran})
    }

    pub(super) fn warm(&self, share: f64) -> f64 {
        quantile(&self.warm_ms, share)
    }
}

pub(super) fn refusals(
    options: &Options,
    target: Target,
    database: &Service,
    end: u64,
) -> Result<Vec<Refused>> {
    const MONTH: u64 = 30 * 86_400;
    let before = Before::start(options, target, database.port, "per_query: {series: 10_000}")?;
    let everything = r#"sum by(job)({__name__=~".+",job!="self"})"#.to_owned();
    let queries = [
        ("all there is, 30 days", r#"{__name__=~".+"}"#.to_owned(), MONTH),
        ("20,000 series by name, 6 h", format!("sum by(job)({ALL})"), SIX_HOURS),
        ("all but one job, 6 h", everything, SIX_HOURS),
    ];
    let ran = || -> Result<f64> {
        let name = target.range_queries();
        Ok(metric(database.port, "/metrics", name)?.unwrap_or(0.0))
    };
    queries
        .into_iter()
        .map(|(what, query, seconds)| {
            let request =
                range(&query, (end - seconds, end), (seconds / 1000).max(15), "/api/v1/query_range");
            let before_ran = ran()?;
            let mut all = true;
            let mut ask = || -> Result<f64> {
                let begin = Instant::now();
                all &= Client::new(before.port, TIMEOUT).get(&request)?.status == 422;
                Ok(begin.elapsed().as_secs_f64() * 1e3)
            };
            let first_ms = ask()?;
            let warm_ms = (0..20).map(|_| ask()).collect::<Result<_>>()?;
            Ok(Refused { what, first_ms, warm_ms, all, ran: ran()? - before_ran })
        })
        .collect()
}

/// A dashboard of the last hour, loaded again and again, each time half a minute later.
#[derive(Debug)]
pub(super) struct Dashboard {
    /// Probes sent at the first load, and in all loads after it.
    pub(super) probes: [f64; 2],
    pub(super) queries: u64,
    /// Queries that waited for a probe.
    pub(super) waited: u64,
    pub(super) failed: u64,
    /// Milliseconds of all probes.
    pub(super) probe_ms: f64,
    /// Milliseconds of all queries, probes left out.
    pub(super) own_ms: f64,
}

impl Dashboard {
    /// The share of the probes in the queries' time, percent.
    pub(super) fn probe_percent(&self) -> f64 {
        self.probe_ms * 100.0 / self.own_ms
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"probes_first_load": self.probes[0], "probes_later": self.probes[1], "queries": self.queries,
            "waited_for_a_probe": self.waited, "failed": self.failed, "probe_ms": self.probe_ms, "own_ms": self.own_ms})
    }
}

/// The dashboard before a Prometheus that has the last three hours in its head, as one that scrapes does.
pub(super) fn live_dashboard(options: &Options, end: u64) -> Result<Dashboard> {
    let scratch = Scratch::new()?;
    let database = targets::empty_prometheus(&scratch, &["--web.enable-remote-write-receiver"])?;
    let (series, all) = (generated()?, times(end).collect::<Vec<_>>());
    for start in (all.len() - LIVE..all.len()).step_by(LOADED) {
        remote::send(
            database.port,
            &remote::requests(remote::PROMETHEUS, &series, start..start + LOADED, &all)?,
        )?;
    }
    dashboard(options, Target::Prometheus, &database, end)
}

pub(super) fn dashboard(
    options: &Options,
    target: Target,
    database: &Service,
    end: u64,
) -> Result<Dashboard> {
    let before = Before::start(options, target, database.port, "queue: {wait: 10s}")?;
    let sent = || before.metric("weir_probes_total");
    let mut dashboard =
        Dashboard { probes: [0.0; 2], queries: 0, waited: 0, failed: 0, probe_ms: 0.0, own_ms: 0.0 };
    for load in 0..LOADS {
        let now = end - (LOADS - load) * 30;
        for query in DASHBOARD {
            let before_sent = sent()?;
            let request = range(query, (now - HOUR, now), 60, "/api/v1/query_range");
            let begin = Instant::now();
            let status = Client::new(before.port, TIMEOUT).get(&request)?.status;
            dashboard.own_ms += begin.elapsed().as_secs_f64() * 1e3;
            let probes = sent()? - before_sent;
            dashboard.probes[usize::from(load > 0)] += probes;
            dashboard.queries += 1;
            dashboard.waited += u64::from(probes > 0.0);
            dashboard.failed += u64::from(status != 200);
        }
    }
    dashboard.probe_ms = before.metric("weir_probe_seconds_sum")? * 1e3;
    dashboard.own_ms -= dashboard.probe_ms;
    Ok(dashboard)
}
