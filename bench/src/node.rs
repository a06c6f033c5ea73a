//! The storage node beside Prometheus and VictoriaMetrics: the same data, the same queries, the same run.

use crate::client::{Client, Request};
use crate::data::{Data, Series, generated, times};
use crate::process::{Scratch, Service, command, free_port, need, rss};
use crate::report::{Bar, Table, finish, mib, quantile, spread};
use crate::targets::prometheus;
use crate::{Options, Result, remote};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["node", "prometheus", "victoriametrics"];
const TIMEOUT: Duration = Duration::from_secs(120);
const HOUR: u64 = 3600;
/// Every series.
const ALL: &str = r#"{__name__=~".+",job!="self"}"#;
/// Samples of the data.
const SAMPLES: u64 = 20_000 * 1_440;
/// Samples of a series in the hour that the ingest is measured on.
const INGESTED: usize = 240;

/// A query: its name, its text, how many hours back its range begins and its step in seconds (0 and 0: instant).
struct Asked {
    what: &'static str,
    query: String,
    hours: u64,
    step: u64,
}

/// The queries of the table, in its order; the last three are heavy.
fn queries() -> Vec<Asked> {
    let one = |what, query: &str, hours, step| Asked { what, query: query.replace("ALL", ALL), hours, step };
    vec![
        one(
            "instant selector, 10 series",
            r#"http_requests_total{job="api",instance="10.0.0.1:9100"}"#,
            0,
            0,
        ),
        one("instant sum by rate, 500 series", "sum by(instance)(rate(http_requests_total[5m]))", 0, 0),
        one("selector, 100 series, 6h/60s", r#"http_requests_total{job="api"}"#, 6, 60),
        one("rate, 100 series, 1h/15s", r#"rate(http_requests_total{job="api"}[5m])"#, 1, 15),
        one("sum by rate, 500 series, 6h/60s", "sum by(job)(rate(http_requests_total[5m]))", 6, 60),
        one(
            "histogram_quantile, 500 buckets, 6h/60s",
            "histogram_quantile(0.99,sum by(le,job)(rate(req_dur_bucket[5m])))",
            6,
            60,
        ),
        one(
            "regex matchers, 2250 series, 6h/60s",
            r#"count by(job)({__name__=~"g0[1-9]_level",path=~"/p[0-4]"})"#,
            6,
            60,
        ),
        one("topk(10), 500 series, 6h/60s", "topk(10,mem_usage)", 6, 60),
        one("max_over_time[1h], 500 series, 6h/300s", "max_over_time(mem_usage[1h])", 6, 300),
        one(
            "subquery [30m:1m], 6h/300s",
            "max_over_time(sum(rate(http_requests_total[5m]))[30m:1m])",
            6,
            300,
        ),
        one(
            "join on()/group_left, 500+500, 1h/60s",
            "mem_usage * on(job,instance) group_left() sum by(job,instance)(rate(http_requests_total[5m]))",
            1,
            60,
        ),
        one("instant count, 20k series", "count(ALL)", 0, 0),
        one("absent, 6h/60s", "absent(nonexistent_metric)", 6, 60),
        one("HEAVY sum by(job), 20k, 6h/15s", "sum by(job)(ALL)", 6, 15),
        one("HEAVY sum by last_over_time[5m], 20k, 6h/60s", "sum by(job)(last_over_time(ALL[5m]))", 6, 60),
        one("HEAVY raw, 20k, 6h/300s", "ALL", 6, 300),
    ]
}

const HEAVY: usize = 3;

impl Asked {
    fn request(&self, end: u64) -> Request {
        let [end_text, start, step] = [end, end - self.hours * HOUR, self.step].map(|n| n.to_string());
        // VictoriaMetrics is not to answer from its cache; the others do not mind the parameter.
        if self.step == 0 {
            let parameters = [("query", self.query.as_str()), ("time", &end_text), ("nocache", "1")];
            return Request::get("/api/v1/query", &parameters, "bench");
        }
        let parameters = [
            ("query", self.query.as_str()),
            ("start", &start),
            ("end", &end_text),
            ("step", &step),
            ("nocache", "1"),
        ];
        Request::get("/api/v1/query_range", &parameters, "bench")
    }
}

/// The measurements of one query.
struct Row {
    what: &'static str,
    query: String,
    /// Milliseconds of each round, by database.
    ms: [Vec<f64>; 3],
    bytes: [u64; 3],
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["prometheus", "promtool", "victoria-metrics"])?;
    let data = Data::get(&options.data)?;
    let series = generated()?;
    let all: Vec<u64> = times(data.end).collect();
    let ingest = ingest(options, &series, &all)?;
    let scratch = Scratch::new()?;
    let disk = load(&scratch, options, &data, series, &all)?;
    let databases =
        [node(&scratch, options)?, prometheus(&scratch, &data, None)?, victoriametrics(&scratch)?];
    // Of fresh processes, before anything else is asked.
    let memory = memory(&databases, data.end)?;
    let rows = ask(&databases, options.rounds, data.end)?;
    report(options, &rows, &ingest, &disk, &memory)
}

/// Samples per second of remote write, and per second of processor time, by database.
fn ingest(options: &Options, series: &[Series], times: &[u64]) -> Result<Vec<(f64, f64)>> {
    let requests = remote::requests(remote::PROMETHEUS, series, times.len() - INGESTED..times.len(), times)?;
    let samples = (series.len() * INGESTED) as f64;
    NAMES
        .iter()
        .map(|name| {
            let scratch = Scratch::new()?;
            let service = match *name {
                "node" => node(&scratch, options)?,
                "victoriametrics" => victoriametrics(&scratch)?,
                _ => empty_prometheus(&scratch)?,
            };
            let before = service.cpu();
            let seconds = remote::send(service.port, &requests)?;
            // Postponed work of a database is part of the work.
            std::thread::sleep(Duration::from_secs(6));
            eprintln!("{name}: took {samples} samples in {seconds:.1} s");
            Ok((samples / seconds, samples / (service.cpu() - before)))
        })
        .collect()
}

/// Loads all of the data, ends the databases, and says how many bytes they keep on disk.
fn load(
    scratch: &Scratch,
    options: &Options,
    data: &Data,
    series: Vec<Series>,
    times: &[u64],
) -> Result<[u64; 3]> {
    let databases = [node(scratch, options)?, victoriametrics(scratch)?];
    for start in (0..times.len()).step_by(INGESTED) {
        let requests = remote::requests(remote::PROMETHEUS, &series, start..start + INGESTED, times)?;
        for database in &databases {
            remote::send(database.port, &requests)?;
        }
    }
    drop(series);
    for path in ["/internal/force_flush", "/internal/force_merge"] {
        Client::new(databases[1].port, TIMEOUT).get(&Request::get(path, &[], "bench"))?;
    }
    let dirs = NAMES.map(|name| scratch.dir().join(name));
    data.copy(&dirs[1])?;
    settle(&dirs)?;
    drop(databases);
    Ok([size(&dirs[0])?, size(&dirs[1])?, size(&dirs[2])?])
}

/// Waits until nothing is moved about in the folders any more.
fn settle(dirs: &[std::path::PathBuf]) -> Result<()> {
    let mut before = 0;
    for _ in 0..60 {
        let now = dirs.iter().map(|dir| size(dir)).sum::<Result<u64>>()?;
        if now == before {
            break;
        }
        before = now;
        std::thread::sleep(Duration::from_secs(5));
    }
    Ok(())
}

/// Bytes of all files in a folder; those that go away meanwhile do not count.
fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => sum += size(&path)?,
            Ok(meta) => sum += meta.len(),
            Err(_) => {}
        }
    }
    Ok(sum)
}

