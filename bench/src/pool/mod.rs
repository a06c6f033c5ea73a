//! The node's pool as a bound: private memory over idle while every function and aggregation is asked by a crowd, and
//! the node inside a control group that allows little more than the pool.

mod group;
mod queries;

use crate::client::{Client, Request};
use crate::data::generated;
use crate::process::{Scratch, Service, free_port};
use crate::report::{Bar, Table, finish, mib};
use crate::{Options, Result, remote};
use group::Group;
use queries::{Case, How, cases};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CLIENTS: usize = 24;
const POOLS_MIB: [u64; 4] = [64, 128, 256, 512];
const TIMEOUT: Duration = Duration::from_secs(60);
/// Of a query, so that the last expression does not run on under the next ones.
const QUERY_TIMEOUT: &str = "5s";
/// Seconds over all expressions of a size, one after the other, and then again over all of them at once and in the
/// group.
const SECONDS: u32 = 55;
const MIXED: Duration = Duration::from_secs(10);
/// Samples of a series: three hours.
const SAMPLES: usize = 720;
const INTERVAL: u64 = 15;
/// Over idle, of the pool.
const FACTOR: f64 = 1.25;
/// Bytes that the group allows beside the pool and the idle node.
const BESIDE: u64 = 32 << 20;
/// `pool.idle`, and how long after the load memory is to be back.
const IDLE: &str = "5s";
const BACK: Duration = Duration::from_secs(15);

pub(crate) fn run(options: &Options) -> Result<()> {
    let (data, end) = seed(options)?;
    let cases = cases();
    let mut table = Table::new(&[
        "pool MiB",
        "idle MiB",
        "peak over idle MiB",
        "factor",
        "worst case",
        "15 s after MiB",
        "answered",
        "refused",
        "in its group",
    ]);
    let (mut bars, mut results) = (Vec::new(), Vec::new());
    for pool in POOLS_MIB.into_iter().filter(|pool| options.pool_mib.is_none_or(|only| only == *pool)) {
        let measured = measure(options, &data, end, pool << 20, &cases)?;
        let survived = in_group(options, &data, end, pool << 20, &cases, measured.idle)?;
        let factor = measured.over as f64 / (pool << 20) as f64;
        table.row([
            pool.to_string(),
            mib(measured.idle),
            mib(measured.over),
            format!("{factor:.2}"),
            short(&measured.worst),
            mib(measured.after),
            measured.answered.to_string(),
            measured.refused.to_string(),
            survived.clone(),
        ]);
        bars.push(Bar::at_most(format!("{pool} MiB: over idle, of the pool"), factor, FACTOR));
        bars.push(Bar::new(
            format!("{pool} MiB: lives in its group"),
            &survived,
            !survived.starts_with("killed"),
        ));
        results.push(json!({
            "pool_mib": pool, "idle": measured.idle, "over_idle": measured.over, "factor": factor,
            "after": measured.after, "worst": measured.worst, "answered": measured.answered,
            "refused": measured.refused, "group": survived, "cases": measured.cases,
        }));
    }
    let name = options.pool_mib.map_or_else(|| "pool".to_owned(), |pool| format!("pool-{pool}mib"));
    finish(&name, options, &["weir"], &[&table], &bars, &Value::Array(results))
}

fn short(query: &str) -> String {
    format!("`{}`", query.chars().take(60).collect::<String>().replace('|', "\\|"))
}

/// The folder of a node with 20,000 series over three hours, made once, and the second after the last sample.
fn seed(options: &Options) -> Result<(PathBuf, u64)> {
    let (folder, end_file) = (options.data.join("pool-node"), options.data.join("pool-end"));
    if let Ok(text) = fs::read_to_string(&end_file) {
        return Ok((folder, text.trim().parse()?));
    }
    fs::create_dir_all(&folder)?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / INTERVAL * INTERVAL;
    let times: Vec<u64> = (0..SAMPLES as u64).map(|n| end - (SAMPLES as u64 - n) * INTERVAL).collect();
    let mut series = generated()?;
    for one in &mut series {
        one.values.truncate(SAMPLES);
    }
    let scratch = Scratch::new()?;
    let node = node(options, &scratch, &folder, 1 << 30, None)?;
    for start in (0..SAMPLES).step_by(240) {
        let requests = remote::requests(remote::PROMETHEUS, &series, start..start + 240, &times)?;
        remote::send(node.port, &requests)?;
    }
    drop(node);
    fs::write(end_file, end.to_string())?;
    Ok((folder, end))
}

/// A node over a folder; inside a group from its first instruction on.
fn node(
    options: &Options,
    scratch: &Scratch,
    folder: &Path,
    pool: u64,
    group: Option<&Group>,
) -> Result<Service> {
    let port = free_port()?;
    let text = format!("listen: 127.0.0.1:{port}\npool: {{memory: {pool}, idle: {IDLE}, wait: 250ms}}\n");
    let config = scratch.write("node.yaml", &text)?;
    let mut start = match group {
        None => Command::new(&options.weir),
        Some(group) => {
            let mut shell = Command::new("sh");
            let enter = format!("echo $$ > {} && exec \"$0\" \"$@\"", group.processes().display());
            shell.arg("-c").arg(enter).arg(&options.weir);
            shell
        }
    };
    start.arg("node").arg("--config").arg(config).arg("--data").arg(folder);
    Service::start("node", port, scratch.dir(), start, &Request::get("/-/ready", &[], "bench"))
}

