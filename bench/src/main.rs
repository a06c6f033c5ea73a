//! Measures Weir beside its peers on one machine, everything on the loopback and bounded in time.

mod client;
mod compare;
mod connections;
mod data;
mod estimate;
// The product's own reader of dashboards and rules; all of the product would take minutes to compile.
#[path = "../../src/expressions/mod.rs"]
#[allow(
    unreachable_pub,
    clippy::struct_field_names,
    dead_code,
    reason = "a module of the product, whose lints are its own"
)]
mod expressions;
mod fairness;
mod fleet;
mod floor;
mod hostile;
mod import;
mod incident;
mod node;
mod overhead;
mod pace;
mod page;
mod pool;
mod process;
mod relay;
mod remote;
mod report;
mod results;
mod soak;
mod stream;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const USAGE: &str = "\
Usage: weir-bench COMMAND [OPTIONS]

Commands:
  overhead   requests per second, CPU per request and added latency, beside nginx, haproxy, vmauth and a bare
             pass-through on hyper, the floor of any proxy that uses it
  page       CPU of the admin page with three viewers and of the journal at 1,000 queries a second, and answers of the
             admin address while the query address is saturated
  connections  memory of thousands of idle connections and of answers that nobody reads, and what comes back after
  stream     a 200 MB answer: rate and memory, one fast reader and 8 slow ones, beside vmauth
  fairness   20 tenants, and one abusive: shares, and the light queries of another
  fleet      the incident's burst before 2, 4 and 8 proxies with one budget, while their store and they themselves fail: the
             sum of what they run, light queries that fail, and heavy work beside that of one proxy
  hostile    texts that are dear to read, each in a loop beside a victim's small queries: their p99, and how long one text
             computes alone
  node       the storage node beside Prometheus and VictoriaMetrics: 16 queries on 20,000 series × 6 h, memory,
             bytes per sample, ingest rate
  pool       the node's private memory over idle, of its pool: every function and aggregation asked by 24 clients, at
             64, 128, 256 and 512 MiB, and the node in a control group of little more than that
  import     writes into the storage node and into VictoriaMetrics: the text format in three shapes, and remote write
  estimate   estimates beside the truth, for a corpus of queries: series, samples and memory, what asking costs
  incident   a burst of heavy queries on a database that is killed at its memory limit, with and without a guard
  soak       an hour of ordinary use and abuse of a Prometheus with rules: the longest wait of a query that fits, limits
             passed, light queries that fail, Weir's memory
  compare    --direct URL --weir URL FILES…: the expressions of dashboards and rule files, asked of a database and
             through Weir, as instant and as range queries: identical, different, refused
  report     prints the page docs/results.md from the files in --out

Options:
  --weir FILE      the binary to measure, a release build (target/release/weir, or $WEIR)
  --before FILE    overhead, stream: another binary, such as an earlier build, to be measured in the same run
  --out DIR        where JSON and SVG go (bench/results)
  --data DIR       incident, node, estimate: where generated data is kept between runs (bench/target/data)
  --rounds N       overhead, stream, node, page: interleaved rounds (3)
  --seconds N      overhead: length of one measurement (4); page: the same (10); fairness: of each part (15);
                   fleet: of a burst (45);
                   pool: of all expressions of one size (55)
  --pool-mib N     pool: this size alone, 64, 128, 256 or 512 (all)
  --target T       incident: prometheus (the default), victoriametrics, weir-node, weir-node:unbounded, m3, thanos,
                   thanos-store, cortex; estimate: some of the first three, with commas (all)
  --backend T      the same
  --guard A,B      incident: none, unbounded (a node whose pools are), haproxy, vmauth, weir
                   (none,haproxy,weir); haproxy:N and vmauth:N cap
                   concurrent queries at N (4), vmauth if it is newer than Debian 12's; lane:N caps those of the
                   burst's tenant alone, as if somebody had known it beforehand; weir:LIMIT sets one of
                   Weir's limits alone, and ablation stands for each alone and all together
  --burst B        incident: mixed (20 queries, half of them raw), sums (20 aggregations), many (200
                   smaller ones), selectorless, strings, at (what no selector shows), leaving (clients that do not
                   wait), slow (clients that do not read) (mixed); fleet: sums
                   or mixed (sums)
  --shapes N       estimate: N random queries of every construct, and hostile ones, beside the live heap that each takes;
                   --target prometheus (or --binary, another version of it) or victoriametrics
  --deadline SECONDS  estimate --shapes: the time that a query has; one that is late is not judged (120)
  --only TEXT      estimate --shapes: the queries alone that contain this text; fleet: the scenarios of these names, with
                   commas (all)
  --proxies N,M    fleet: sizes of fleets (2,4,8)
  --binary FILE    incident: the database of the targets m3 (m3dbnode), thanos, thanos-store and cortex
  --after N        incident: N seconds after the burst, the heaviest query that fits is asked eight times in a row
  --limit-mib N    incident: the database is killed above this resident set (2048)
  --wrong-estimate N  incident: the database says that its queries touch an N-th of the series that they do, and has no
                   label table that says better
  --go-limit N     incident: GOMEMLIMIT of Prometheus, percent of --limit-mib, as its newer versions set it themselves
  --minutes N      soak: its length (60); estimate --shapes: no query is asked after this (all are)
  --name NAME      incident: files are called incident-NAME (the target)

