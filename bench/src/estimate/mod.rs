//! Estimates against the truth: series, samples and memory, the cost of probes, and their number.

mod corpus;
mod parts;
mod picture;
mod shapes;
mod tables;

use crate::client::{Client, Request};
use crate::data::{Data, times};
use crate::incident::target::{Seed, Target};
use crate::process::{Scratch, Service};
use crate::report::{finish, path};
use crate::targets::{metric, weir_with_admin};
use crate::{Options, Result};
use corpus::Case;
use parts::{Dashboard, Memory, Refused};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(120);
/// Weir fetches the label table as it starts; after this it has it.
const SETTLE: Duration = Duration::from_secs(2);
const TARGETS: &str = "prometheus,victoriametrics,weir-node";

/// How Weir was configured and asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A limit that everything exceeds, watched but not enforced: each selector is in doubt.
    InDoubt,
    /// The limits as they come, each query for the first time.
    First,
    /// The same queries once more.
    Again,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::InDoubt => "all in doubt",
            Self::First => "default limits, first time",
            Self::Again => "default limits, again",
        }
    }
}

/// One estimate beside the truth.
#[derive(Debug)]
struct Seen {
    mode: Mode,
    form: &'static str,
    query: String,
    /// How the number of series is known, and from where, for all selectors of the query.
    class: String,
    sources: Vec<String>,
    /// Estimate and truth.
    series: [u64; 2],
    samples: [u64; 2],
    /// Milliseconds of its probes; zero when their answers were kept.
    probe_ms: f64,
    /// Milliseconds of the query itself, asked of the database.
    own_ms: Option<f64>,
}

impl Seen {
    fn probed(&self) -> bool {
        self.sources.iter().any(|source| source == "probe")
    }
}

/// All that was seen of one database.
#[derive(Debug)]
struct Report {
    target: Target,
    seen: Vec<Seen>,
    refused: Vec<Refused>,
    dashboard: Dashboard,
    /// The same with all of it in the head of the database.
    live: Option<Dashboard>,
    memory: Vec<Memory>,
}

/// A Weir before a database.
struct Before {
    port: u16,
    admin: u16,
    _weir: Service,
    _scratch: Scratch,
}

impl Before {
    fn start(options: &Options, target: Target, database: u16, limits: &str) -> Result<Self> {
        let text = format!(
            "backends: [{{name: main, kind: {}, urls: [\"http://127.0.0.1:{database}\"], budget: {{memory: 16GiB}}}}]
limits: {{default: {{rate: {{queries: unlimited}}, {limits}}}}}\n",
            target.kind()
        );
        let scratch = Scratch::new()?;
        let (weir, admin) = weir_with_admin(&scratch, options, &text)?;
        std::thread::sleep(SETTLE);
        Ok(Self { port: weir.port, admin, _weir: weir, _scratch: scratch })
    }

    /// The same before anything by the name of its kind; every selector is counted, and nothing is refused.
    fn counting(options: &Options, kind: &str, database: u16) -> Result<Self> {
        let text = format!(
            "backends: [{{name: main, kind: {kind}, urls: [\"http://127.0.0.1:{database}\"], scrape_interval: 15s, budget: {{memory: 64GiB, split_above: 100%}}}}]
limits: {{default: {{rate: {{queries: unlimited}}, modes: {{samples: shadow}}, per_query: {{series: unlimited, blocks: unlimited, samples: 1, points: unlimited, memory: unlimited, range: unlimited, steps: unlimited, selectors: unlimited}}}}}}\n"
        );
        let scratch = Scratch::new()?;
        let (weir, admin) = weir_with_admin(&scratch, options, &text)?;
        std::thread::sleep(SETTLE);
        Ok(Self { port: weir.port, admin, _weir: weir, _scratch: scratch })
    }

