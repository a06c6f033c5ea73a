//! The cost of the operator's view: the page's event streams and the journal at 1,000 queries a second, and the answers of the
//! admin address while the query address is saturated.

use crate::client::{Client, Request};
use crate::pace::{Pace, failed};
use crate::process::{Scratch, Service, by_thread, command, need};
use crate::report::{Bar, Table, finish, quantile, spread};
use crate::targets::{open_weir, upstream, weir_with_admin};
use crate::{Options, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const RATE: f64 = 1_000.0;
const CONNECTIONS: u32 = 16;
/// Connections that saturate the query address.
const MANY: u32 = 64;
/// The views that are watched, one by each viewer.
const WATCHED: [&str; 3] = ["/", "/refused", "/"];
/// The answers of the admin address that are timed.
const ASKED: [&str; 5] = ["/-/healthy", "/", "/status.json", "/api/v1/admin/top", "/api/v1/admin/queries"];
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest that an answer of the admin address may take, milliseconds.
const LATENCY_MAX: f64 = 50.0;

/// A load: its Weir, and who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Alone,
    Watched,
    NoJournal,
}

impl Case {
    const ALL: [Self; 3] = [Self::Alone, Self::Watched, Self::NoJournal];

    const fn name(self) -> &'static str {
        match self {
            Self::Alone => "nobody watches",
            Self::Watched => "three viewers",
            Self::NoJournal => "journal off",
        }
    }

    const fn viewers(self) -> usize {
        if matches!(self, Self::Watched) { WATCHED.len() } else { 0 }
    }
}

/// CPU of the rounds of one case, percent of a core, one value a round.
#[derive(Debug, Default)]
struct Seen {
    all: Vec<f64>,
    admin: Vec<f64>,
    journal: Vec<f64>,
    per_request: Vec<f64>,
    errors: usize,
    streamed: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["nginx", "wrk"])?;
    let seconds = options.seconds.unwrap_or(10);
    let scratch = Scratch::new()?;
    let upstream = upstream(&scratch)?;
    let text = open_weir(upstream.port);
    let (weir, admin) = weir_with_admin(&scratch, options, &text)?;
    let off = Scratch::new()?;
    let (without, _) = weir_with_admin(&off, options, &format!("{text}journal: {{enabled: false}}\n"))?;
    let mut seen: BTreeMap<Case, Seen> = BTreeMap::new();
    for round in 0..options.rounds {
        for case in Case::ALL {
            let target = if case == Case::NoJournal { &without } else { &weir };
            measure(target, admin, case.viewers(), seconds, seen.entry(case).or_default())?;
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    let latencies = saturated(&weir, admin, seconds)?;
    report(options, &seen, &latencies)
}

/// A query of one of 50 dashboards of one of five tenants.
fn query(connection: u32, turn: u64) -> Request {
    let n = turn * u64::from(CONNECTIONS) + u64::from(connection);
    let text = format!("sum(rate(up{{instance=\"i{}\"}}[5m]))", n % 50);
    let request = Request::get(
        "/api/v1/query",
        &[("query", &text), ("time", "1700000000")],
        &format!("tenant-{}", n % 5),
    );
    let (dashboard, panel) = (format!("dashboard-{}", n % 50), format!("{}", n % 7));
    request.with("X-Dashboard-Uid", &dashboard).with("X-Panel-Id", &panel)
}

/// One steady load, and the CPU that Weir takes for it.
fn measure(target: &Service, admin: u16, viewers: usize, seconds: u32, seen: &mut Seen) -> Result<()> {
    let time = Duration::from_secs(u64::from(seconds));
    let pace =
        Pace { port: target.port, rate: RATE, connections: CONNECTIONS, timeout: Duration::from_secs(5) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| pace.run(Instant::now(), &stop, query));
        let watching: Vec<_> = WATCHED[..viewers]
            .iter()
            .map(|view| scope.spawn(move || watch(admin, view, time + Duration::from_secs(1))))
            .collect();
        // Connections, caches and the first views are made.
        std::thread::sleep(Duration::from_secs(1));
        let (before, began) = (by_thread(target.pid()), Instant::now());
        std::thread::sleep(time);
        let (after, took) = (by_thread(target.pid()), began.elapsed().as_secs_f64());
        stop.store(true, Relaxed);
        let samples = load.join().map_err(|_| "the load panicked")?;
        for viewer in watching {
            let bytes = viewer.join().map_err(|_| "a viewer panicked")?;
            if bytes == 0 {
                return Err("a view is not streamed".into());
            }
            seen.streamed += bytes;
        }
        let percent = |is: &dyn Fn(&str) -> bool| {
            let sum = |of: &BTreeMap<String, u64>| {
                of.iter().filter(|(name, _)| is(name)).map(|(_, ns)| *ns).sum::<u64>()
            };
            sum(&after).saturating_sub(sum(&before)) as f64 / took / 1e7
        };
        let all = percent(&|_| true);
        seen.all.push(all);
        seen.admin.push(percent(&|name| name == "admin"));
        seen.journal.push(percent(&|name| name == "journal"));
        seen.per_request.push(all * 1e4 / RATE);
        seen.errors += failed(&samples);
        Ok(())
    })
}