Every command prints Markdown. Needed beside cargo: apt-get install prometheus victoria-metrics nginx haproxy wrk redis-server";

/// A path below this package, wherever the command is given.
fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The command line.
#[derive(Debug)]
pub(crate) struct Options {
    weir: PathBuf,
    /// An earlier build of Weir.
    before: Option<PathBuf>,
    out: PathBuf,
    data: PathBuf,
    rounds: u32,
    seconds: Option<u32>,
    /// The only size of pool to measure.
    pool_mib: Option<u64>,
    minutes: Option<u32>,
    guards: Vec<String>,
    limit_mib: u64,
    target: Option<String>,
    binary: Option<PathBuf>,
    burst: Option<String>,
    /// Seconds after the burst at which heavy queries are asked once more, one after the other.
    after: Option<u64>,
    name: Option<String>,
    /// Random queries of every construct.
    shapes: Option<usize>,
    /// Of one query of these.
    deadline: Duration,
    /// Of these, those alone that contain this text; scenarios of a fleet by their names.
    only: Option<String>,
    /// Sizes of fleets.
    proxies: Vec<usize>,
    wrong_estimate: Option<u64>,
    go_limit_percent: Option<u64>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            weir: std::env::var_os("WEIR").map_or_else(|| here("../target/release/weir"), PathBuf::from),
            before: None,
            out: here("results"),
            data: here("target/data"),
            rounds: 3,
            seconds: None,
            pool_mib: None,
            minutes: None,
            guards: ["none", "haproxy", "weir"].map(String::from).to_vec(),
            limit_mib: 2048,
            target: None,
            binary: None,
            burst: None,
            after: None,
            name: None,
            shapes: None,
            deadline: Duration::from_secs(120),
            only: None,
            proxies: vec![2, 4, 8],
            wrong_estimate: None,
            go_limit_percent: None,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--weir" => options.weir = value.into(),
                "--before" => options.before = Some(value.into()),
                "--out" => options.out = value.into(),
                "--data" => options.data = value.into(),
                "--rounds" => options.rounds = value.parse::<u32>()?.clamp(1, 100),
                "--seconds" => options.seconds = Some(value.parse::<u32>()?.clamp(1, 600)),
                "--pool-mib" => options.pool_mib = Some(value.parse()?),
                "--minutes" => options.minutes = Some(value.parse::<u32>()?.clamp(1, 1_440)),
                "--guard" => options.guards = value.split(',').map(String::from).collect(),
                "--limit-mib" => options.limit_mib = value.parse()?,
                "--binary" => options.binary = Some(value.into()),
                "--target" | "--backend" => options.target = Some(value),
                "--after" => options.after = Some(value.parse::<u64>()?.clamp(1, 600)),
                "--burst" => options.burst = Some(value),
                "--wrong-estimate" => options.wrong_estimate = Some(value.parse::<u64>()?.clamp(1, 1000)),
                "--go-limit" => options.go_limit_percent = Some(value.parse::<u64>()?.clamp(1, 100)),
                "--deadline" => options.deadline = Duration::from_secs(value.parse::<u64>()?.max(1)),
                "--shapes" => options.shapes = Some(value.parse::<usize>()?.clamp(1, 100_000)),
                "--only" => options.only = Some(value),
                "--proxies" => {
                    options.proxies =
                        value.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
                }
                "--name" => options.name = Some(value),
                _ => return Err(format!("unknown option {flag}").into()),
            }
        }
        Ok(options)
    }

    /// Bytes from which on Prometheus' collector works harder.
    fn go_limit(&self) -> Option<u64> {
        self.go_limit_percent.map(|percent| (self.limit_mib << 20) / 100 * percent)
    }

    fn need_weir(&self) -> Result<()> {
        if self.weir.is_file() {
            return Ok(());
        }
        Err(format!("no Weir at {}; build one with: cargo build --release", self.weir.display()).into())
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    if command == "compare" {
        return compare::run(words);
    }
    // Started by `overhead` as a process of its own.
    if command == "floor" {
        return floor::run(words);
    }
    let run = match command.as_str() {
        "overhead" => overhead::run,
        "connections" => connections::run,
        "stream" => stream::run,
        "fairness" => fairness::run,
        "fleet" => fleet::run,
        "hostile" => hostile::run,
        "incident" => incident::run,
        "node" => node::run,
        "soak" => soak::run,
        "page" => page::run,
        "pool" => pool::run,
        "import" => import::run,
        "estimate" => estimate::run,
        "report" => results::run,
        _ => return Err(USAGE.into()),
    };
    let options = Options::parse(words)?;
    if command != "report" {
        options.need_weir()?;
    }
    run(&options)
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
