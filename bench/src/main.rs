//! Measures Weir beside its peers on one machine, everything on the loopback and bounded in time.

mod client;
mod data;
mod fairness;
mod incident;
mod node;
mod overhead;
mod pace;
mod process;
mod remote;
mod report;
mod stream;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
Usage: weir-bench COMMAND [OPTIONS]

Commands:
  overhead   requests per second, CPU per request and added latency, beside nginx, haproxy and vmauth
  stream     a 200 MB answer: rate and memory, one fast reader and 8 slow ones, beside vmauth
  fairness   light queries of one tenant beside 200 heavy ones of another; shares of equal tenants
  node       the storage node beside Prometheus and VictoriaMetrics: 16 queries on 20,000 series × 6 h, memory,
             bytes per sample, ingest rate
  incident   a burst of heavy queries on a database that is killed at its memory limit, with and without a guard

Options:
  --weir FILE      the binary to measure, a release build (target/release/weir, or $WEIR)
  --out DIR        where JSON and SVG go (bench/results)
  --data DIR       incident, node: where generated data is kept between runs (bench/target/data)
  --rounds N       overhead, stream, node: interleaved rounds (3)
  --seconds N      overhead: length of one measurement (4); fairness: of each part (15)
  --target T       incident: prometheus (the default), victoriametrics, weir-node, weir-node:unbounded
  --guard A,B      incident: none, haproxy, vmauth, weir (none,haproxy,weir); haproxy:N and vmauth:N cap
                   concurrent queries at N (4), vmauth if it is newer than Debian 12's; weir:LIMIT sets one of
                   Weir's limits alone, and ablation stands for each alone and all together
  --burst B        incident: mixed (20 queries, half of them raw), sums (10 aggregations) (mixed)
  --limit-mib N    incident: the database is killed above this resident set (2048)
  --name NAME      incident: files are called incident-NAME (the target)

Every command prints Markdown. Needed beside cargo: apt-get install prometheus victoria-metrics nginx haproxy wrk";

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    weir: PathBuf,
    out: PathBuf,
    data: PathBuf,
    rounds: u32,
    seconds: Option<u32>,
    guards: Vec<String>,
    limit_mib: u64,
    target: String,
    burst: String,
    name: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            weir: std::env::var_os("WEIR").map_or_else(|| "target/release/weir".into(), PathBuf::from),
            out: "bench/results".into(),
            data: "bench/target/data".into(),
            rounds: 3,
            seconds: None,
            guards: ["none", "haproxy", "weir"].map(String::from).to_vec(),
            limit_mib: 2048,
            target: "prometheus".into(),
            burst: "mixed".into(),
            name: None,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--weir" => options.weir = value.into(),
                "--out" => options.out = value.into(),
                "--data" => options.data = value.into(),
                "--rounds" => options.rounds = value.parse::<u32>()?.clamp(1, 100),
                "--seconds" => options.seconds = Some(value.parse::<u32>()?.clamp(1, 120)),
                "--guard" => options.guards = value.split(',').map(String::from).collect(),
                "--limit-mib" => options.limit_mib = value.parse()?,
                "--target" => options.target = value,
                "--burst" => options.burst = value,
                "--name" => options.name = Some(value),
                _ => return Err(format!("unknown option {flag}").into()),
            }
        }
        if !options.weir.is_file() {
            return Err(format!(
                "no Weir at {}; build one with: cargo build --release",
                options.weir.display()
            )
            .into());
        }
        Ok(options)
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let run = match command.as_str() {
        "overhead" => overhead::run,
        "stream" => stream::run,
        "fairness" => fairness::run,
        "incident" => incident::run,
        "node" => node::run,
        _ => return Err(USAGE.into()),
    };
    run(&Options::parse(words)?)
}

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
