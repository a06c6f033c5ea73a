//! Several proxies before one database that is killed at its memory limit: the incident's burst, while the store of their
//! leases and they themselves fail. An observer before the database sums what all of them run there.

mod observer;
mod proxies;
mod report;
mod scenario;
pub(crate) mod store;

use crate::data::Data;
use crate::incident::load::{Burst, Heavy, Query, light};
use crate::incident::target::{Seed, Target};
use crate::incident::watch::{self, Watched};
use crate::pace::{Pace, Sample};
use crate::process::{Scratch, Service, need};
use crate::{Options, Result};
use observer::{InFlight, Look, Observer, is_settled, looks};
use proxies::Fleet;
use scenario::{ALONE, Death, Scenario};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use store::Store;

/// Bytes at which the database is killed, and of which half is the budget of all proxies.
const LIMIT: u64 = 4 << 30;
const BUDGET: u64 = LIMIT / 2;
/// Four for each of eight proxies.
const QUERIES: u64 = 32;
/// Longest time of a query, its wait included: it decides how long the lease of a dead proxy lies idle.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The time from the death of a proxy until its lease is others', as the documents state it: that, 7 s, and 3 s.
const LEASE_OVER: Duration = Duration::from_secs(QUERY_TIMEOUT.as_secs() + 10);
const QUIET: Duration = Duration::from_secs(5);
/// The length of a burst that nobody sets.
const BURST: u32 = 45;
const LIGHT_TIMEOUT: Duration = Duration::from_secs(10);

/// The results of one scenario. Times are in seconds since its start.
#[derive(Debug)]
struct Run {
    scenario: &'static str,
    proxies: usize,
    /// Processes that want a core, averaged over a minute, at its end.
    load: f64,
    watched: Watched,
    light: Vec<Sample>,
    heavy: Vec<Heavy>,
    /// When the burst began, and its length.
    burst: (f64, f64),
    looks: Vec<(f64, Look)>,
    at_database: InFlight,
    /// Requests asked once more, since their proxy was killed.
    retried: u64,
    /// The lease of those that were killed, bytes, and the seconds until others used it; `None` if they never did.
    dead: Option<(f64, Option<f64>)>,
}

/// `split_above`: the share of the budget beyond which a query is sent in parts.
fn config(database: u16, proxies: usize, store: Option<&Store>, split_above: &str) -> String {
    let fleet = store.map_or_else(String::new, |store| {
        format!("fleet: {{replicas_max: {proxies}, store: \"{}\"}}\n", store.url())
    });
    let (budget, query) = (BUDGET >> 20, (BUDGET >> 20) / 5 * 4);
    let (limit, timeout) = (LIMIT >> 20, QUERY_TIMEOUT.as_secs());
    format!(
        "backends:
- name: main
  kind: prometheus
  urls: [\"http://127.0.0.1:{database}\"]
  budget: {{memory: {budget}MiB, queries: {QUERIES}, split_above: {split_above}}}
  pressure: {{memory_limit: {limit}MiB}}
{fleet}classes: []
limits:
  default:
    per_query: {{memory: {query}MiB, series: 50_000, timeout: {timeout}s, samples: 500M, points: 500M, response: unlimited}}
    in_flight: {{memory: {budget}MiB, queries: {QUERIES}}}
    rate: {{queries: 200/s}}
    queue: {{wait: 115s}}\n"
    )
}

/// The part of the budget that all proxies lease of, by the documents: nine tenths of all but the light lane.
fn pool(proxies: usize) -> u64 {
    let heavy = BUDGET - BUDGET / 32;
    heavy - heavy / 10 / proxies as u64 * proxies as u64
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["prometheus", "promtool", "redis-server"])?;
    let scenarios = Scenario::list(options.only.as_deref())?;
    let burst = Burst::parse(options.burst.as_deref().unwrap_or("sums"))?;
    let data = Data::get(&options.data)?;
    let mut runs = Vec::new();
    for proxies in &options.proxies {
        // Beside each size, since the machine may be busier at one time than at another.
        let one = (1, &ALONE);
        for (proxies, scenario) in
            std::iter::once(one).chain(scenarios.iter().map(|scenario| (*proxies, scenario)))
        {
            let run = replay(options, (proxies, scenario), burst, &data)?;
            eprintln!("{}", report::line(&run));
            runs.push(run);
        }
    }
    report::report(options, &runs)
}

