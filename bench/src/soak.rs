//! A long run under everything that an operator meets in a day: a Prometheus with rules of its own, a second client that
//! goes past Weir, light and heavy queries of five tenants, clients that leave or do not read, and two reloads a minute.
//!
//! Once a minute all heavy clients pause, and queries that fit are asked one by one: each is to run within five seconds.

use crate::client::{Client, Request};
use crate::data::Data;
use crate::incident::load::{ALL, light};
use crate::pace::{Pace, Sample, answered, failed, timing};
use crate::process::{Scratch, need, rss};
use crate::report::{Bar, Table, finish, mib, quantile};
use crate::targets::{WeirFile, prometheus_with_rules, small};
use crate::{Options, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

/// The length of a soak that nobody sets.
const MINUTES: u32 = 60;
const TENANTS: usize = 5;
/// Two of each tenant.
const HEAVY_CLIENTS: usize = 10;
/// Bytes that Prometheus may take in all, and of which half is Weir's budget.
const LIMIT: u64 = 4 << 30;
const SLOTS: u64 = 6;
const TRIAL_EVERY: Duration = Duration::from_secs(60);
const RELOAD_EVERY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(90);

/// Recording rules over all of the data, evaluated every 15 s.
fn rules(end: u64) -> String {
    format!(
        "groups:
- name: soak
  interval: 15s
  rules:
  - {{record: \"soak:sum\", expr: 'sum by(job)({{__name__=~\"c0.*\"}} @ {end})'}}
  - {{record: \"soak:count\", expr: 'count({ALL} @ {end})'}}
  - {{record: \"soak:max\", expr: 'max_over_time(mem_usage[6h] @ {end})'}}\n"
    )
}

/// The configuration; `turn` changes a few limits and the order of classes, as people do.
fn config(database: u16, turn: u64) -> String {
    let (series, wait) = if turn.is_multiple_of(2) { (50_000, 30) } else { (60_000, 31) };
    let rules = "{name: rules, match: {header: {FromAlert: \"true\"}}, reserve: 20%}";
    let agents = "{name: agents, match: {header: {X-Agent: \"true\"}}}";
    let classes = if turn % 4 < 2 { format!("[{rules}, {agents}]") } else { format!("[{agents}, {rules}]") };
    format!(
        "backends:
- name: main
  kind: prometheus
  urls: [\"http://127.0.0.1:{database}\"]
  budget: {{memory: {budget}, queries: {SLOTS}}}
  pressure: {{memory_limit: {LIMIT}}}
classes: {classes}
limits:
  default:
    per_query: {{memory: {query}, series: {series}, timeout: 60s, samples: 500M, points: 500M, response: unlimited}}
    in_flight: {{memory: {query}, queries: {SLOTS}}}
    rate: {{queries: 100/s}}
    queue: {{wait: {wait}s}}\n",
        budget = LIMIT / 2,
        query = LIMIT / 5 * 2,
    )
}

const RANGE: &str = "/api/v1/query_range";

/// A range query of the last hours of the data.
fn range(path: &str, query: &str, (hours, step): (u64, u64), end: u64, tenant: usize) -> Request {
    let (from, to, step) = ((end - hours * 3600).to_string(), end.to_string(), step.to_string());
    let parameters = [("query", query), ("start", &from), ("end", &to), ("step", &step)];
    Request::get(path, &parameters, &format!("good-{tenant}"))
}

/// A heavy query of any kind; some of them are more than one query may have.
fn heavy(rng: &mut fastrand::Rng, end: u64, tenant: usize) -> Request {
    let sum = format!("sum by(job)({ALL})");
    let family = format!("{{__name__=~\"c0{}_total|g0{}_level\"}}", rng.u8(..10), rng.u8(..10));
    let points = "sum_over_time(vector(1)[20000s:10ms])";
    let quantile = format!("quantile by(job)(0.9, rate({family}[5m]))");
    let (query, window) = match rng.u8(..10) {
        0..3 => (sum.as_str(), (6, 15)),
        3..5 => (sum.as_str(), (rng.u64(1..6), 30)),
        5..7 => (family.as_str(), (6, 60)),
        7 => (ALL, (6, 15)),
        8 => (points, (0, 15)),
        _ => (quantile.as_str(), (6, 60)),
    };
    range(RANGE, query, window, end, tenant)
}

/// The state that the threads share.
struct Soak {
    end: u64,
    /// Weir and the database.
    ports: (u16, u16),
    stop: AtomicBool,
    /// Held by heavy clients while they ask, and by the trial alone.
    gate: RwLock<()>,
    statuses: Mutex<BTreeMap<u16, u64>>,
}

/// When a query that fits was asked alone, and the milliseconds that it waited: without end if it was not answered.
type Trial = (f64, f64);
impl Soak {
    fn runs(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.runs() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY.min(time));
        }
    }

    /// Asks heavy queries; one in ten is not waited for, and the answer of one in twenty not read.
    fn client(&self, number: usize) {
        let mut rng = fastrand::Rng::with_seed(number as u64);
        while self.runs() {
            let request = heavy(&mut rng, self.end, number % TENANTS);
            let open = self.gate.read();
            let mut client = Client::new(self.ports.0, TIMEOUT);
            match rng.u8(..20) {
                0..2 => drop(client.abandon(&request, Duration::from_millis(500))),
                2 => drop(client.abandon(&request, Duration::from_secs(8))),
                _ => {
                    let status = client.get(&request).map_or(0, |answer| answer.status);
                    if let Ok(mut statuses) = self.statuses.lock() {
                        *statuses.entry(status).or_default() += 1;
                    }
                }
            }
            drop(open);
            self.pause(Duration::from_millis(rng.u64(500..6_000)));
        }
    }

    /// A client that the database has beside Weir: points without a selector, a few hundred megabytes of them.
    fn past_weir(&self) {
        let mut rng = fastrand::Rng::with_seed(99);
        while self.runs() {
            self.pause(Duration::from_millis(rng.u64(..40_000)));
            let query = format!("sum_over_time(vector(1)[{}s:1ms])", rng.u64(1_000..7_200));
            let request = range(RANGE, &query, (0, 15), self.end, 0);
            let _ = Client::new(self.ports.1, TIMEOUT).get(&request);
        }
    }

    /// Queries that fit, once a minute, alone.
    fn trials(&self, start: Instant) -> Vec<Trial> {
        let (mut trials, mut turn) = (Vec::new(), 0);
        while self.runs() {
            self.pause(TRIAL_EVERY);
            let _alone = self.gate.write();
            let (sum, family) = (format!("sum by(job)({ALL})"), "{__name__=~\"c0.*\"}");
            for (query, window) in [(sum.as_str(), (6, 15)), (&sum, (2, 15)), (family, (1, 60))] {
                turn += 1;
                let ask = |path| range(path, query, window, self.end, turn % TENANTS);
                let mut client = Client::new(self.ports.0, TIMEOUT);
                let fits = client.page(&ask("/api/v1/query_range_cost"));
                let fits =
                    fits.is_ok_and(|(_, body)| String::from_utf8_lossy(&body).contains(r#""admitted":true"#));
                if fits && self.runs() {
                    let answer = client.get(&ask(RANGE)).ok().filter(|answer| answer.status == 200);
                    let waited = answer.map_or(f64::INFINITY, |answer| timing(&answer)[0]);
                    trials.push((start.elapsed().as_secs_f64(), waited));
                }
            }
        }
        trials
    }
}

/// The observations of the run, one for each look.
#[derive(Default)]
struct Seen {
    /// Seconds, and resident bytes of Weir.
    weir: Vec<(f64, u64)>,
    database_peak: u64,
    looks: u64,
    /// Looks at which more was in flight than the budget has.
    passed: Vec<Value>,
    /// Those that worked, and those that did not.
    reloads: [u64; 2],
}

impl Seen {
    fn look(&mut self, admin: &mut Client, at: f64) {
        let Ok((_, body)) = admin.page(&Request::get("/status.json", &[], "bench")) else { return };
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.looks += 1;
        let backend = &status["backends"][0];
        let number = |of: &Value| of["used"].as_u64().unwrap_or(u64::MAX);
        // Slots of both lanes: answers whose clients do not read hold none.
        let slots = (0..2).fold(0, |sum: u64, lane| sum.saturating_add(number(&backend["lanes"][lane][1])));
        let memory = number(&backend["memory"]);
        if memory > LIMIT / 2 || slots > SLOTS {
            self.passed.push(json!({"at": at, "memory": memory, "slots": slots}));
        }
    }

    fn reload(&mut self, admin: &mut Client, file: &WeirFile, text: &str) {
        let answer = file.write(text).ok().and_then(|_| admin.get(&Request::post("/-/reload", "")).ok());
        self.reloads[usize::from(answer.is_none_or(|answer| answer.status != 200))] += 1;
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["prometheus", "promtool"])?;
    let data = Data::get(&options.data)?;
    let scratch = Scratch::new()?;
    let database = prometheus_with_rules(&scratch, &data, &rules(data.end))?;
    let file = WeirFile::new(&scratch)?;
    file.write(&config(database.port, 0))?;
    let weir = file.start(options)?;
    let soak = Soak {
        end: data.end,
        ports: (weir.port, database.port),
        stop: AtomicBool::new(false),
        gate: RwLock::new(()),
        statuses: Mutex::default(),
    };
    let minutes = options.minutes.unwrap_or(MINUTES);
    let (start, length) = (Instant::now(), Duration::from_secs(u64::from(minutes) * 60));
    let pace = Pace { port: weir.port, rate: 20.0, connections: 20, timeout: Duration::from_secs(10) };
    let mut seen = Seen::default();
    let (samples, trials) = std::thread::scope(|scope| {
        let steady = scope.spawn(|| pace.run(start, &soak.stop, |n, turn| light(n, turn, soak.end)));
        let soak = &soak;
        for number in 0..HEAVY_CLIENTS {
            scope.spawn(move || soak.client(number));
        }
        scope.spawn(|| soak.past_weir());
        let trials = scope.spawn(|| soak.trials(start));
        let mut admin = Client::new(file.admin, Duration::from_secs(5));
        let mut next_reload = start + RELOAD_EVERY;
        while start.elapsed() < length {
            let at = start.elapsed().as_secs_f64();
            seen.look(&mut admin, at);
            seen.weir.extend(rss(weir.pid()).map(|bytes| (at, bytes)));
            seen.database_peak = seen.database_peak.max(rss(database.pid()).unwrap_or(0));
            if Instant::now() >= next_reload {
                next_reload += RELOAD_EVERY;
                let turn = seen.reloads[0] + 1;
                seen.reload(&mut admin, &file, &config(database.port, turn));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        soak.stop.store(true, Relaxed);
        (steady.join().unwrap_or_default(), trials.join().unwrap_or_default())
    });
    report(options, &soak, &seen, (&samples, &trials))
}

fn report(options: &Options, soak: &Soak, seen: &Seen, run: (&[Sample], &[Trial])) -> Result<()> {
    let (samples, trials) = run;
    let statuses = soak.statuses.lock().map(|statuses| statuses.clone()).unwrap_or_default();
    let waits: Vec<f64> = trials.iter().map(|(_, waited)| *waited).collect();
    let longest = quantile(&waits, 1.0);
    let alive = Client::new(soak.ports.1, TIMEOUT).get(&small()).is_ok();
    // After a minute, when everything has been used once; the median of ten looks.
    let memory_at = |share: f64| {
        let late: Vec<f64> = seen.weir.iter().filter(|(at, _)| *at > 60.0).map(|(_, b)| *b as f64).collect();
        let from = (late.len().saturating_sub(10) as f64 * share) as usize;
        quantile(late.get(from..(from + 10).min(late.len())).unwrap_or_default(), 0.5)
    };
    let [first, middle, last] = [0.0, 0.5, 1.0].map(memory_at);
    let mut table = Table::new(&["what", "figure"]);
    let light_ms = answered(samples);
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&light_ms, share));
    for (what, figure) in [
        ("light queries, failed", format!("{}, {}", samples.len(), failed(samples))),
        ("light p50 / p99 ms", format!("{p50:.1} / {p99:.1}")),
        ("heavy queries by status", format!("{statuses:?}")),
        ("reloads: good, bad", format!("{:?}", seen.reloads)),
        ("trials on an idle database, longest wait ms", format!("{}, {longest:.0}", trials.len())),
        ("database, peak MiB", mib(seen.database_peak)),
        ("Weir MiB: after a minute, middle, end", [first, middle, last].map(|b| mib(b as u64)).join(", ")),
    ] {
        table.row([what.to_owned(), figure]);
    }
    let bars = [
        Bar::new("the database survives", if alive { "yes" } else { "no" }, alive),
        Bar::at_most("ms that a query that fits waits on an idle database", longest, 5_000.0),
        Bar::at_most(format!("limits passed, of {} looks", seen.looks), seen.passed.len() as f64, 0.0),
        Bar::at_most("light queries that fail", failed(samples) as f64, 0.0),
        Bar::at_most("memory of Weir at the end, of that in the middle", last / middle, 1.1),
    ];
    let every: Vec<_> = seen.weir.iter().step_by(50).collect();
    let result = json!({"minutes": options.minutes.unwrap_or(MINUTES), "weir_rss": every, "trials_at_and_wait_ms": trials,
        "passed": seen.passed, "heavy_by_status": statuses, "database_peak": seen.database_peak,
        "light": samples.len(), "light_failed": failed(samples), "light_p99_ms": p99});
    finish("soak", options, &["prometheus", "weir"], &[&table], &bars, &result)
}
