//! Whether one tenant's queries hold up another's, over an upstream that only waits.

use crate::client::{Client, Request};
use crate::pace::{Pace, Sample, answered, failed};
use crate::process::Scratch;
use crate::report::{Table, finish, quantile};
use crate::targets::{LABEL_TABLE, small, small_answer, weir};
use crate::{Options, Result};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HEAVY_CLIENTS: usize = 200;
const HEAVY_DELAY: Duration = Duration::from_millis(200);
const TENANT_QUERIES: u32 = 20;
const BACKEND_QUERIES: u32 = 24;
/// Tenants that all ask more than their share, the first one far more.
const CROWD: [usize; 5] = [200, 25, 25, 25, 25];

pub(crate) fn run(options: &Options) -> Result<()> {
    let seconds = Duration::from_secs(u64::from(options.seconds.unwrap_or(15)));
    let upstream = waiting_upstream()?;
    let scratch = Scratch::new()?;
    // The tenant's own cap leaves room in the backend's in the first part; in the second, the sum of caps does not.
    let config = format!(
        "backends: [{{name: main, urls: [\"http://127.0.0.1:{upstream}\"], max_connections: 200,
  budget: {{memory: 64GiB, queries: {BACKEND_QUERIES}}}}}]
classes: []
limits:
  default:
    in_flight: {{queries: {TENANT_QUERIES}, memory: 32GiB}}
    queue: {{length: 400, wait: 60s}}
    rate: {{queries: 10k/s}}\n"
    );
    let target = weir(&scratch, options, &config)?;
    let quiet = light_beside(target.port, &[], seconds / 3);
    let loud = light_beside(target.port, &[HEAVY_CLIENTS], seconds);
    // Every place of the backend taken by others: now a light query has to wait for one.
    let full = light_beside(target.port, &CROWD, seconds);

    let mut light =
        Table::new(&["beside", "light queries", "refused or failed", "p50 ms", "p99 ms", "heavy answered"]);
    let mut results = Vec::new();
    for (name, part) in
        [("nothing", &quiet), ("200 heavy queries of one tenant", &loud), ("300 of five tenants", &full)]
    {
        let ms = answered(&part.light);
        let (p50, p99) = (quantile(&ms, 0.5), quantile(&ms, 0.99));
        let (count, bad, heavy) = (part.light.len(), failed(&part.light), part.heavy.iter().sum::<u64>());
        light.row([
            name.to_owned(),
            count.to_string(),
            bad.to_string(),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            heavy.to_string(),
        ]);
        results.push(json!({"beside": name, "light": count, "failed": bad, "p50_ms": p50, "p99_ms": p99,
            "heavy_answered": part.heavy}));
    }
    let mut shares = Table::new(&["clients of five tenants", "queries answered of each", "Jain's index"]);
    let counts = full.heavy.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let clients = CROWD.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    shares.row([clients, counts, format!("{:.4}", jain(&full.heavy))]);
    let result = json!({"parts": results, "jain": jain(&full.heavy), "clients": CROWD});
    finish("fairness", options, &["weir"], &[&light, &shares], &result)
}

/// What one part showed; heavy queries answered, by tenant.
#[derive(Debug)]
struct Part {
    light: Vec<Sample>,
    heavy: Vec<u64>,
}

/// Light queries of one tenant at 100/s, while each of `crowd` tenants has so many clients asking heavy ones.
fn light_beside(port: u16, crowd: &[usize], length: Duration) -> Part {
    let stop = AtomicBool::new(false);
    let heavy: Vec<AtomicU64> = crowd.iter().map(|_| AtomicU64::new(0)).collect();
    let pace = Pace { port, rate: 100.0, connections: 50, timeout: Duration::from_secs(10) };
    let light = std::thread::scope(|scope| {
        for (tenant, (&clients, count)) in crowd.iter().zip(&heavy).enumerate() {
            let request = Request::get("/api/v1/query", &[("query", "heavy")], &format!("crowd-{tenant}"));
            for _ in 0..clients {
                let (request, stop) = (request.clone(), &stop);
                scope.spawn(move || ask_until(port, &request, stop, count));
            }
        }
        // The queue fills up first; what is answered before it is full says nothing about shares.
        std::thread::sleep(Duration::from_secs(1));
        for count in &heavy {
            count.store(0, Ordering::Relaxed);
        }
        let load = scope.spawn(|| pace.run(Instant::now(), &stop, |_, _| small()));
        std::thread::sleep(length);
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap_or_default()
    });
    Part { light, heavy: heavy.into_iter().map(AtomicU64::into_inner).collect() }
}

fn ask_until(port: u16, request: &Request, stop: &AtomicBool, count: &AtomicU64) {
    let mut client = Client::new(port, Duration::from_secs(70));
    while !stop.load(Ordering::Relaxed) {
        match client.get(request) {
            // What ends after the part is over was not answered in it.
            Ok(answer) if answer.status == 200 && !stop.load(Ordering::Relaxed) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) if answer.status == 200 => {}
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// 1 when all have the same, 1/n when one has everything.
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&x| x as f64).sum();
    let squares: f64 = shares.iter().map(|&x| (x as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// A server of this process, a thread per connection, that answers queries with `heavy` in them late.
fn waiting_upstream() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&stream));
        }
    });
    Ok(port)
}

fn serve(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let small = small_answer();
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        let body = if first.contains("/status/tsdb") { LABEL_TABLE } else { &small };
        if first.contains("query=heavy") {
            std::thread::sleep(HEAVY_DELAY);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
        let mut writer = stream;
        writer.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::jain;

    #[test]
    fn the_index_of_equals_is_one() {
        assert!((jain(&[7, 7, 7]) - 1.0).abs() < 1e-12);
        assert!((jain(&[9, 0, 0]) - 1.0 / 3.0).abs() < 1e-12);
    }
}
