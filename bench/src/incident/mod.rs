//! The incident: heavy queries of one tenant on a database that is killed at its memory limit, beside the light queries
//! of others; alone, behind a cap on concurrency, and behind Weir.

mod guard;
pub(crate) mod load;
mod mask;
mod real;
mod report;
mod sheet;
pub(crate) mod target;
pub(crate) mod watch;
mod wrong;

use crate::client::Client;
use crate::data::Data;
use crate::pace::{Pace, Sample};
use crate::process::Scratch;
use crate::report::path;
use crate::{Options, Result};
use guard::Guard;
use load::{Burst, Heavy};
use real::Database;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use target::Target;
use watch::Watched;

const QUIET: Duration = Duration::from_secs(10);
const TAIL: Duration = Duration::from_secs(5);
/// A burst that is not over by then is broken off.
const HEAVY_TIMEOUT: Duration = Duration::from_secs(120);

/// The results of one run. Times are in seconds since its start.
#[derive(Debug)]
struct Run {
    guard: String,
    watched: Watched,
    light: Vec<Sample>,
    heavy: Vec<Heavy>,
    /// The heaviest query that fits, asked eight times in a row some time after the burst.
    after: Vec<Heavy>,
    /// When the burst began and ended.
    burst: (f64, f64),
    /// The guard's bound for the database's memory in all, bytes, where it has one.
    bound: Option<u64>,
    /// Series and bytes that Weir expected of each heavy query before the burst, where it was made wrong.
    estimated: Vec<(u64, u64)>,
}

fn estimates(port: u16, burst: Burst, end: u64) -> Result<Vec<(u64, u64)>> {
    let mut client = Client::new(port, Duration::from_secs(10));
    let mut ask = |query: load::Query| {
        let (_, body) = client.page(&query.request("/api/v1/query_range_cost", end))?;
        Ok(wrong::estimated(&body))
    };
    burst.queries().map(&mut ask).collect()
}

impl Run {
    /// Light queries before the burst, and those from its begin to the end of the run.
    fn phases(&self) -> [Vec<Sample>; 2] {
        let (quiet, loud) = self.light.iter().copied().partition(|s| s.at < self.burst.0);
        [quiet, loud]
    }

    /// The length of both, in seconds.
    fn spans(&self) -> [f64; 2] {
        [self.burst.0, self.burst.1 - self.burst.0 + TAIL.as_secs_f64()]
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let target = Target::parse(options.target.as_deref().unwrap_or("prometheus"))?;
    let burst = Burst::parse(options.burst.as_deref().unwrap_or("mixed"))?;
    let guards = guard::list(&options.guards)?;
    target.need()?;
    guards.iter().try_for_each(Guard::need)?;
    let data = Data::get(&options.data)?;
    let seed = target.seed(options, &data)?;
    let mut runs = Vec::new();
    for guard in &guards {
        let target = guard.target(target);
        let scratch = Scratch::new()?;
        let database = target.database(&scratch, options, &seed)?;
        let run = replay(guard, &target, options, (scratch, database), burst, data.end)?;
        eprintln!("{}: {}", run.guard, report::line(&run));
        runs.push(run);
    }
    let name = format!("incident-{}", options.name.as_deref().unwrap_or(target.name()));
    sheet::draw(&path(options, &format!("{name}.svg"))?, &target, &runs, options.limit_mib << 20)?;
    report::report(&name, options, &target, &guards, &runs)
}

fn replay(
    guard: &Guard,
    target: &Target,
    options: &Options,
    (scratch, mut database): (Scratch, Database),
    burst: Burst,
    end: u64,
) -> Result<Run> {
    // Kept alive until the end of the run.
    let service = guard.start(&scratch, options, target, &database)?;
    let port = service.as_ref().map_or(database.main.port, |service| service.port);
    // Weir's own paths begin at the root, whatever stands behind it.
    let prefix = if guard.weighs() { "" } else { database.prefix };
    let light = |connection, turn| load::light(connection, turn, end).under(prefix);
    // The first answers of all programs, and the estimates of Weir, are not measured.
    for n in 0..40 {
        Client::new(port, Duration::from_secs(10)).get(&light(n, u64::from(n)))?;
    }
    // Otherwise the burst finds Weir as a burst does: not asked about its queries before.
    let wrong = options.wrong_estimate.is_some() && guard.weighs();
    let estimated = if wrong { estimates(port, burst, end)? } else { Vec::new() };
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let pace = Pace { port, rate: 40.0, connections: 40, timeout: Duration::from_secs(10) };
    let limit = options.limit_mib << 20;
    std::thread::scope(|scope| {
        let steady = scope.spawn(|| pace.run(start, &stop, light));
        let counters = scope.spawn({
            let port = database.metrics;
            let stop = &stop;
            move || watch::counters(port, target, start, stop)
        });
        let memory = scope.spawn(|| watch::memory(&mut database.main, limit, start, &stop));
        std::thread::sleep(QUIET);
        let begin = start.elapsed().as_secs_f64();
        let clients: Vec<_> =
            burst.queries().map(|query| scope.spawn(move || query.ask((port, prefix), end))).collect();
        let heavy = clients.into_iter().filter_map(|query| query.join().ok().flatten()).collect();
        let burst = (begin, start.elapsed().as_secs_f64());
        std::thread::sleep(TAIL);
        let after = options.after.map_or_else(Vec::new, |seconds| {
            std::thread::sleep(Duration::from_secs(seconds).saturating_sub(TAIL));
            load::again((port, prefix), guard.weighs(), end)
        });
        stop.store(true, Ordering::Relaxed);
        let light = steady.join().unwrap_or_default();
        let mut watched = memory.join().map_err(|_| "the watcher panicked")??;
        watched.counters = counters.join().unwrap_or_default();
        let idle = watched.rss.first().map_or(0, |s| s.1);
        let bound = guard.budget(options, *target, idle).map(|budget| (idle + budget) * 5 / 4);
        Ok(Run { guard: guard.name().to_owned(), watched, light, heavy, after, burst, bound, estimated })
    })
}
