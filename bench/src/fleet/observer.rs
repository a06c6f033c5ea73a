//! The queries of all proxies together: as they book them, and as the database sees them.

use super::proxies::Fleet;
use crate::Result;
use crate::client::{Client, Request};
use crate::incident::watch;
use crate::relay::Received;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at the proxies.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const QUERY: &str = "/api/v1/query";
const RANGE: &str = "/api/v1/query_range";

/// The numbers of a proxy that are looked at.
const NUMBERS: [&str; 4] = [
    "weir_budget_used{backend=\"main\",resource=\"memory_bytes\"}",
    "weir_fleet_leased{backend=\"main\",resource=\"memory_bytes\"}",
    "weir_fleet_up",
    "weir_fleet_learning",
];
/// Places in [`NUMBERS`].
pub(super) const USED: usize = 0;
pub(super) const LEASED: usize = 1;
const UP: usize = 2;
const LEARNING: usize = 3;

/// A look at all proxies.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// Sums over all proxies.
    pub(super) used: f64,
    pub(super) leased: f64,
    /// Queries that wait, by reason.
    pub(super) waiting: BTreeMap<String, f64>,
}

/// The numbers of a proxy now; zeros where it does not answer.
pub(super) fn look(admin: &mut Client) -> [f64; NUMBERS.len()] {
    numbers(&page(admin))
}

fn page(admin: &mut Client) -> String {
    let page = admin.page(&Request::get("/metrics", &[], "bench"));
    page.map_or_else(|_| String::new(), |(_, body)| String::from_utf8_lossy(&body).into_owned())
}

fn numbers(page: &str) -> [f64; NUMBERS.len()] {
    NUMBERS.map(|name| watch::sum(page, name).unwrap_or(0.0))
}

/// Looks at all proxies five times a second, at each of them at the same time.
pub(super) fn looks(fleet: &Fleet<'_>, stop: &AtomicBool) -> Vec<Look> {
    let mut looks = Vec::new();
    while !stop.load(Relaxed) {
        let at = Instant::now();
        let pages: Vec<String> = std::thread::scope(|scope| {
            let admins = fleet.admins().into_iter();
            let asked: Vec<_> = admins
                .map(|port| scope.spawn(move || page(&mut Client::new(port, Duration::from_secs(2)))))
                .collect();
            asked.into_iter().filter_map(|page| page.join().ok()).collect()
        });
        let mut look = Look { at, used: 0.0, leased: 0.0, waiting: BTreeMap::new() };
        for page in &pages {
            let numbers = numbers(page);
            look.used += numbers[USED];
            look.leased += numbers[LEASED];
            for (reason, queries) in waiting(page) {
                *look.waiting.entry(reason).or_default() += queries;
            }
        }
        looks.push(look);
        std::thread::sleep(LOOK_EVERY.saturating_sub(at.elapsed()));
    }
    looks
}

/// Queries that wait, by reason.
fn waiting(page: &str) -> impl Iterator<Item = (String, f64)> {
    page.lines().filter_map(|line| {
        let labels = line.strip_prefix("weir_queue_waiting{")?;
        let (reason, queries) = labels.split_once("reason=\"")?.1.split_once("\"} ")?;
        Some((reason.to_owned(), queries.parse().ok()?)).filter(|(_, queries)| *queries > 0.0)
    })
}

/// All proxies reach the store, which has learned the leases.
pub(super) fn is_settled(fleet: &Fleet<'_>) -> bool {
    fleet.admins().into_iter().all(|port| {
        let numbers = look(&mut Client::new(port, Duration::from_secs(2)));
        numbers[UP] == 1.0 && numbers[LEARNING] == 0.0
    })
}

/// A query at the database.
#[derive(Debug, Clone)]
struct Seen {
    range: bool,
    parameters: String,
    from: Instant,
    /// `None` while it runs.
    until: Option<Instant>,
}

/// Stands between the proxies and the database, and keeps when each query came and when its answer was over.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// When a query ran at the database, and its estimate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    from: Instant,
    until: Instant,
    bytes: u64,
}

impl Observer {
    pub(super) fn before(database: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let observer = Self { port: listener.local_addr()?.port(), seen: Arc::default() };
        let seen = Arc::clone(&observer.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || pass(stream, database, &seen));
            }
        });
        Ok(observer)
    }

    /// The queries of the database until now, each as dear as the Weir at `port` says.
    pub(super) fn runs(&self, port: u16) -> Vec<Run> {
        let mut client = Client::new(port, Duration::from_secs(10));
        let mut prices: HashMap<&str, u64> = HashMap::new();
        // The proxy's own questions pass here meanwhile.
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let runs = seen.iter().map(|one| {
            let price = prices.entry(&one.parameters).or_insert_with(|| {
                let path = if one.range { "query_range_cost" } else { "query_cost" };
                let request = Request::get(&format!("/api/v1/{path}?{}", one.parameters), &[], "bench");
                client.page(&request).map_or(0, |(_, body)| bytes(&body))
            });
            Run { from: one.from, until: one.until.unwrap_or_else(Instant::now), bytes: *price }
        });
        runs.collect()
    }
}

