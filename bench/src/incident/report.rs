//! Tables and JSON of the incident.

use super::guard::Guard;
use super::load::{Heavy, refusals};
use super::target::Target;
use super::watch::rates;
use super::{Run, TAIL};
use crate::pace::{Sample, answered, failed};
use crate::report::{Bar, Table, finish, mib, quantile};
use crate::{Options, Result};
use serde_json::{Value, json};

pub(super) fn report(
    name: &str,
    options: &Options,
    target: &Target,
    guards: &[Guard],
    runs: &[Run],
) -> Result<()> {
    let mut versions: Vec<&str> =
        guards.iter().filter_map(Guard::program).chain([target.program()]).collect();
    versions.sort_unstable();
    versions.dedup();
    let result: Vec<Value> = runs.iter().map(to_json).collect();
    let result = json!({
        "target": target.name(), "burst": options.burst.as_deref().unwrap_or("mixed"), "limit_mib": options.limit_mib, "wrong_estimate": options.wrong_estimate,
        "go_limit_percent": options.go_limit_percent,
        "killed_by": "a watcher that samples RSS every 10 ms", "runs": result,
    });
    finish(
        name,
        options,
        &versions,
        &[&database(runs), &lights(runs), &work(runs)],
        &bars(target, runs),
        &result,
    )
}

/// The goals for the run behind Weir with all of its limits.
fn bars(target: &Target, runs: &[Run]) -> Vec<Bar> {
    let Some(weir) = runs.iter().find(|run| ["weir", "weir:all"].contains(&run.guard.as_str())) else {
        return Vec::new();
    };
    let phases = weir.phases();
    let [quiet_p99, p99] = [0, 1].map(|phase| quantile(&answered(&phases[phase]), 0.99));
    let [_, loud] = phases;
    let unexplained = count(weir, |h| !h.answered() && !h.refused());
    let alive = weir.watched.died.is_none();
    let mut bars = vec![
        Bar::new("the database survives behind Weir", if alive { "yes" } else { "no" }, alive),
        Bar::at_most("light queries that fail in the burst", failed(&loud) as f64, 0.0),
        light_bar(target, quiet_p99, p99),
        Bar::at_most("heavy queries neither answered nor refused with a reason", unexplained as f64, 0.0),
    ];
    if let Some(bound) = weir.bound {
        let bound = bound as f64 / 1_048_576.0;
        let goal = format!("peak MiB below 1.25 × (idle + budget) = {bound:.0}");
        bars.push(Bar::at_most(goal, peak(weir) as f64 / 1_048_576.0, bound));
    }
    if !weir.after.is_empty() {
        let answered = weir.after.iter().filter(|h| h.answered()).count();
        let slowest = weir.after.iter().map(|h| h.ms).fold(0.0, f64::max);
        let goal = format!(
            "the heaviest query that fits, asked {} times in a row after the burst",
            weir.after.len()
        );
        let measured = format!("{answered} answered, {slowest:.0} ms at most");
        bars.push(Bar::new(goal, measured, answered == weir.after.len()));
    }
    let goal = "heavy queries a minute, of the best cap that survives: at least 0.9";
    bars.extend(work_bar(weir, runs, goal, |_| true));
    let goal = "the same of the best cap that fails no light query";
    bars.extend(work_bar(weir, runs, goal, |run| failed(&run.phases()[1]) == 0));
    bars
}

/// Heavy work beside that of the best cap on concurrency that the database survives, of those that are `fit`.
fn work_bar(weir: &Run, runs: &[Run], goal: &str, fit: impl Fn(&Run) -> bool) -> Option<Bar> {
    let is_cap = |run: &&Run| ["haproxy", "lane", "vmauth"].iter().any(|cap| run.guard.starts_with(cap));
    let caps = runs.iter().filter(is_cap).filter(|run| run.watched.died.is_none() && fit(run));
    let best = caps.map(per_minute).fold(0.0, f64::max);
    (best > 0.0).then(|| Bar::at_least(goal, per_minute(weir) / best, 0.9))
}

fn light_bar(target: &Target, quiet_p99: f64, p99: f64) -> Bar {
    let Target::Node(_) = target else {
        return Bar::at_most("their p99 in the burst under 100 ms", p99, 100.0);
    };
    let most = 2.0 * quiet_p99 + 20.0;
    Bar::at_most(
        format!("their p99 in the burst under twice that of the quiet phase + 20 ms = {most:.0}"),
        p99,
        most,
    )
}

fn database(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "guard",
        "database",
        "RSS idle → peak MiB",
        "1.25 × (idle + budget)",
        "heavy: answered",
        "refused, and why",
        "failed",
        "answered per minute",
    ]);
    for run in runs {
        let died = run.watched.died.map(|at| format!("killed {:.1} s into the burst", at - run.burst.0));
        let answered = count(run, Heavy::answered);
        let refused = count(run, Heavy::refused);
        table.row([
            run.guard.clone(),
            died.unwrap_or_else(|| "survives".to_owned()),
            format!("{} → {}", mib(run.watched.rss.first().map_or(0, |s| s.1)), mib(peak(run))),
            run.bound.map_or_else(|| "-".to_owned(), mib),
            format!("{answered} of {}", run.heavy.len()),
            refusals(&run.heavy),
            (run.heavy.len() - answered - refused).to_string(),
            format!("{:.1}", per_minute(run)),
        ]);
    }
    table
}