fn replay(
    options: &Options,
    (proxies, scenario): (usize, &Scenario),
    burst: Burst,
    data: &Data,
) -> Result<Run> {
    let scratch = Scratch::new()?;
    let mut database = Target::Prometheus.start(&scratch, options, &Seed::Blocks(data))?;
    let observer = Observer::before(database.port)?;
    let mut store = Store::new()?;
    let leases = (proxies > 1).then_some(&store);
    let fleet = Fleet::start(options, proxies, config(observer.port, proxies, leases, "40%"))?;
    settle(&fleet, data.end)?;
    let length = scenario.length(Duration::from_secs(options.seconds.unwrap_or(BURST).into()));
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let (light, heavy, seen, watched, death) = std::thread::scope(|scope| {
        let steady = scope.spawn(|| steady(&fleet, data.end, start, &stop));
        let seen = scope.spawn(|| looks(&fleet, &stop));
        let memory = scope.spawn(|| memory(&mut database, start, &stop));
        std::thread::sleep(QUIET);
        let begin = Instant::now();
        let fault = scope.spawn({
            let (fleet, store) = (&fleet, &mut store);
            move || scenario.fault.play(begin, fleet, store)
        });
        let heavy = heavy(&fleet, scenario, burst, data.end, (begin, length));
        stop.store(true, Relaxed);
        let light = steady.join().unwrap_or_default();
        let death = fault.join().map_err(|_| "a fault panicked")??;
        let watched = memory.join().map_err(|_| "the watcher panicked")??;
        Ok::<_, crate::Error>((light, heavy, seen.join().unwrap_or_default(), watched, death))
    })?;
    // Of another Weir, which prices each request as it was sent: a whole query as a whole, and a part as a part.
    let scale = Fleet::start(options, 1, config(database.port, 1, None, "100%"))?;
    let at_database = InFlight::of(&observer.runs(scale.ports()[0]), BUDGET);
    let since = |at: Instant| at.saturating_duration_since(start).as_secs_f64();
    Ok(Run {
        scenario: scenario.name,
        proxies,
        load: load(),
        watched,
        light,
        heavy,
        burst: (QUIET.as_secs_f64(), length.as_secs_f64()),
        dead: death.map(|death| (death.leased, taken_over(&death, &seen, pool(proxies)))),
        looks: seen.into_iter().map(|look| (since(look.at), look)).collect(),
        at_database,
        retried: fleet.retried.load(Relaxed),
    })
}

/// Waits until the store has learned, and has each proxy answer its first light queries, which are not measured.
fn settle(fleet: &Fleet<'_>, end: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while fleet.len() > 1 && !is_settled(fleet) {
        if Instant::now() > deadline {
            return Err("the proxies do not reach their store".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for number in 0..10 * fleet.len() {
        let request = light(number as u32, number as u64, end);
        fleet.ask(&request, |count| number % count, LIGHT_TIMEOUT)?;
    }
    Ok(())
}

/// The light queries, spread evenly.
fn steady(fleet: &Fleet<'_>, end: u64, start: Instant, stop: &AtomicBool) -> Vec<Sample> {
    let load = Pace { port: 0, rate: 40.0, connections: 40, timeout: LIGHT_TIMEOUT };
    load.run_with(start, stop, |connection| {
        move |turn| {
            let place = |count| (u64::from(connection) + turn) as usize % count;
            fleet.ask(&light(connection, turn, end), place, LIGHT_TIMEOUT).ok().map(|(answer, _)| answer)
        }
    })
}

fn memory(database: &mut Service, start: Instant, stop: &AtomicBool) -> Result<Watched> {
    watch::memory(database, LIMIT, start, stop)
}

/// The clients of the burst: each asks again once it has its answer, until the burst is over.
fn heavy(
    fleet: &Fleet<'_>,
    scenario: &Scenario,
    burst: Burst,
    end: u64,
    (begin, length): (Instant, Duration),
) -> Vec<Heavy> {
    let asked = AtomicUsize::new(0);
    let client = |query: Query| {
        let mut ended = Vec::new();
        let left = || length.saturating_sub(begin.elapsed());
        let request = query.request("/api/v1/query_range", end);
        while !left().is_zero() {
            let (number, at) = (asked.fetch_add(1, Relaxed), Instant::now());
            let place = |count| scenario.spread.place(number, count, begin.elapsed());
            let answer = fleet.ask(&request, place, left());
            // One that is not over by then was not refused either.
            if left().is_zero() {
                break;
            }
            let heavy = Heavy::new(query.raw(), answer, at.elapsed());
            if !heavy.answered() {
                std::thread::sleep(Duration::from_millis(200));
            }
            ended.push(heavy);
        }
        ended
    };
    std::thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = burst.queries().map(|query| scope.spawn(move || client(query))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect()
    })
}

/// Seconds from the death of proxies until the others leased more than the pool without the lease of the dead.
fn taken_over(death: &Death, looks: &[Look], pool: u64) -> Option<f64> {
    let mut after = looks.iter().filter(|look| look.at > death.at);
    let first = after.find(|look| look.leased > pool as f64 - death.leased)?;
    Some(first.at.saturating_duration_since(death.at).as_secs_f64())
}

/// Processes that want a core, averaged over a minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}
