//! The tables of estimates, and their figures for other pages.

use super::parts::{LOADS, Memory};
use super::{Mode, Report, Seen};
use crate::incident::target::Target;
use crate::report::{Bar, Table, mib, quantile};
use serde_json::{Value, json};

const MODES: [Mode; 3] = [Mode::InDoubt, Mode::First, Mode::Again];
/// How often each query was asked, and with which limits.
const COSTS: [(&str, &[Mode]); 3] = [
    ("all in doubt, first time", &[Mode::InDoubt]),
    ("default limits, first time", &[Mode::First]),
    ("default limits, twice", &[Mode::First, Mode::Again]),
];
/// Queries that take this long are heavy.
const HEAVY_MS: f64 = 500.0;

/// Those of one mode and class.
struct Group<'a> {
    mode: Mode,
    class: String,
    seen: Vec<&'a Seen>,
}

fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut groups = Vec::new();
    for mode in MODES {
        let of_mode = || report.seen.iter().filter(move |s| s.mode == mode);
        let mut classes: Vec<&str> = of_mode().map(|s| s.class.as_str()).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            let seen = of_mode().filter(|s| s.class == class).collect();
            groups.push(Group { mode, class: class.to_owned(), seen });
        }
    }
    groups
}

/// Estimate over truth, where there is any truth, in rising order of quantiles.
fn ratios(seen: &[&Seen], of: impl Fn(&Seen) -> [u64; 2]) -> Vec<f64> {
    seen.iter()
        .map(|s| of(s))
        .filter(|[_, truth]| *truth > 0)
        .map(|[estimate, truth]| estimate as f64 / truth as f64)
        .collect()
}

fn three(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let of = |share| {
        let ratio = quantile(values, share);
        if ratio > 1e6 { "unknown".to_owned() } else { format!("{ratio:.2}") }
    };
    format!("{} / {} / {}", of(0.5), of(0.9), of(0.99))
}

fn least(values: &[f64]) -> String {
    if values.is_empty() { "-".to_owned() } else { format!("{:.2}", quantile(values, 0.0)) }
}

/// Of those with nothing to find, how many were taken for nothing.
fn empty(seen: &[&Seen]) -> String {
    let empty: Vec<_> = seen.iter().filter(|s| s.series[1] == 0).collect();
    format!("{} of {}", empty.iter().filter(|s| s.series[0] == 0).count(), empty.len())
}

pub(super) fn quantiles(report: &Report) -> Table {
    let mut table = Table::new(&[
        "estimate / truth",
        "known",
        "queries",
        "series: p50 / p90 / p99",
        "least",
        "samples: p50 / p90 / p99",
        "least",
        "nothing there, and said so",
    ]);
    for Group { mode, class, seen } in groups(report) {
        let (series, samples) = (ratios(&seen, |s| s.series), ratios(&seen, |s| s.samples));
        table.row([
            mode.name().to_owned(),
            class,
            seen.len().to_string(),
            three(&series),
            least(&series),
            three(&samples),
            least(&samples),
            empty(&seen),
        ]);
    }
    table
}

fn share(mode: Mode, report: &Report) -> (usize, usize) {
    let of_mode: Vec<_> = report.seen.iter().filter(|s| s.mode == mode).collect();
    (of_mode.iter().filter(|s| !s.probed()).count(), of_mode.len())
}

pub(super) fn asked(report: &Report) -> Table {
    let mut table = Table::new(&["queries of the corpus", "decided without a probe", "share"]);
    for mode in MODES {
        let (without, all) = share(mode, report);
        let percent = format!("{:.0} %", without as f64 * 100.0 / all as f64);
        table.row([mode.name().to_owned(), format!("{without} of {all}"), percent]);
    }
    table
}

/// Milliseconds of probes and of the queries themselves, and the median share of one in the other, of the queries of
/// this duration, probed or not.
fn costs(report: &Report, modes: &[Mode], takes: impl Fn(f64) -> bool) -> (usize, f64, f64, f64) {
    let of_mode = report.seen.iter().filter(|s| modes.contains(&s.mode));
    let both: Vec<(f64, f64)> = of_mode.filter_map(|s| Some((s.probe_ms, s.own_ms?))).collect();
    let both: Vec<_> = both.into_iter().filter(|(_, own)| takes(*own)).collect();
    let shares: Vec<f64> = both.iter().map(|(probe, own)| probe / own).collect();
    let sum = |of: fn(&(f64, f64)) -> f64| both.iter().map(of).sum::<f64>();
    (both.len(), sum(|b| b.0), sum(|b| b.1), quantile(&shares, 0.5))
}