fn lights(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "guard",
        "light p50 / p99 ms, quiet",
        "in the burst",
        "failed, quiet",
        "in the burst",
        "answered/s, quiet",
        "in the burst",
        "p99 ms in Weir's queue / in the database",
    ]);
    for run in runs {
        let [quiet, loud] = run.phases();
        let [quiet_span, loud_span] = run.spans();
        let times = |part: &[Sample]| {
            let ms = answered(part);
            format!("{:.1} / {:.1}", quantile(&ms, 0.5), quantile(&ms, 0.99))
        };
        let rate = |part: &[Sample], span: f64| format!("{:.1}", answered(part).len() as f64 / span);
        let bad = |part: &[Sample]| format!("{} of {}", failed(part), part.len());
        let inside = |which: usize| {
            let ms: Vec<f64> = loud.iter().filter(|s| s.status == 200).map(|s| s.weir_ms[which]).collect();
            quantile(&ms, 0.99)
        };
        table.row([
            run.guard.clone(),
            times(&quiet),
            times(&loud),
            bad(&quiet),
            bad(&loud),
            rate(&quiet, quiet_span),
            rate(&loud, loud_span),
            if run.guard.starts_with("weir") {
                format!("{:.1} / {:.1}", inside(0), inside(1))
            } else {
                "-".to_owned()
            },
        ]);
    }
    table
}

/// The database's numbers in the quiet part, and their maxima in the burst.
fn work(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "guard",
        "cores in user mode: quiet, most",
        "cores in system mode: quiet, most",
        "reads/s: quiet, most",
        "gets on an empty pool/s: quiet, most",
    ]);
    for run in runs {
        let two = |series: &[(f64, f64)], decimals: usize| {
            let quiet: Vec<f64> = series.iter().filter(|p| p.0 < run.burst.0).map(|p| p.1).collect();
            let most = series.iter().filter(|p| p.0 >= run.burst.0).map(|p| p.1).fold(0.0, f64::max);
            if quiet.is_empty() {
                return "-".to_owned();
            }
            format!("{:.decimals$}, {most:.decimals$}", quantile(&quiet, 0.5))
        };
        let [user, system] = cpu(run);
        table.row([
            run.guard.clone(),
            two(&user, 2),
            two(&system, 2),
            two(&reads(run), 0),
            two(&on_empty(run), 0),
        ]);
    }
    table
}

/// Cores in use, in user and in system mode, over time.
pub(super) fn cpu(run: &Run) -> [Vec<(f64, f64)>; 2] {
    [0, 1].map(|mode| {
        // Over a second: the kernel counts in hundredths.
        let times: Vec<_> = run.watched.cpu.iter().step_by(5).map(|(at, cpu)| (*at, cpu[mode])).collect();
        rates(&times)
    })
}

pub(super) fn reads(run: &Run) -> Vec<(f64, f64)> {
    rates(&run.watched.counters.iter().filter_map(|c| Some((c.at, c.reads?))).collect::<Vec<_>>())
}

pub(super) fn on_empty(run: &Run) -> Vec<(f64, f64)> {
    rates(&run.watched.counters.iter().filter_map(|c| Some((c.at, c.on_empty?))).collect::<Vec<_>>())
}

fn count(run: &Run, which: impl Fn(&Heavy) -> bool) -> usize {
    run.heavy.iter().filter(|h| which(h)).count()
}

/// Heavy queries answered a minute, from the begin of the burst to the last answer.
fn per_minute(run: &Run) -> f64 {
    let last = run.heavy.iter().filter(|h| h.answered()).map(|h| h.ms).fold(0.0, f64::max);
    if last > 0.0 { count(run, Heavy::answered) as f64 * 60e3 / last } else { 0.0 }
}

fn peak(run: &Run) -> u64 {
    run.watched.rss.iter().map(|s| s.1).max().unwrap_or(0)
}

/// A run in one line.
pub(super) fn line(run: &Run) -> String {
    let [_, loud] = run.phases();
    let end = run.watched.died.map_or("survives".to_owned(), |at| format!("killed at {at:.1} s"));
    format!(
        "{end}, peak {} MiB, {} of {} heavy answered, light p99 {:.1} ms, {} of {} failed",
        mib(peak(run)),
        count(run, Heavy::answered),
        run.heavy.len(),
        quantile(&answered(&loud), 0.99),
        failed(&loud),
        loud.len()
    )
}

fn to_json(run: &Run) -> Value {
    let [quiet, loud] = run.phases();
    let light = |part: &[Sample]| {
        let ms = answered(part);
        json!({"requests": part.len(), "failed": failed(part), "p50_ms": quantile(&ms, 0.5), "p99_ms": quantile(&ms, 0.99)})
    };
    let mut slowest = loud.clone();
    slowest.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    slowest.truncate(30);
    let slowest: Vec<Value> = slowest
        .iter()
        .map(|s| json!({"at": s.at, "ms": s.ms, "status": s.status, "weir_and_backend_ms": s.weir_ms}))
        .collect();
    let ended = |queries: &[Heavy]| -> Vec<Value> {
        let one = |h: &Heavy| json!({"raw": h.raw, "status": h.status, "limit": h.limit, "explained": h.explained, "ms": h.ms});
        queries.iter().map(one).collect()
    };
    let (heavy, after) = (ended(&run.heavy), ended(&run.after));
    // Ten a second are enough to draw.
    let rss: Vec<Value> = run.watched.rss.iter().step_by(10).map(|(at, bytes)| json!([at, bytes])).collect();
    let [user, system] = cpu(run);
    json!({
        "guard": run.guard, "died_at": run.watched.died, "burst": run.burst, "tail_s": TAIL.as_secs(),
        "peak_rss": peak(run), "bound_rss": run.bound, "light_quiet": light(&quiet), "light_burst": light(&loud),
        "light_slowest": slowest, "heavy_per_minute": per_minute(run), "heavy": heavy, "after": after, "rss": rss,
        "cores_user": user, "cores_system": system, "reads_per_second": reads(run),
        "get_on_empty_per_second": on_empty(run), "estimated_series_and_bytes": run.estimated,
    })
}
