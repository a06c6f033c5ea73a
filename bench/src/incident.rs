//! The incident: heavy queries of one tenant on a Prometheus that is killed at its memory limit, beside the light
//! queries of others; alone, behind a cap on concurrency, and behind Weir.

use crate::client::{Client, Request};
use crate::data::Data;
use crate::pace::{Pace, Sample, answered, failed};
use crate::process::{Scratch, Service, need, rss};
use crate::report::{Table, finish, mib, path, quantile};
use crate::targets::{haproxy, prometheus, vmauth, weir};
use crate::{Options, Result, chart};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(10);
const TAIL: Duration = Duration::from_secs(5);
/// A burst that is not over by then is broken off.
const HEAVY_TIMEOUT: Duration = Duration::from_secs(120);
const HEAVY: u32 = 20;
/// Of the guards that cap concurrency.
const SLOTS: u32 = 4;
/// All 20,000 series, by name: what matches everything (`.+`) Weir refuses without a look.
const ALL: &str = r#"{__name__=~"c.*|g.*|h.*|m.*|r.*"}"#;
const LIGHT: [&str; 5] = [
    r#"http_requests_total{job="api",instance="10.0.0.1:9100"}"#,
    "sum by(job)(http_requests_total)",
    r#"sum(rate(c01_total{job="db"}[5m]))"#,
    r#"max(mem_usage{instance="10.0.0.3:9100"})"#,
    "topk(5,g01_level)",
];

/// How one heavy query ended.
#[derive(Debug)]
struct Heavy {
    raw: bool,
    /// Zero without an answer.
    status: u16,
    /// Which of Weir's limits refused it.
    limit: Option<String>,
    ms: f64,
}

/// Times in seconds, and bytes.
type Memory = Vec<(f64, u64)>;

/// What one run showed. Times are in seconds since its start.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) guard: String,
    pub(crate) rss: Memory,
    pub(crate) died: Option<f64>,
    pub(crate) light: Vec<Sample>,
    heavy: Vec<Heavy>,
    /// When the burst began and ended.
    pub(crate) burst: (f64, f64),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["prometheus", "promtool"])?;
    let data = Data::get(&options.data)?;
    let mut runs = Vec::new();
    for guard in &options.guards {
        runs.push(replay(guard, options, &data)?);
        eprintln!("{guard}: done");
    }
    chart::draw(&path(options, "incident.svg")?, &runs, options.limit_mib << 20)?;
    report(options, &runs)
}

fn replay(guard: &str, options: &Options, data: &Data) -> Result<Run> {
    let scratch = Scratch::new()?;
    let mut database = prometheus(&scratch, data, &[])?;
    // Kept alive until the end of the run.
    let guard_service = match guard {
        "none" => None,
        "vmauth" => {
            need(&["vmauth"])?;
            Some(vmauth(&scratch, database.port, Some(SLOTS))?)
        }
        "haproxy" => {
            need(&["haproxy"])?;
            Some(haproxy(&scratch, database.port, SLOTS)?)
        }
        "weir" => Some(weir(&scratch, options, &weir_config(database.port, options.limit_mib))?),
        other => return Err(format!("no such guard: {other}").into()),
    };
    let port = guard_service.as_ref().map_or(database.port, |service| service.port);
    for n in 0..40 {
        Client::new(port, Duration::from_secs(10)).get(&light(n, u64::from(n), data.end))?;
    }

    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let pace = Pace { port, rate: 40.0, connections: 40, timeout: Duration::from_secs(10) };
    let (limit, end) = (options.limit_mib << 20, data.end);
    std::thread::scope(|scope| {
        let steady = scope.spawn(|| pace.run(start, &stop, |connection, turn| light(connection, turn, end)));
        let watch = scope.spawn(|| watch(&mut database, limit, start, &stop));
        std::thread::sleep(QUIET);
        let begin = start.elapsed().as_secs_f64();
        let burst: Vec<_> = (0..HEAVY).map(|n| scope.spawn(move || heavy(n, port, end))).collect();
        let heavy = burst.into_iter().filter_map(|query| query.join().ok()).collect();
        let burst = (begin, start.elapsed().as_secs_f64());
        std::thread::sleep(TAIL);
        stop.store(true, Ordering::Relaxed);
        let light = steady.join().unwrap_or_default();
        let (rss, died) = watch.join().map_err(|_| "the watcher panicked")??;
        Ok(Run { guard: guard.to_owned(), rss, died, light, heavy, burst })
    })
}

