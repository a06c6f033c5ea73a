//! The cost of a proxy for a small request: closed loop for rate and CPU, open loop for latency.

use crate::fleet::store::Store;
use crate::pace::{Pace, answered, failed};
use crate::process::{Scratch, Service, command, need};
use crate::report::{Bar, Table, finish, quantile, spread};
use crate::targets::{SMALL, open_weir, proxy, small, unknown_upstream, upstream, weir_of};
use crate::{Options, Result, client};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Those that Weir is compared with; "hyper" is the bare pass-through.
const PEERS: [&str; 4] = ["nginx", "haproxy", "vmauth", "hyper"];
/// Weir, and Weir before a backend that says nothing of its series.
const WEIR: [&str; 2] = ["weir", "weir-unknown"];
/// Weir in a fleet with a store.
const IN_FLEET: &str = "weir-fleet";
/// An earlier build of both.
const BEFORE: [&str; 2] = ["before", "before-unknown"];
const CONNECTIONS: u32 = 32;
const PACED_RATE: f64 = 3000.0;

/// The results of the rounds of one target, one value a round.
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
    need(&["nginx", "haproxy", "vmauth", "wrk", "redis-server"])?;
    let seconds = options.seconds.unwrap_or(4);
    let scratch = Scratch::new()?;
    let (upstream, unknown) = (upstream(&scratch)?, unknown_upstream(&scratch)?);
    let ports = [upstream.port, unknown.port];
    let mut targets = vec![upstream];
    let builds = [(WEIR, Some(&options.weir)), (BEFORE, options.before.as_ref())];
    for (names, binary) in builds.into_iter().filter_map(|(names, binary)| Some((names, binary?))) {
        for (name, port) in names.into_iter().zip(ports) {
            targets.push(weir_of(name, binary, &scratch, &open_weir(port))?);
        }
    }
    let store = Store::new()?;
    let fleet = format!("{}fleet: {{replicas_max: 4, store: \"{}\"}}\n", open_weir(ports[0]), store.url());
    targets.push(weir_of(IN_FLEET, &options.weir, &scratch, &fleet)?);
    for name in PEERS {
        targets.push(proxy(name, &scratch, options, ports[0])?);
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
            "added_p99_ms": seen.added_p99, "errors": seen.errors, "peak_rss": target.peak_rss()}));
    }
    let find = |name: &str| targets.iter().zip(seen).find(|(target, _)| target.name == name);
    // By how much one target's numbers are those of another, round by round.
    let ratio = |of: &str, over: &str, values: fn(&Seen) -> &Vec<f64>| -> Vec<f64> {
        let (Some((_, of)), Some((_, over))) = (find(of), find(over)) else { return Vec::new() };
        values(of).iter().zip(values(over)).map(|(a, b)| a / b).collect()
    };
    let median = |of: &str, over: &str, values| quantile(&ratio(of, over, values), 0.5);
    let peak = |name: &str| find(name).map_or(f64::NAN, |(target, _)| target.peak_rss() as f64);
    let mut goals = Table::new(&["against", "requests/s", "CPU per request", "p50", "p99", "peak memory"]);
    let befores = BEFORE.into_iter().filter(|name| find(name).is_some());
    let compared = PEERS.into_iter().flat_map(|peer| WEIR.map(|weir| (weir, peer)));
    for (weir, other) in compared.chain([(IN_FLEET, WEIR[0])]).chain(WEIR.into_iter().zip(befores.clone())) {
        let times = |values| format!("× {}", spread(&ratio(weir, other, values), 2));
        let memory = format!("× {:.2}", peak(weir) / peak(other));
        let columns = [times(|s| &s.rate), times(|s| &s.cpu), times(|s| &s.p50), times(|s| &s.p99), memory];
        goals.row([format!("{weir} / {other}")].into_iter().chain(columns));
    }
    let added =
        |values: fn(&Seen) -> &Vec<f64>| find("weir").map_or(f64::NAN, |(_, s)| quantile(values(s), 0.5));
    let mut bars = vec![
        Bar::at_least("requests/s, twice vmauth's: ratio", median("weir", "vmauth", |s| &s.rate), 2.0),
        Bar::at_most("CPU a request, half of vmauth's: ratio", median("weir", "vmauth", |s| &s.cpu), 0.5),
        Bar::at_most("CPU a request, 1.5 × nginx': ratio", median("weir", "nginx", |s| &s.cpu), 1.5),
        Bar::at_most("where nothing is known, 2 ×", median("weir-unknown", "nginx", |s| &s.cpu), 2.0),
        Bar::at_most("0.20 ms added to p50 at 3,000/s", added(|s| &s.added_p50), 0.2),
        Bar::at_most("0.6 ms added to p99 at 3,000/s", added(|s| &s.added_p99), 0.6),
    ];
    let in_fleet = [(IN_FLEET, WEIR[0], "without a store")].into_iter();
    let before = WEIR.into_iter().zip(befores).map(|(weir, before)| (weir, before, "the build before"));
    for (weir, before, other) in in_fleet.chain(before) {
        let name = |what: &str| format!("{weir}, {what} over {other}");
        bars.push(Bar::at_least(name("requests/s"), median(weir, before, |s| &s.rate), 0.97));
        for (what, ratio) in [
            ("CPU a request", median(weir, before, |s| &s.cpu)),
            ("p50", median(weir, before, |s| &s.p50)),
            ("p99", median(weir, before, |s| &s.p99)),
            ("peak memory", peak(weir) / peak(before)),
        ] {
            bars.push(Bar::at_most(name(what), ratio, 1.03));
        }
    }
    let versions = ["weir", "nginx", "haproxy", "vmauth", "wrk"];
    finish("overhead", options, &versions, &[&rates, &goals, &latency], &bars, &json!(results))
}