    /// The sum of one of Weir's own metrics.
    fn metric(&self, name: &str) -> Result<f64> {
        Ok(metric(self.admin, "/metrics", name)?.unwrap_or(0.0))
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(count) = options.shapes {
        return shapes::run(options, count);
    }
    let targets = options.target.as_deref().unwrap_or(TARGETS).split(',').map(Target::parse);
    let targets: Vec<Target> = targets.collect::<Result<_>>()?;
    targets.iter().try_for_each(|target| target.need())?;
    let data = Data::get(&options.data)?;
    for target in targets {
        let seed = target.seed(options, &data)?;
        let report = measure(options, target, &seed, data.end)?;
        write(options, &report)?;
    }
    Ok(())
}

fn measure(options: &Options, target: Target, source: &Seed<'_>, end: u64) -> Result<Report> {
    let scratch = Scratch::new()?;
    let database = target.start(&scratch, options, source)?;
    let cases = corpus::cases(end);
    let truths = cases.iter().map(|case| truth(database.port, case, end)).collect::<Result<Vec<_>>>()?;
    let mut seen = Vec::new();
    {
        let before = Before::start(
            options,
            target,
            database.port,
            "modes: {samples: shadow}, per_query: {samples: 1}",
        )?;
        for (case, truth) in cases.iter().zip(&truths) {
            let mut one = estimate(&before, case, *truth, Mode::InDoubt)?;
            one.own_ms = ask(database.port, case)?;
            seen.push(one);
        }
    }
    {
        let before = Before::start(options, target, database.port, "queue: {wait: 10s}")?;
        for mode in [Mode::First, Mode::Again] {
            for (case, truth) in cases.iter().zip(&truths) {
                seen.push(estimate(&before, case, *truth, mode)?);
            }
        }
        // The queries are the same in each mode, in the same order.
        for n in cases.len()..seen.len() {
            seen[n].own_ms = seen[n % cases.len()].own_ms;
        }
    }
    let refused = parts::refusals(options, target, &database, end)?;
    let dashboard = parts::dashboard(options, target, &database, end)?;
    drop(database);
    let live = (target == Target::Prometheus).then(|| parts::live_dashboard(options, end)).transpose()?;
    let memory = parts::memory(options, target, source, end)?;
    Ok(Report { target, seen, refused, dashboard, live, memory })
}

/// Series and samples that the windows of a case hold, by the database's own count.
fn truth(database: u16, case: &Case, end: u64) -> Result<[u64; 2]> {
    let mut series = 0;
    for &(from, to) in &case.windows {
        let query = format!("count(last_over_time({}[{}s]))", case.selector, to - from);
        let parameters = [("query", query.as_str()), ("time", &to.to_string()), ("nocache", "1")];
        let request = Request::get("/api/v1/query", &parameters, "bench");
        let (answer, body) = Client::new(database, TIMEOUT).page(&request)?;
        if answer.status != 200 {
            return Err(format!("{query}: {}", String::from_utf8_lossy(&body)).into());
        }
        let json: Value = serde_json::from_slice(&body)?;
        let count = json["data"]["result"][0]["value"][1].as_str().map_or(Ok(0), str::parse::<u64>)?;
        // The same selector again finds the same series.
        series = series.max(count);
    }
    // Every series of the data has a sample at each of its times; samples of two windows are counted once.
    let within = |time: &u64| case.windows.iter().any(|(from, to)| (from..=to).contains(&time));
    Ok([series, series * times(end).filter(within).count() as u64])
}

fn estimate(before: &Before, case: &Case, truth: [u64; 2], mode: Mode) -> Result<Seen> {
    let path = if case.instant() { "/api/v1/query_cost" } else { "/api/v1/query_range_cost" };
    let probed = before.metric("weir_probe_seconds_sum")?;
    let (answer, body) = Client::new(before.port, TIMEOUT).page(&request(path, case))?;
    let probe_ms = (before.metric("weir_probe_seconds_sum")? - probed) * 1e3;
    if answer.status != 200 {
        return Err(format!("{}: {}", case.query, String::from_utf8_lossy(&body)).into());
    }
    let json: Value = serde_json::from_slice(&body)?;
    let (estimate, selectors) = (&json["data"]["estimate"], &json["data"]["selectors"]);
    let number = |name: &str| estimate[name].as_u64().unwrap_or(u64::MAX);
    let sources = selectors.as_array().into_iter().flatten().filter_map(|s| s["source"].as_str());
    Ok(Seen {
        mode,
        form: case.form.what,
        query: case.query.clone(),
        class: estimate["class"].as_str().unwrap_or("?").to_owned(),
        sources: sources.map(str::to_owned).collect(),
        series: [number("seriesTouched"), truth[0]],
        samples: [number("samplesScanned"), truth[1]],
        probe_ms,
        own_ms: None,
    })
}

fn request(path: &str, case: &Case) -> Request {
    let parameters = case.parameters();
    let mut parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
    // VictoriaMetrics is not to answer from its cache; the others do not mind.
    parameters.push(("nocache", "1"));
    Request::get(path, &parameters, "bench")
}

/// Milliseconds of the query itself; `None` if the database cannot answer it.
fn ask(database: u16, case: &Case) -> Result<Option<f64>> {
    let path = if case.instant() { "/api/v1/query" } else { "/api/v1/query_range" };
    let begin = Instant::now();
    let answer = Client::new(database, TIMEOUT).get(&request(path, case))?;
    Ok((answer.status == 200).then(|| begin.elapsed().as_secs_f64() * 1e3))
}

fn write(options: &Options, report: &Report) -> Result<()> {
    let name = format!("estimate-{}", report.target.name());
    picture::draw(&path(options, &format!("{name}.svg"))?, report)?;
    let seen: Vec<Value> = report.seen.iter().map(Seen::to_json).collect();
    let quantiles = tables::quantiles(report);
    let (asked, cost) = (tables::asked(report), tables::cost(report));
    let parts = [tables::memory(report), tables::refused(report), tables::dashboard(report)];
    let tables = [&quantiles, &asked, &cost, &parts[0], &parts[1], &parts[2]];
    let result = json!({
        "target": report.target.name(),
        "queries": report.seen.iter().filter(|s| s.mode == Mode::InDoubt).count(),
        "summary": tables::summary(report), "seen": seen,
        "memory": report.memory.iter().map(Memory::to_json).collect::<Vec<_>>(),
        "refused": report.refused.iter().map(Refused::to_json).collect::<Vec<_>>(),
        "dashboard": report.dashboard.to_json(),
        "live_dashboard": report.live.as_ref().map(Dashboard::to_json),
    });
    finish(&name, options, &["weir", report.target.program()], &tables, &tables::bars(report), &result)
}

impl Seen {
    fn to_json(&self) -> Value {
        json!({
            "mode": self.mode.name(), "form": self.form, "query": self.query, "class": self.class,
            "sources": self.sources, "series": self.series, "samples": self.samples, "probe_ms": self.probe_ms,
            "own_ms": self.own_ms,
        })
    }
}
