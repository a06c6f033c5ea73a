//! Whether one tenant's queries hold up another's, over an upstream that only waits.

use crate::client::{Client, Request};
use crate::pace::{Pace, Sample, answered, failed};
use crate::process::Scratch;
use crate::report::{Bar, Table, finish, path, quantile, spread};
use crate::targets::{LABEL_TABLE, small, small_answer, weir};
use crate::{Options, Result};
use plotters::prelude::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HEAVY_CLIENTS: usize = 200;
const HEAVY_DELAY: Duration = Duration::from_millis(200);
const TENANT_QUERIES: u32 = 20;
const BACKEND_QUERIES: u32 = 24;
/// Well-behaved tenants, and the queries that each of them always has at the door: together more than there is room for.
const TENANTS: usize = 20;
const TENANT_CLIENTS: usize = 6;

pub(crate) fn run(options: &Options) -> Result<()> {
    let seconds = Duration::from_secs(u64::from(options.seconds.unwrap_or(15)));
    let upstream = waiting_upstream()?;
    let scratch = Scratch::new()?;
    // The tenant's own cap leaves room in the backend's in the first part; later, the sum of caps does not.
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
    let good = [TENANT_CLIENTS; TENANTS];
    let crowd: Vec<usize> = [HEAVY_CLIENTS].into_iter().chain(good).collect();
    let parts = [
        Part::of("nothing", target.port, &[], seconds / 3),
        Part::of("one tenant with 200 clients", target.port, &[HEAVY_CLIENTS], seconds),
        Part::of("20 tenants with 6 clients each", target.port, &good, seconds),
        Part::of("both", target.port, &crowd, seconds),
    ];
    let good_shares = [parts[2].heavy.as_slice(), parts[3].heavy.get(1..).unwrap_or_default()];
    draw(&path(options, "fairness.svg")?, good_shares, &parts[3].heavy, seconds)?;
    report(options, &parts, good_shares, seconds)
}

fn report(options: &Options, parts: &[Part], good: [&[u64]; 2], seconds: Duration) -> Result<()> {
    let mut light = Table::new(&[
        "one tenant's light queries beside",
        "asked",
        "refused or failed",
        "p50 ms",
        "p99 ms",
        "p99 ms in Weir's queue",
    ]);
    for part in parts {
        let [p50, p99] = part.ms();
        light.row([
            part.beside.to_owned(),
            part.light.len().to_string(),
            failed(&part.light).to_string(),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{:.2}", part.waited()),
        ]);
    }
    let rate = |n: u64| n as f64 / seconds.as_secs_f64();
    let mut shares = Table::new(&[
        "heavy queries answered a second",
        "each well-behaved tenant: median (least-most)",
        "the abusive one",
        "Jain's index of the well-behaved",
    ]);
    let abusive = parts[3].heavy.first().copied().unwrap_or(0);
    for (what, part, abusive) in
        [("20 tenants", good[0], None), ("beside the abusive one", good[1], Some(abusive))]
    {
        let rates: Vec<f64> = part.iter().map(|n| rate(*n)).collect();
        shares.row([
            what.to_owned(),
            spread(&rates, 2),
            abusive.map_or_else(|| "-".to_owned(), |n| format!("{:.2}", rate(n))),
            format!("{:.4}", jain(part)),
        ]);
    }
    let bars = [
        Bar::at_most("light p99 in Weir's queue beside 200 heavy ones under 50 ms", parts[1].waited(), 50.0),
        Bar::at_most(
            "light queries refused or failed",
            parts.iter().map(|p| failed(&p.light)).sum::<usize>() as f64,
            0.0,
        ),
    ];
    let results: Vec<Value> = parts.iter().map(Part::to_json).collect();
    let result = json!({"parts": results, "jain_alone": jain(good[0]), "jain_beside": jain(good[1]), "seconds": seconds.as_secs()});
    finish("fairness", options, &["weir"], &[&light, &shares], &bars, &result)
}

/// Queries a second of each well-behaved tenant, alone and beside the abusive one, which is the last bar.
fn draw(path: &Path, good: [&[u64]; 2], beside: &[u64], seconds: Duration) -> Result<()> {
    let rate = |n: u64| n as f64 / seconds.as_secs_f64();
    let top = good[0].iter().chain(beside).map(|n| rate(*n)).fold(1.0, f64::max) * 1.15;
    let sheet = SVGBackend::new(path, (760, 300)).into_drawing_area();
    sheet.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&sheet)
        .caption(
            "heavy queries a second: alone (grey), beside an abusive tenant (blue; red: its own)",
            ("sans-serif", 14),
        )
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..(TENANTS + 1) as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(TRANSPARENT)
        .x_desc("tenants")
        .draw()?;
    let bar =
        |at: f64, n: u64, ink: RGBColor| Rectangle::new([(at, 0.0), (at + 0.38, rate(n))], ink.filled());
    let (grey, blue, red) = (RGBColor(170, 170, 170), RGBColor(30, 110, 190), RGBColor(200, 50, 50));
    chart.draw_series(good[0].iter().enumerate().map(|(n, count)| bar(n as f64 + 0.1, *count, grey)))?;
    chart.draw_series(good[1].iter().enumerate().map(|(n, count)| bar(n as f64 + 0.5, *count, blue)))?;
    chart.draw_series(beside.first().map(|count| bar(TENANTS as f64 + 0.3, *count, red)))?;
    sheet.present()?;
    Ok(())
}

/// The results of one part; heavy queries answered, by tenant.
#[derive(Debug)]
struct Part {
    beside: &'static str,
    light: Vec<Sample>,
    heavy: Vec<u64>,
}

impl Part {
    fn of(beside: &'static str, port: u16, crowd: &[usize], length: Duration) -> Self {
        let (light, heavy) = light_beside(port, crowd, length);
        Self { beside, light, heavy }
    }

    /// Median and 99th percentile of the light queries.
    fn ms(&self) -> [f64; 2] {
        let ms = answered(&self.light);
        [0.5, 0.99].map(|share| quantile(&ms, share))
    }

    /// Their 99th percentile in Weir's queue, by its own word.
    fn waited(&self) -> f64 {
        let waits: Vec<f64> = self.light.iter().filter(|s| s.status == 200).map(|s| s.weir_ms[0]).collect();
        quantile(&waits, 0.99)
    }

    fn to_json(&self) -> Value {
        let [p50, p99] = self.ms();
        json!({"beside": self.beside, "light": self.light.len(), "failed": failed(&self.light), "p50_ms": p50,
            "p99_ms": p99, "p99_queue_ms": self.waited(), "heavy_answered": self.heavy})
    }
}

/// Light queries of one tenant at 100/s, beside the clients of each of `crowd` tenants with heavy ones.
fn light_beside(port: u16, crowd: &[usize], length: Duration) -> (Vec<Sample>, Vec<u64>) {
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
        // The queue fills up first; answers before it is full say nothing about shares.
        std::thread::sleep(Duration::from_secs(1));
        for count in &heavy {
            count.store(0, Ordering::Relaxed);
        }
        let load = scope.spawn(|| pace.run(Instant::now(), &stop, |_, _| small()));
        std::thread::sleep(length);
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap_or_default()
    });
    (light, heavy.into_iter().map(AtomicU64::into_inner).collect())
}

fn ask_until(port: u16, request: &Request, stop: &AtomicBool, count: &AtomicU64) {
    let mut client = Client::new(port, Duration::from_secs(70));
    while !stop.load(Ordering::Relaxed) {
        match client.get(request) {
            // A query that ends after the part was not answered in it.
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
