//! What a proxy costs a small request: closed loop for rate and CPU, open loop for latency.

use crate::pace::{Pace, answered, failed};
use crate::process::{Scratch, Service, command, need};
use crate::report::{Bar, Table, finish, quantile, spread};
use crate::targets::{SMALL, proxy, small, upstream};
use crate::{Options, Result, client};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PROXIES: [&str; 5] = ["weir", "nginx", "haproxy", "vmauth", "hyper"];
const CONNECTIONS: u32 = 32;
const PACED_RATE: f64 = 3000.0;

/// What the rounds showed of one target, one value a round.
#[derive(Debug, Default)]
struct Seen {
    rate: Vec<f64>,
    ratio: Vec<f64>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    added_p50: Vec<f64>,
    added_p99: Vec<f64>,
    errors: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["nginx", "haproxy", "vmauth", "wrk"])?;
    let seconds = options.seconds.unwrap_or(4);
    let scratch = Scratch::new()?;
    let upstream = upstream(&scratch)?;
    let port = upstream.port;
    let mut targets = vec![upstream];
    for name in PROXIES {
        targets.push(proxy(name, &scratch, options, port)?);
    }
    let mut seen: Vec<Seen> = targets.iter().map(|_| Seen::default()).collect();
    for round in 0..options.rounds as usize {
        // The upstream itself comes first, as the base of the round; the proxies take turns.
        let order: Vec<usize> = (1..targets.len()).map(|n| 1 + (n + round) % (targets.len() - 1)).collect();
        let base = closed(&targets[0], seconds, &mut seen[0])?;
        for &n in &order {
            let rate = closed(&targets[n], seconds, &mut seen[n])?;
            seen[n].ratio.push(rate / base);
        }
        let base = paced(&targets[0], seconds, &mut seen[0]);
        for &n in &order {
            let (p50, p99) = paced(&targets[n], seconds, &mut seen[n]);
            seen[n].added_p50.push(p50 - base.0);
            seen[n].added_p99.push(p99 - base.1);
        }
        eprintln!("round {} of {}", round + 1, options.rounds);
    }
    report(options, &targets, &seen)
}

/// Requests per second as fast as they are answered, by wrk.
fn closed(target: &Service, seconds: u32, seen: &mut Seen) -> Result<f64> {
    let before = target.cpu();
    let output = command("wrk")
        .args(["-t1", "-H", client::AUTHORIZATION])
        .args([
            format!("-c{CONNECTIONS}"),
            format!("-d{seconds}"),
            format!("http://127.0.0.1:{}{SMALL}", target.port),
        ])
        .output()?;
    let cpu = target.cpu() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word_before = |mark: &str| -> Option<f64> {
        text.lines().find_map(|line| line.split_once(mark)?.0.split_whitespace().last()?.parse().ok())
    };
    let number_after = |mark: &str| -> Option<f64> {
        text.lines().find_map(|line| line.split_once(mark)?.1.trim().parse().ok())
    };
    let count = word_before(" requests in").ok_or_else(|| format!("wrk says: {text}"))?;
    let rate = number_after("Requests/sec:").ok_or_else(|| format!("wrk says: {text}"))?;
    seen.errors += number_after("Non-2xx or 3xx responses:").unwrap_or(0.0) as usize;
    seen.rate.push(rate);
    seen.cpu.push(cpu * 1e6 / count);
    Ok(rate)
}

/// Median and 99th percentile in milliseconds at a rate that all can serve.
fn paced(target: &Service, seconds: u32, seen: &mut Seen) -> (f64, f64) {
    let pace = Pace {
        port: target.port,
        rate: PACED_RATE,
        connections: CONNECTIONS,
        timeout: Duration::from_secs(5),
    };
    let stop = AtomicBool::new(false);
    let samples = std::thread::scope(|scope| {
        let load = scope.spawn(|| pace.run(Instant::now(), &stop, |_, _| small()));
        std::thread::sleep(Duration::from_secs(u64::from(seconds)));
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap_or_default()
    });
    seen.errors += failed(&samples);
    let ms = answered(&samples);
    let (p50, p99) = (quantile(&ms, 0.5), quantile(&ms, 0.99));
    seen.p50.push(p50);
    seen.p99.push(p99);
    (p50, p99)
}

fn report(options: &Options, targets: &[Service], seen: &[Seen]) -> Result<()> {
    let mut rates = Table::new(&[
        "32 connections, closed loop",
        "requests/s",
        "of direct",
        "CPU µs/request",
        "errors in all runs",
    ]);
    let mut latency = Table::new(&["paced, 3,000/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"]);
    let mut results = Vec::new();
    for (target, seen) in targets.iter().zip(seen) {
        let name = if target.name == "upstream" { "direct" } else { target.name };
        let of = |values: &[f64], decimals| {
            if values.is_empty() { "-".to_owned() } else { spread(values, decimals) }
        };
        rates.row([
            name.to_owned(),
            of(&seen.rate, 0),
            of(&seen.ratio, 2),
            of(&seen.cpu, 1),
            seen.errors.to_string(),
        ]);
        let columns = [&seen.p50, &seen.p99, &seen.added_p50, &seen.added_p99];
        latency.row([name.to_owned()].into_iter().chain(columns.map(|values| of(values, 3))));
        results.push(json!({"target": name, "requests_per_second": seen.rate, "of_direct": seen.ratio,
            "cpu_us_per_request": seen.cpu, "p50_ms": seen.p50, "p99_ms": seen.p99, "added_p50_ms": seen.added_p50,
            "added_p99_ms": seen.added_p99, "errors": seen.errors}));
    }
    let mut goals = Table::new(&["Weir against", "requests/s", "CPU per request"]);
    for (target, other) in targets.iter().zip(seen).skip(2) {
        let ratios =
            |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>();
        let (rate, cpu) = (ratios(&seen[1].rate, &other.rate), ratios(&seen[1].cpu, &other.cpu));
        goals.row([
            target.name.to_owned(),
            format!("× {}", spread(&rate, 2)),
            format!("× {}", spread(&cpu, 2)),
        ]);
    }
    let of = |n: usize, values: fn(&Seen) -> &Vec<f64>| quantile(values(&seen[n]), 0.5);
    // The order of `PROXIES`, after the upstream.
    let (weir, nginx, vmauth) = (1, 2, 4);
    let cpu = |n| of(n, |s| &s.cpu);
    let bars = [
        Bar::at_least(
            "requests/s, twice vmauth's: ratio",
            of(weir, |s| &s.rate) / of(vmauth, |s| &s.rate),
            2.0,
        ),
        Bar::at_most("CPU a request, half of vmauth's: ratio", cpu(weir) / cpu(vmauth), 0.5),
        Bar::at_most("CPU a request, twice nginx': ratio", cpu(weir) / cpu(nginx), 2.0),
        Bar::at_most("0.20 ms added to p50 at 3,000/s", of(weir, |s| &s.added_p50), 0.2),
        Bar::at_most("0.6 ms added to p99 at 3,000/s", of(weir, |s| &s.added_p99), 0.6),
    ];
    let versions = ["weir", "nginx", "haproxy", "vmauth", "wrk"];
    finish("overhead", options, &versions, &[&rates, &goals, &latency], &bars, &json!(results))
}