/// Memory that the process does not share, so that only it can give it back.
fn private(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    // Clean private pages are those of the program's file.
    Some(kib("Private_Dirty:")? << 10)
}

#[derive(Default)]
struct Measured {
    idle: u64,
    over: u64,
    worst: String,
    after: u64,
    answered: u64,
    refused: u64,
    cases: BTreeMap<String, u64>,
}

fn measure(options: &Options, data: &Path, end: u64, pool: u64, cases: &[Case]) -> Result<Measured> {
    let scratch = Scratch::new()?;
    let node = node(options, &scratch, data, pool, None)?;
    let mut out = Measured { idle: idle(&node)?, ..Measured::default() };
    let each = Duration::from_secs(u64::from(options.seconds.unwrap_or(SECONDS))) / cases.len() as u32;
    let load = load(&node, cases, end, each);
    (out.answered, out.refused) = (load.answered, load.refused);
    for (what, peak) in &load.peaks {
        let over = peak.saturating_sub(out.idle);
        out.cases.insert(what.clone(), over);
        if over > out.over {
            (out.over, out.worst) = (over, what.clone());
        }
    }
    std::thread::sleep(BACK);
    out.after = private(node.pid()).ok_or("the node is gone")?.saturating_sub(out.idle);
    Ok(out)
}

/// Private memory once the node has answered something and has settled.
fn idle(node: &Service) -> Result<u64> {
    let mut client = Client::new(node.port, TIMEOUT);
    client.get(&Request::get("/api/v1/query", &[("query", "1")], "bench"))?;
    std::thread::sleep(Duration::from_secs(8));
    Ok(private(node.pid()).ok_or("the node is gone")?)
}

struct Load {
    /// Of private memory, while each expression was asked.
    peaks: Vec<(String, u64)>,
    answered: u64,
    refused: u64,
}

/// A crowd that asks one case after the other, each for this time, and then all of them at once.
fn load(node: &Service, cases: &[Case], end: u64, each: Duration) -> Load {
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let current = AtomicUsize::new(0);
    let (answered, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let requests: Vec<Request> = cases.iter().map(|case| request(case, end)).collect();
    let mut peaks = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::new(node.port, TIMEOUT);
                while !stop.load(Relaxed) {
                    let any = next.fetch_add(1, Relaxed) * 7 % requests.len();
                    let request = requests.get(current.load(Relaxed)).unwrap_or(&requests[any]);
                    let counter = match client.get(request) {
                        Ok(answer) if answer.status == 200 => &answered,
                        Ok(_) => &refused,
                        // The node is gone, or closed the connection.
                        Err(_) => {
                            std::thread::sleep(Duration::from_millis(20));
                            &refused
                        }
                    };
                    counter.fetch_add(1, Relaxed);
                }
            });
        }
        for (number, case) in cases.iter().enumerate() {
            current.store(number, Relaxed);
            peaks.push((format!("{:?} {}", case.how, case.query), peak(node, each)));
        }
        current.store(usize::MAX, Relaxed);
        peaks.push(("all of them at once".to_owned(), peak(node, MIXED)));
        stop.store(true, Relaxed);
    });
    Load { peaks, answered: answered.load(Relaxed), refused: refused.load(Relaxed) }
}

/// Most private memory in the time from now on.
fn peak(node: &Service, time: Duration) -> u64 {
    let begin = Instant::now();
    let mut peak = 0;
    while begin.elapsed() < time {
        peak = peak.max(private(node.pid()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(25));
    }
    peak
}

fn request(case: &Case, end: u64) -> Request {
    let (now, start) = (end.to_string(), (end - 3_600).to_string());
    match case.how {
        How::Instant => {
            let parameters = [("query", case.query.as_str()), ("time", &now), ("timeout", QUERY_TIMEOUT)];
            Request::get("/api/v1/query", &parameters, "bench")
        }
        How::Range => {
            let parameters = [
                ("query", case.query.as_str()),
                ("start", &start),
                ("end", &now),
                ("step", "15"),
                ("timeout", QUERY_TIMEOUT),
            ];
            Request::get("/api/v1/query_range", &parameters, "bench")
        }
        How::List => {
            let parameters = [("match[]", r#"{__name__=~".+"}"#), ("start", &start), ("end", &now)];
            Request::get(&format!("/api/v1/{}", case.query), &parameters, "bench")
        }
    }
}

/// All cases at once against a node whose group allows little more than its pool; how it ended.
fn in_group(
    options: &Options,
    data: &Path,
    end: u64,
    pool: u64,
    cases: &[Case],
    idle: u64,
) -> Result<String> {
    let group = match Group::new() {
        Ok(group) => group,
        Err(why) => return Ok(format!("skipped: {why}")),
    };
    let limit = (pool as f64 * FACTOR) as u64 + idle + BESIDE;
    group.limit(limit)?;
    let scratch = Scratch::new()?;
    let node = match node(options, &scratch, data, pool, Some(&group)) {
        Ok(node) => node,
        Err(error) => return Ok(format!("killed at the start: {error}")),
    };
    let topk = Case { query: r#"topk(3000, {__name__=~".+"})"#.to_owned(), how: How::Range };
    for (cases, each) in [(std::slice::from_ref(&topk), MIXED), (cases, Duration::ZERO)] {
        load(&node, cases, end, each);
        if private(node.pid()).is_none_or(|bytes| bytes == 0) {
            return Ok(format!("killed at {} MiB", mib(limit)));
        }
    }
    Ok(format!("lives in {} MiB", mib(limit)))
}
