//! Writes: the text format and remote write, into the node and into VictoriaMetrics, in the same run.

use crate::client::Request;
use crate::data::{Series, generated, times};
use crate::node::{node, victoriametrics};
use crate::process::{Scratch, need};
use crate::report::{Bar, Table, finish, quantile, spread};
use crate::{Options, Result, remote};
use serde_json::json;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const NAMES: [&str; 2] = ["node", "victoriametrics"];
/// Samples of each of the 20,000 series.
const SAMPLES: usize = 240;
/// Series in one request.
const SERIES: usize = 500;
/// Samples of each series in one request.
const EACH: usize = 20;
/// Where both take the text format.
const TEXT: &str = "/api/v1/import/prometheus";

/// The order of the lines of a text.
#[derive(Clone, Copy)]
enum Order {
    /// All samples of a series, then the next series: an export.
    Series,
    /// One sample of each series, then the next time: a scrape.
    Time,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    need(&["victoria-metrics"])?;
    let series = generated()?;
    let end = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 15 * 15;
    let all: Vec<u64> = times(end).collect();
    let part = all.len() - SAMPLES..all.len();
    let ways = [
        ("text, by series", texts(&series, part.clone(), &all, Order::Series)),
        ("text, by time", texts(&series, part.clone(), &all, Order::Time)),
        ("text, one sample a series and request", scrapes(&series, part.clone(), &all)),
        ("remote write", remote::requests(remote::PROMETHEUS, &series, part, &all)?),
    ];
    let samples = (series.len() * SAMPLES) as f64;
    let mut table = Table::new(&[
        "million samples a second: median (least-most)",
        "node",
        "VictoriaMetrics",
        "node/VictoriaMetrics",
    ]);
    let (mut bars, mut results) = (Vec::new(), Vec::new());
    for (what, requests) in ways {
        let mut rates: [Vec<f64>; 2] = Default::default();
        let mut cpu: [Vec<f64>; 2] = Default::default();
        for _ in 0..options.rounds {
            for (name, (rates, cpu)) in NAMES.iter().zip(rates.iter_mut().zip(&mut cpu)) {
                let scratch = Scratch::new()?;
                let service =
                    if *name == "node" { node(&scratch, options)? } else { victoriametrics(&scratch)? };
                let before = service.cpu();
                let seconds = remote::send(service.port, &requests)?;
                rates.push(samples / seconds / 1e6);
                cpu.push((service.cpu() - before) / samples * 1e9);
            }
        }
        let medians = [0, 1].map(|i| quantile(&rates[i], 0.5));
        table.row([
            what.to_owned(),
            spread(&rates[0], 2),
            spread(&rates[1], 2),
            format!("{:.2}", medians[0] / medians[1]),
        ]);
        let ns = [0, 1].map(|i| quantile(&cpu[i], 0.5));
        table.row([
            format!("{what}: CPU ns a sample"),
            format!("{:.0}", ns[0]),
            format!("{:.0}", ns[1]),
            String::new(),
        ]);
        bars.push(Bar::at_least(format!("{what}: as fast as VictoriaMetrics"), medians[0] / medians[1], 1.0));
        results.push(json!({"what": what, "node": rates[0], "victoriametrics": rates[1], "cpu_ns": ns}));
    }
    finish("import", options, &["weir", "victoria-metrics"], &[&table], &bars, &json!(results))
}

fn line(text: &mut String, name: &str, value: f64, time: u64) {
    let _ = writeln!(text, "{name} {value} {}", time * 1_000);
}

/// Requests of many samples of some series each, for the senders in turn.
fn texts(series: &[Series], part: std::ops::Range<usize>, times: &[u64], order: Order) -> Vec<Vec<Request>> {
    let mut senders: Vec<Vec<Request>> = (0..remote::SENDERS).map(|_| Vec::new()).collect();
    for start in part.clone().step_by(EACH) {
        for (number, some) in series.chunks(SERIES).enumerate() {
            let names: Vec<String> = some.iter().map(Series::text).collect();
            let mut text = String::new();
            let end = (start + EACH).min(part.end);
            match order {
                Order::Series => {
                    for (one, name) in some.iter().zip(&names) {
                        for (value, time) in one.values.iter().zip(times).take(end).skip(start) {
                            line(&mut text, name, *value, *time);
                        }
                    }
                }
                Order::Time => {
                    for (i, time) in times.iter().enumerate().take(end).skip(start) {
                        for (one, name) in some.iter().zip(&names) {
                            line(&mut text, name, one.values[i], *time);
                        }
                    }
                }
            }
            senders[number % remote::SENDERS].push(Request::text(TEXT, text.as_bytes()));
        }
    }
    senders
}

/// Requests of one sample of many series each.
fn scrapes(series: &[Series], part: std::ops::Range<usize>, times: &[u64]) -> Vec<Vec<Request>> {
    let mut senders: Vec<Vec<Request>> = (0..remote::SENDERS).map(|_| Vec::new()).collect();
    for i in part {
        for (number, some) in series.chunks(SERIES * EACH).enumerate() {
            let mut text = String::new();
            for one in some {
                line(&mut text, &one.text(), one.values[i], times[i]);
            }
            senders[number % remote::SENDERS].push(Request::text(TEXT, text.as_bytes()));
        }
    }
    senders
}