/// Bytes of memory in an answer of `query_range_cost`.
fn bytes(body: &[u8]) -> u64 {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    json["data"]["estimate"]["memoryBytes"].as_u64().unwrap_or(0)
}

/// Passes one request on. A database is told of a proxy that is gone as the kernel tells it: no more comes from there.
fn pass(mut stream: TcpStream, database: u16, seen: &Mutex<Vec<Seen>>) -> io::Result<()> {
    let Some(request) = Received::read(&mut BufReader::new(&stream))? else { return Ok(()) };
    let path = request.path().split('?').next().unwrap_or_default();
    let number = [QUERY, RANGE].contains(&path).then(|| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let range = path == RANGE;
        seen.push(Seen { range, parameters: request.parameters(), from: Instant::now(), until: None });
        seen.len() - 1
    });
    let mut upstream = request.send(database)?;
    let (mut proxy, telling) = (stream.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = proxy.read(&mut [0]);
        let _ = telling.shutdown(Shutdown::Write);
    });
    // The end of an answer is noted before the proxy has it, and can let the next query in.
    let (mut last, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = upstream.read(&mut buffer) {
        // A proxy that is gone changes nothing for the queries that still run.
        let _ = stream.write_all(&last);
        last.clear();
        last.extend_from_slice(&buffer[..count]);
    }
    if let Some(number) = number
        && let Some(one) = seen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number)
    {
        one.until = Some(Instant::now());
    }
    let sent = stream.write_all(&last);
    stream.shutdown(Shutdown::Both).and(sent)
}

/// Bytes of queries that run at the same time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct InFlight {
    pub(super) most: u64,
    /// Over the time from the first begin to the last end.
    pub(super) mean: f64,
    /// For which they were more than the budget.
    pub(super) seconds_above: f64,
}

impl InFlight {
    pub(super) fn of(runs: &[Run], budget: u64) -> Self {
        let ends = runs.iter().flat_map(|run| [(run.from, true, run.bytes), (run.until, false, run.bytes)]);
        let mut ends: Vec<_> = ends.collect();
        // Where one ends as another begins, the end comes first.
        ends.sort_by_key(|(at, begins, _)| (*at, *begins));
        let (mut sum, mut most, mut area, mut seconds, mut seconds_above) = (0_u64, 0, 0.0, 0.0, 0.0);
        let mut before = None;
        for (at, begins, bytes) in ends {
            let passed = before.map_or(0.0, |before| at.saturating_duration_since(before).as_secs_f64());
            seconds += passed;
            area += sum as f64 * passed;
            seconds_above += if sum > budget { passed } else { 0.0 };
            sum = if begins { sum + bytes } else { sum.saturating_sub(bytes) };
            most = most.max(sum);
            before = Some(at);
        }
        Self { most, mean: if seconds > 0.0 { area / seconds } else { 0.0 }, seconds_above }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_touch_in_time_do_not_add_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let in_flight = |runs: &[(u64, u64, u64)]| {
            let run = |&(from, until, bytes)| Run { from: at(from), until: at(until), bytes };
            InFlight::of(&runs.iter().map(run).collect::<Vec<_>>(), 10)
        };
        let touching = InFlight { most: 6, mean: 5.5, seconds_above: 0.0 };
        assert_eq!(in_flight(&[(0, 2, 5), (2, 4, 6)]), touching);
        let beside = InFlight { most: 11, mean: 8.0, seconds_above: 1.0 };
        assert_eq!(in_flight(&[(0, 3, 5), (2, 4, 6), (1, 2, 5)]), beside);
        assert_eq!(in_flight(&[]).most, 0);
    }

    #[test]
    fn reasons_to_wait_are_read_from_a_page() {
        let page = "weir_queue_waiting{backend=\"main\",reason=\"lease\"} 3\n\
            weir_queue_waiting{backend=\"main\",reason=\"turn\"} 0\nweir_fleet_up 1\n";
        assert_eq!(waiting(page).collect::<Vec<_>>(), [("lease".to_owned(), 3.0)]);
        assert_eq!(numbers(page), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(bytes(br#"{"data":{"estimate":{"memoryBytes":7}}}"#), 7);
    }
}
