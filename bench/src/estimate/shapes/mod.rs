//! `estimate --shapes N`: the estimate of queries of every construct, hostile ones among them, beside the memory that
//! they take: the live heap of the database, and its own `peakSamples`.

mod data;
mod grammar;
mod hostile;
mod live;
mod report;
mod unusual;

use self::{
    data::Data,
    grammar::{Grammar, Schema},
    live::{Database, Measured, Start},
};
use super::Before;
use crate::client::{Client, Request};
use crate::process::{Scratch, command, free_port, need};
use crate::{Options, Result};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Points on a graph of two hours.
const POINTS: [u64; 6] = [1, 61, 241, 721, 1_441, 3_601];
const SPAN: u64 = 7_200;
/// Queries that are estimated at more are not run: they would end the database and the run.
const RUN_MAX: u64 = 1 << 30;
const SEED: u64 = 20_261_130;
/// Weir's own storage node as a target.
const NODE: &str = "weir-node";
/// Of its pool: far more than a query takes that is run.
const NODE_POOL: &str = "4GiB";

/// A query and its times.
#[derive(Debug, Clone)]
struct Case {
    query: String,
    /// Evaluations over the two hours; 1: an instant query.
    points: u64,
    /// One of the fixed queries that are meant to do harm.
    hostile: bool,
}

/// An estimate and the measurement.
#[derive(Debug)]
struct Seen {
    case: Case,
    estimated: u64,
    /// `None` where it was not run.
    measured: Option<Measured>,
}

impl Case {
    fn parameters(&self, end: u64) -> Vec<(&'static str, String)> {
        let query = ("query", self.query.clone());
        if self.points == 1 {
            return vec![query, ("time", end.to_string())];
        }
        let step = SPAN as f64 / (self.points - 1) as f64;
        vec![
            query,
            ("start", (end - SPAN).to_string()),
            ("end", end.to_string()),
            ("step", format!("{step:.3}")),
        ]
    }

    fn request(&self, end: u64, suffix: &str) -> Request {
        let path = if self.points == 1 { "/api/v1/query" } else { "/api/v1/query_range" };
        let mut parameters = self.parameters(end);
        parameters.push(("stats", "all".to_owned()));
        let parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
        Request::get(&format!("{path}{suffix}"), &parameters, "bench")
    }
}

/// Random queries of every construct, after the hostile and the unusual ones.
fn cases(schema: Schema, count: usize) -> Vec<Case> {
    let mut grammar = Grammar::new(SEED, schema);
    let mut rng = fastrand::Rng::with_seed(SEED);
    let random = std::iter::repeat_with(|| {
        let points = POINTS[rng.usize(0..POINTS.len())];
        // Ranges alone are instant queries.
        let query = if points == 1 && rng.u32(0..8) == 0 { grammar.windows() } else { grammar.query() };
        Case { query, points, hostile: false }
    });
    let has_natives = !schema.natives.is_empty();
    let fixed = [hostile::cases(has_natives), unusual::cases(has_natives, schema.newer)];
    fixed.into_iter().flatten().chain(random.take(count)).collect()
}

pub(super) fn run(options: &Options, count: usize) -> Result<()> {
    let target = options.target.as_deref().unwrap_or("prometheus");
    let data = Data::new()?;
    let mut scratch = Scratch::new()?;
    let mut database = start(options, target, &scratch, free_port()?)?;
    let histograms = data.load(database.service.port)?;
    let version = version(database.service.port);
    let newer = version.starts_with('3');
    let natives: &[&str] = if histograms && target == "prometheus" { &[data::NATIVE] } else { &[] };
    let mut seen = Vec::new();
    let kind = if target == NODE { "weir" } else { target };
    let before = Before::counting(options, kind, database.service.port)?;
    let asked = |case: &Case| options.only.as_ref().is_none_or(|text| case.query.contains(text));
    let (began, most) = (Instant::now(), options.minutes.map(|n| Duration::from_secs(u64::from(n) * 60)));
    for case in cases(Schema { natives, newer, ..data::SCHEMA }, count).into_iter().filter(asked) {
        if most.is_some_and(|most| began.elapsed() > most) {
            break;
        }
        // A query that takes more than the limit ends the database.
        if !database.is_alive() {
            let port = database.service.port;
            scratch = Scratch::new()?;
            database = start(options, target, &scratch, port)?;
            data.load(port)?;
        }
        let Some(estimated) = estimate(&before, &case, data.end)? else { continue };
        let runs = estimated <= RUN_MAX;
        let request = case.request(data.end, "");
        let measured = runs.then(|| database.ask(options, &request).unwrap_or_default());
        // One that goes on with a query that nobody waits for is started anew, as one that died.
        if measured.as_ref().is_some_and(|measured| measured.status == 0) {
            let _ = database.service.kill();
        }
        let one = Seen { case, estimated, measured };
        // A long run shows where it is.
        eprintln!("{} {}", seen.len(), one.row().join(" | "));
        seen.push(one);
    }
    report::write(options, target, &version, &seen)
}

/// The bytes that Weir expects; `None` for a query that it does not read.
fn estimate(before: &Before, case: &Case, end: u64) -> Result<Option<u64>> {
    let (answer, body) = Client::new(before.port, TIMEOUT).page(&case.request(end, "_cost"))?;
    if answer.status != 200 {
        return Ok(None);
    }
    let json: Value = serde_json::from_slice(&body)?;
    Ok(Some(json["data"]["estimate"]["memoryBytes"].as_u64().unwrap_or(u64::MAX)))
}

fn version(port: u16) -> String {
    let request = Request::get("/api/v1/status/buildinfo", &[], "bench");
    let page = Client::new(port, TIMEOUT).page(&request).map(|(_, body)| body).unwrap_or_default();
    let json: Value = serde_json::from_slice(&page).unwrap_or_default();
    json["data"]["version"].as_str().unwrap_or("?").to_owned()
}

/// An empty database that takes remote writes.
fn start(options: &Options, target: &str, scratch: &Scratch, port: u16) -> Result<Database> {
    let of = |program: &str| match &options.binary {
        Some(file) => Ok(Command::new(file)),
        None => need(&[program]).map(|()| command(program)),
    };
    let data = scratch.dir().join("data");
    match target {
        "prometheus" => {
            let config = scratch.write("prometheus.yml", "global: {scrape_interval: 15s}\n")?;
            let mut start = of("prometheus")?;
            start.arg(format!("--config.file={}", config.display()));
            start.arg(format!("--storage.tsdb.path={}", data.display()));
            start.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            start.args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=10y"]);
            start.arg("--enable-feature=native-histograms,promql-experimental-functions");
            let ready = Request::get("/-/ready", &[], "bench");
            Database::start("prometheus", port, scratch.dir(), start, &ready)
        }
        "victoriametrics" => {
            let mut start = of("victoria-metrics")?;
            start.arg(format!("-storageDataPath={}", data.display()));
            start.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg("-retentionPeriod=120");
            start.args(["-search.latencyOffset=0s", "-search.disableCache"]);
            let ready = Request::get("/health", &[], "bench");
            Database::start("victoriametrics", port, scratch.dir(), start, &ready)
        }
        NODE => {
            let text = format!("listen: 127.0.0.1:{port}\npool: {{memory: {NODE_POOL}}}\n");
            let config = scratch.write("node.yaml", &text)?;
            let program = options.binary.clone().unwrap_or_else(|| options.weir.clone());
            Database::node(Start { program, config, data }, port)
        }
        _ => Err(format!("no shapes for target {target}").into()),
    }
}