/// The node with its default configuration.
pub(crate) fn node(scratch: &Scratch, options: &Options) -> Result<Service> {
    let port = free_port()?;
    let config = scratch.write("node.yaml", &format!("listen: 127.0.0.1:{port}\n"))?;
    let mut start = Command::new(&options.weir);
    start.arg("node").arg("--config").arg(config).arg("--data").arg(scratch.dir().join("node"));
    Service::start("node", port, scratch.dir(), start, &Request::get("/-/ready", &[], "bench"))
}

pub(crate) fn victoriametrics(scratch: &Scratch) -> Result<Service> {
    let port = free_port()?;
    let mut start = command("victoria-metrics");
    start.arg(format!("-storageDataPath={}", scratch.dir().join("victoriametrics").display()));
    start.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg("-retentionPeriod=120");
    // Otherwise the newest 30 s are not shown.
    start.args(["-search.latencyOffset=0s", "-search.maxUniqueTimeseries=1000000"]);
    Service::start("victoriametrics", port, scratch.dir(), start, &Request::get("/health", &[], "bench"))
}

/// Prometheus that takes remote write.
fn empty_prometheus(scratch: &Scratch) -> Result<Service> {
    let port = free_port()?;
    let config = scratch.write("prometheus.yml", "global: {scrape_interval: 1h}\n")?;
    let mut start = command("prometheus");
    start.arg(format!("--config.file={}", config.display()));
    start.arg(format!("--storage.tsdb.path={}", scratch.dir().join("prometheus").display()));
    start.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--web.enable-remote-write-receiver");
    Service::start("prometheus", port, scratch.dir(), start, &Request::get("/-/ready", &[], "bench"))
}