pub(super) fn cost(report: &Report) -> Table {
    let mut table = Table::new(&[
        "cost of probes",
        "the query alone takes",
        "queries",
        "probes ms",
        "queries' own ms",
        "share",
        "median share",
    ]);
    let parts = COSTS.iter().flat_map(|(mode, modes)| {
        [
            (mode, "under 0.5 s", costs(report, modes, |own| own < HEAVY_MS)),
            (mode, "longer", costs(report, modes, |own| own >= HEAVY_MS)),
            (mode, "any time", costs(report, modes, |_| true)),
        ]
    });
    for (mode, what, (count, probes, own, median)) in parts {
        let percent =
            |share: f64| if share.is_nan() { "-".to_owned() } else { format!("{:.1} %", share * 100.0) };
        table.row([
            (*mode).to_owned(),
            what.to_owned(),
            count.to_string(),
            format!("{probes:.0}"),
            format!("{own:.0}"),
            percent(probes / own),
            percent(median),
        ]);
    }
    table
}

pub(super) fn memory(report: &Report) -> Table {
    let mut table = Table::new(&[
        "20,000 series × 6 h",
        "estimated MiB",
        "rise MiB",
        "lent by pools MiB",
        "ratio",
        "status",
        "s",
        "first probes ms",
        "share",
    ]);
    for shape in &report.memory {
        table.row([
            shape.what.to_owned(),
            mib(shape.estimated),
            mib(shape.rise),
            shape.lent.map_or_else(|| "-".to_owned(), mib),
            shape.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            shape.status.to_string(),
            format!("{:.1}", shape.ms / 1e3),
            format!("{:.0}", shape.probe_ms),
            format!("{:.1} %", shape.probe_ms * 100.0 / shape.ms),
        ]);
    }
    table
}

pub(super) fn refused(report: &Report) -> Table {
    let mut table = Table::new(&[
        "limit 10,000 series",
        "first ms",
        "then ms: median, worst of 20",
        "all refused",
        "ran on the database",
    ]);
    for one in &report.refused {
        table.row([
            one.what.to_owned(),
            format!("{:.1}", one.first_ms),
            format!("{:.2}, {:.2}", one.warm(0.5), one.warm(1.0)),
            if one.all { "yes" } else { "no" }.to_owned(),
            format!("{:.0}", one.ran),
        ]);
    }
    table
}

pub(super) fn dashboard(report: &Report) -> Table {
    let mut table = Table::new(&[
        "dashboard of 15 queries, 21 loads",
        "probes, first load",
        "later",
        "queries that waited",
        "failed",
        "probes ms",
        "queries ms",
        "share",
    ]);
    let live = report.live.as_ref().map(|live| ("the same, all in the head", live));
    for (what, seen) in [("last hour, 60 s steps", &report.dashboard)].into_iter().chain(live) {
        table.row([
            what.to_owned(),
            format!("{:.0}", seen.probes[0]),
            format!("{:.0}", seen.probes[1]),
            format!("{} of {}", seen.waited, seen.queries),
            seen.failed.to_string(),
            format!("{:.0}", seen.probe_ms),
            format!("{:.0}", seen.own_ms),
            format!("{:.1} %", seen.probe_percent()),
        ]);
    }
    table
}

/// The same as figures.
pub(super) fn summary(report: &Report) -> Value {
    let classes: Vec<Value> = groups(report)
        .iter()
        .map(|Group { mode, class, seen }| {
            let four = |of: fn(&Seen) -> [u64; 2]| {
                let ratios = ratios(seen, of);
                [0.0, 0.5, 0.9, 0.99].map(|share| quantile(&ratios, share))
            };
            json!({"mode": mode.name(), "class": class, "queries": seen.len(),
                "series_ratio_least_p50_p90_p99": four(|s| s.series),
                "samples_ratio_least_p50_p90_p99": four(|s| s.samples)})
        })
        .collect();
    let without: Vec<Value> = MODES
        .iter()
        .map(|mode| {
            let (without, all) = share(*mode, report);
            json!({"mode": mode.name(), "without_probe": without, "queries": all})
        })
        .collect();
    let (_, probes, own, _) = costs(report, &[Mode::InDoubt], |_| true);
    json!({"classes": classes, "decided": without, "probe_ms": probes, "own_ms": own, "probe_share": probes / own})
}