/// A budget of two thirds of the limit: the rest is for the process itself and for what its collector lags behind.
fn weir_config(upstream: u16, limit_mib: u64) -> String {
    let budget = limit_mib * 2 / 3;
    let query = limit_mib * 3 / 5;
    format!(
        "backends:
- name: main
  urls: [\"http://127.0.0.1:{upstream}\"]
  budget: {{memory: {budget}MiB, queries: 20}}
  pressure: {{memory_limit: {limit_mib}MiB}}
classes: []
limits:
  default:
    per_query: {{memory: {query}MiB}}
    in_flight: {{memory: {query}MiB}}
    queue: {{wait: 90s}}\n"
    )
}

/// The light query of a connection and its turn, at times that move as a dashboard's do.
fn light(connection: u32, turn: u64, end: u64) -> Request {
    let query = LIGHT[(connection as usize + turn as usize) % LIGHT.len()];
    let time = (end - 60 - turn % 100 * INTERVAL).to_string();
    Request::get("/api/v1/query", &[("query", query), ("time", &time)], &format!("good-{}", connection % 4))
}

const INTERVAL: u64 = 15;

/// Every other heavy query returns all series as they are; the others sum them up.
fn heavy(n: u32, port: u16, end: u64) -> Heavy {
    let raw = n % 2 == 1;
    let query = if raw { ALL.to_owned() } else { format!("sum by(job)({ALL})") };
    let (from, to) = ((end - 6 * 3600).to_string(), end.to_string());
    let parameters = [("query", query.as_str()), ("start", &from), ("end", &to), ("step", "15")];
    let begin = Instant::now();
    let answer =
        Client::new(port, HEAVY_TIMEOUT).get(&Request::get("/api/v1/query_range", &parameters, "noisy"));
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    let limit = answer
        .as_ref()
        .ok()
        .and_then(|a| a.header("weir-limit"))
        .map(|l| l.split(';').next().unwrap_or(l).to_owned());
    Heavy { raw, status: answer.map_or(0, |a| a.status), limit, ms }
}

/// Samples the resident set every 10 ms, and kills the process above the limit; then says when.
fn watch(
    target: &mut Service,
    limit: u64,
    start: Instant,
    stop: &AtomicBool,
) -> Result<(Memory, Option<f64>)> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let now = start.elapsed().as_secs_f64();
        match rss(target.pid()) {
            Some(bytes) => {
                samples.push((now, bytes));
                if bytes > limit {
                    target.kill()?;
                    return Ok((samples, Some(now)));
                }
            }
            None => return Ok((samples, Some(now))),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((samples, None))
}

fn report(options: &Options, runs: &[Run]) -> Result<()> {
    let mut database = Table::new(&[
        "guard",
        "Prometheus",
        "RSS idle → peak MiB",
        "heavy: answered",
        "refused by a limit",
        "failed",
        "answered per minute",
    ]);
    let mut lights = Table::new(&[
        "guard",
        "light p50 / p99 ms, quiet",
        "in the burst",
        "failed, quiet",
        "in the burst",
        "answered/s, quiet",
        "in the burst",
    ]);
    for run in runs {
        let died = run.died.map(|at| format!("killed {:.1} s into the burst", at - run.burst.0));
        let idle = run.rss.first().map_or(0, |s| s.1);
        let answered_heavy = count(run, |h| h.status == 200);
        let refused = count(run, refused);
        database.row([
            run.guard.clone(),
            died.unwrap_or_else(|| "survives".to_owned()),
            format!("{} → {}", mib(idle), mib(peak(run))),
            format!("{answered_heavy} of {}", run.heavy.len()),
            reasons(run),
            (run.heavy.len() - answered_heavy - refused).to_string(),
            format!("{:.1}", answered_heavy as f64 * 60.0 / (run.burst.1 - run.burst.0)),
        ]);
        let [(quiet, quiet_span), (loud, loud_span)] = phases(run);
        let times = |part: &[Sample]| {
            let ms = answered(part);
            format!("{:.1} / {:.1}", quantile(&ms, 0.5), quantile(&ms, 0.99))
        };
        let rate = |part: &[Sample], span: f64| format!("{:.1}", answered(part).len() as f64 / span);
        let bad = |part: &[Sample]| format!("{} of {}", failed(part), part.len());
        lights.row([
            run.guard.clone(),
            times(&quiet),
            times(&loud),
            bad(&quiet),
            bad(&loud),
            rate(&quiet, quiet_span),
            rate(&loud, loud_span),
        ]);
    }
    let result: Vec<Value> = runs.iter().map(to_json).collect();
    let result = json!({"limit_mib": options.limit_mib, "killed_by": "a watcher that samples RSS every 10 ms", "runs": result});
    let programs =
        ["vmauth", "haproxy"].into_iter().filter(|name| options.guards.iter().any(|guard| guard == name));
    let versions: Vec<&str> = ["weir", "prometheus"].into_iter().chain(programs).collect();
    finish("incident", options, &versions, &[&database, &lights], &result)
}

fn count(run: &Run, which: impl Fn(&Heavy) -> bool) -> usize {
    run.heavy.iter().filter(|h| which(h)).count()
}

/// Refused with a reason: by Weir's limits, or by a cap on concurrency.
fn refused(heavy: &Heavy) -> bool {
    heavy.limit.is_some() || heavy.status == 429
}

/// Refusals by limit, such as `10 (weir-max-memory)`.
fn reasons(run: &Run) -> String {
    let mut names: Vec<&str> =
        run.heavy.iter().filter(|h| refused(h)).map(|h| h.limit.as_deref().unwrap_or("429")).collect();
    names.sort_unstable();
    let total = names.len();
    names.dedup();
    if total == 0 { "0".to_owned() } else { format!("{total} ({})", names.join(", ")) }
}

fn peak(run: &Run) -> u64 {
    run.rss.iter().map(|s| s.1).max().unwrap_or(0)
}

/// Light queries before the burst, and those from its begin to the end of the run, each with its length in seconds.
fn phases(run: &Run) -> [(Vec<Sample>, f64); 2] {
    let (quiet, loud) = run.light.iter().copied().partition(|s| s.at < run.burst.0);
    [(quiet, run.burst.0), (loud, run.burst.1 - run.burst.0 + TAIL.as_secs_f64())]
}

fn to_json(run: &Run) -> Value {
    let [(quiet, _), (loud, _)] = phases(run);
    let light = |part: &[Sample]| {
        let ms = answered(part);
        json!({"requests": part.len(), "failed": failed(part), "p50_ms": quantile(&ms, 0.5), "p99_ms": quantile(&ms, 0.99)})
    };
    let heavy: Vec<Value> = run
        .heavy
        .iter()
        .map(|h| json!({"raw": h.raw, "status": h.status, "limit": h.limit, "ms": h.ms}))
        .collect();
    // Ten a second are enough to draw.
    let rss: Vec<Value> = run.rss.iter().step_by(10).map(|(at, bytes)| json!([at, bytes])).collect();
    json!({"guard": run.guard, "died_at": run.died, "burst": run.burst, "peak_rss": peak(run), "light_quiet": light(&quiet),
        "light_burst": light(&loud), "heavy": heavy, "rss": rss})
}