/// Each query in rounds, the databases taking turns; the heavy ones in half of the rounds.
fn ask(databases: &[Service; 3], rounds: u32, end: u64) -> Result<Vec<Row>> {
    let all = queries();
    let heavy = all.len() - HEAVY;
    let mut rows = Vec::new();
    for (number, asked) in all.into_iter().enumerate() {
        let request = asked.request(end);
        let rounds = if number < heavy { rounds } else { rounds.div_ceil(2) };
        let mut row = Row { what: asked.what, query: asked.query, ms: Default::default(), bytes: [0; 3] };
        // The first round warms up and does not count.
        for round in 0..=rounds {
            for (database, (ms, bytes)) in databases.iter().zip(row.ms.iter_mut().zip(&mut row.bytes)) {
                let mut client = Client::new(database.port, TIMEOUT);
                let begin = Instant::now();
                let answer = client.get(&request)?;
                let took = begin.elapsed().as_secs_f64() * 1e3;
                if answer.status != 200 {
                    return Err(format!("{}: {} answers {}", row.query, database.name, answer.status).into());
                }
                *bytes = answer.bytes;
                if round > 0 {
                    ms.push(took);
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Resident bytes before, and at most during, the heavy aggregation, by database.
fn memory(databases: &[Service; 3], end: u64) -> Result<Vec<(u64, u64)>> {
    let all = queries();
    let Some(heavy) = all.iter().rev().nth(HEAVY - 1) else { return Ok(Vec::new()) };
    let request = heavy.request(end);
    databases
        .iter()
        .map(|database| {
            // The memory of the raw query is given back by then, as far as it is at all.
            std::thread::sleep(Duration::from_secs(3));
            let idle = rss(database.pid()).unwrap_or(0);
            let (peak, done) = (AtomicU64::new(idle), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        peak.fetch_max(rss(database.pid()).unwrap_or(0), Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
                let answer = Client::new(database.port, TIMEOUT).get(&request);
                done.store(true, Ordering::Relaxed);
                answer
            })?;
            Ok((idle, peak.into_inner()))
        })
        .collect()
}

fn report(
    options: &Options,
    rows: &[Row],
    ingest: &[(f64, f64)],
    disk: &[u64; 3],
    memory: &[(u64, u64)],
) -> Result<()> {
    let mut speed = Table::new(&[
        "query, ms: median (least-most)",
        "node",
        "Prometheus",
        "VictoriaMetrics",
        "Prometheus/node",
        "VictoriaMetrics/node",
        "bytes",
    ]);
    let mut won = [0; 3];
    for (number, row) in rows.iter().enumerate() {
        let medians = [0, 1, 2].map(|i| quantile(&row.ms[i], 0.5));
        for other in [1, 2] {
            won[other] += usize::from(medians[0] < medians[other]);
        }
        let bytes = row.bytes.map(|b| b.to_string()).join("/");
        speed.row(
            [format!("{} {}", number + 1, row.what)]
                .into_iter()
                .chain([0, 1, 2].map(|i| spread(&row.ms[i], 1)))
                .chain([1, 2].map(|i| format!("{:.2}", medians[i] / medians[0])))
                .chain([bytes]),
        );
    }
    speed.row([
        format!("faster than it, of {}", rows.len()),
        String::new(),
        won[1].to_string(),
        won[2].to_string(),
        String::new(),
        String::new(),
        String::new(),
    ]);
    let samples = SAMPLES as f64;
    let mut size = Table::new(&["", "node", "Prometheus", "VictoriaMetrics"]);
    let line = |name: &str, of: &dyn Fn(usize) -> String| [name.to_owned(), of(0), of(1), of(2)];
    size.row(line("bytes per sample on disk", &|i| format!("{:.2}", disk[i] as f64 / samples)));
    size.row(line("remote write, million samples/s", &|i| format!("{:.2}", ingest[i].0 / 1e6)));
    size.row(line("the same per second of processor time", &|i| format!("{:.2}", ingest[i].1 / 1e6)));
    size.row(line("RSS MiB before the heavy aggregation", &|i| mib(memory[i].0)));
    size.row(line("RSS MiB it adds at most", &|i| mib(memory[i].1 - memory[i].0)));
    let queries: Vec<Value> = rows
        .iter()
        .map(|row| json!({"what": row.what, "query": row.query, "ms": row.ms, "bytes": row.bytes}))
        .collect();
    let result = json!({
        "databases": NAMES, "queries": queries, "faster_than": {"prometheus": won[1], "victoriametrics": won[2]},
        "disk_bytes": disk, "samples": samples, "ingest_per_second": ingest.iter().map(|i| i.0).collect::<Vec<_>>(),
        "ingest_per_cpu_second": ingest.iter().map(|i| i.1).collect::<Vec<_>>(), "rss_idle_and_peak": memory,
    });
    let times = |other: usize| {
        let heavy = rows.iter().rev().take(HEAVY);
        let ratios: Vec<f64> = heavy.map(|r| quantile(&r.ms[other], 0.5) / quantile(&r.ms[0], 0.5)).collect();
        quantile(&ratios, 0.0)
    };
    let bars = [
        Bar::at_least("faster than Prometheus on all 16", won[1] as f64, 16.0),
        Bar::at_least("faster than VictoriaMetrics on 10", won[2] as f64, 10.0),
        Bar::at_least("heavy ones as fast as VictoriaMetrics: the least ratio", times(2), 1.0),
        Bar::at_most(
            "MiB that the heavy aggregation adds, under 64",
            (memory[0].1 - memory[0].0) as f64 / 1_048_576.0,
            64.0,
        ),
        Bar::at_least("remote write at Prometheus' rate: ratio", ingest[0].0 / ingest[1].0, 1.0),
        Bar::at_most("bytes per sample, as VictoriaMetrics: ratio", disk[0] as f64 / disk[2] as f64, 1.0),
    ];
    finish("node", options, &["weir", "prometheus", "victoria-metrics"], &[&speed, &size], &bars, &result)
}