/// Bytes of a view's event stream in this time.
fn watch(admin: u16, view: &str, time: Duration) -> u64 {
    let mut bytes = 0;
    // It has no end: the time is over.
    let _ = Client::new(admin, time)
        .get_reading(&Request::get("/events", &[("view", view)], "bench"), |more| bytes += more.len() as u64);
    bytes
}

/// Milliseconds of the answers of the admin address, three viewers watching, while wrk asks as fast as it can.
fn saturated(target: &Service, admin: u16, seconds: u32) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let time = Duration::from_secs(u64::from(seconds));
    let mut wrk = command("wrk");
    wrk.args(["-t1".to_owned(), format!("-c{MANY}"), format!("-d{}s", seconds + 1)]);
    wrk.arg(format!("http://127.0.0.1:{}{}", target.port, crate::targets::SMALL));
    std::thread::scope(|scope| {
        let load = scope.spawn(move || wrk.output());
        for view in WATCHED {
            scope.spawn(move || watch(admin, view, time));
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut latencies: Vec<(&str, Vec<f64>)> = ASKED.map(|path| (path, Vec::new())).into();
        let (mut client, until) = (Client::new(admin, Duration::from_secs(5)), Instant::now() + time);
        while Instant::now() < until {
            for (path, ms) in &mut latencies {
                let began = Instant::now();
                let answer = client.get(&Request::get(path, &[], "bench"))?;
                if answer.status != 200 {
                    return Err(format!("{path} answers {}", answer.status).into());
                }
                ms.push(began.elapsed().as_secs_f64() * 1e3);
                std::thread::sleep(PAUSE);
            }
        }
        load.join().map_err(|_| "wrk panicked")??;
        Ok(latencies)
    })
}

fn report(
    options: &Options,
    seen: &BTreeMap<Case, Seen>,
    latencies: &[(&'static str, Vec<f64>)],
) -> Result<()> {
    let mut cpu = Table::new(&[
        "1,000 queries/s",
        "CPU, % of a core",
        "of it the admin thread",
        "of it the journal's",
        "CPU µs/request",
        "errors",
    ]);
    let mut results = Vec::new();
    for (case, seen) in seen {
        let columns = [(&seen.all, 1), (&seen.admin, 2), (&seen.journal, 2), (&seen.per_request, 1)];
        let cells = columns.map(|(values, decimals)| spread(values, decimals));
        cpu.row([case.name().to_owned()].into_iter().chain(cells).chain([seen.errors.to_string()]));
        results.push(json!({"case": case.name(), "cpu_percent": seen.all, "admin_percent": seen.admin,
            "journal_percent": seen.journal, "cpu_us_per_request": seen.per_request, "errors": seen.errors,
            "streamed_bytes": seen.streamed}));
    }
    let mut answers = Table::new(&["admin address, query address saturated", "p50 ms", "p99 ms", "max ms"]);
    for (path, ms) in latencies {
        let cells = [0.5, 0.99, 1.0].map(|share| format!("{:.1}", quantile(ms, share)));
        answers.row([(*path).to_owned()].into_iter().chain(cells));
        results.push(json!({"path": path, "ms": ms}));
    }
    let of = |case: Case, values: fn(&Seen) -> &Vec<f64>| {
        seen.get(&case).map_or(f64::NAN, |seen| quantile(values(seen), 0.5))
    };
    let viewers = of(Case::Watched, |seen| &seen.admin) - of(Case::Alone, |seen| &seen.admin);
    let journal = of(Case::Alone, |seen| &seen.per_request) - of(Case::NoJournal, |seen| &seen.per_request);
    let worst = latencies.iter().map(|(_, ms)| quantile(ms, 0.99)).fold(f64::NAN, f64::max);
    let bars = [
        Bar::at_most("three viewers cost less than 1 % of a core", viewers, 1.0),
        Bar::at_most("the journal costs at most 3 µs of CPU a query, its thread included", journal, 3.0),
        Bar::at_most("the admin address answers within 50 ms (p99, the slowest path)", worst, LATENCY_MAX),
    ];
    finish("page", options, &["weir", "nginx", "wrk"], &[&cpu, &answers], &bars, &json!(results))
}