/// Bytes from which on a query weighs.
const LARGE: u64 = 16 << 20;

/// The goals of estimates.
pub(super) fn bars(report: &Report) -> Vec<Bar> {
    let doubtful = report.seen.iter().filter(|s| s.mode == Mode::InDoubt);
    let off: Vec<f64> = doubtful
        .map(|s| s.series.map(|n| n as f64))
        .map(|[estimate, truth]| (estimate - truth).abs() * 100.0 / truth.max(1.0))
        .collect();
    let board = &report.dashboard;
    let calm = 100.0 - board.waited as f64 * 100.0 / board.queries as f64;
    let (_, probes, own, _) = costs(report, &[Mode::InDoubt], |own| own >= HEAVY_MS);
    let ran = report.refused.iter().map(|r| r.ran).sum();
    let off_memory: Vec<f64> = report.memory.iter().filter_map(Memory::ratio).collect();
    let slowest = report.refused.iter().map(|r| r.warm(1.0)).fold(0.0, f64::max);
    let mut bars = vec![
        Bar::at_most("refused in under 10 ms once asked before, the worst", slowest, 10.0),
        Bar::at_most("series in doubt: at most 2 % off, the worst", quantile(&off, 1.0), 2.0),
        Bar::at_least("dashboard: 95 % of the queries wait for no probe", calm, 95.0),
        Bar::at_most("dashboard: probes at most 3 % of the queries' time", board.probe_percent(), 3.0),
    ];
    // The node's counter counts probes as well.
    if !matches!(report.target, Target::Node(_)) {
        bars.push(Bar::at_most("refused queries that ran on the database", ran, 0.0));
    }
    // The goal is about Prometheus; the others take less than the assumption.
    if report.target == Target::Prometheus {
        let [least, most] = [0.0, 1.0].map(|share| quantile(&off_memory, share));
        let met = least >= 0.7 && most <= 2.0;
        let measured = format!("{least:.2} to {most:.2}");
        bars.push(Bar::new("memory of heavy shapes: 0.7 to 2 times what they take", measured, met));
    }
    // The node can run out of the memory that its pools lend; the number of a sum's groups is not known before.
    if let Target::Node(_) = report.target {
        let large = report.memory.iter().filter(|shape| shape.lent.is_some_and(|lent| lent >= LARGE));
        let ratios: Vec<f64> = large.filter_map(Memory::ratio).collect();
        let [least, most] = [0.0, 1.0].map(|share| quantile(&ratios, share));
        let measured = format!("{least:.2} to {most:.2}");
        let what = "queries that are lent 16 MiB or more: estimated 0.7 to 2 times that";
        bars.push(Bar::new(what, measured, least >= 0.7 && most <= 2.0));
    }
    if own > 0.0 {
        bars.push(Bar::at_most(
            "first probes of heavy queries: at most 3 % of their time",
            probes * 100.0 / own,
            3.0,
        ));
    }
    for (what, modes, least) in [
        ("default limits, first time, heavy queries: probes at most 3 % of their time", COSTS[1].1, HEAVY_MS),
        ("default limits, first time, all queries: probes at most 3 % of their time", COSTS[1].1, 0.0),
    ] {
        let (_, probes, own, _) = costs(report, modes, |own| own >= least);
        if own > 0.0 {
            bars.push(Bar::at_most(what, probes * 100.0 / own, 3.0));
        }
    }
    if let Some(live) = &report.live {
        let what = "dashboard over a live head: probes at most 3 % of the queries' time";
        bars.push(Bar::at_most(what, live.probe_percent(), 3.0));
        let calm = 100.0 - live.probes[0] * 100.0 / (live.queries as f64 / LOADS as f64);
        bars.push(Bar::at_least(
            "first load of a dashboard over a live head: 95 % without a probe",
            calm,
            95.0,
        ));
    }
    bars
}
