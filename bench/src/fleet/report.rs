//! Tables and JSON of the fleet.

use super::{BUDGET, LEASE_OVER, LIMIT, QUERY_TIMEOUT, Run};
use crate::incident::load::{Heavy, refusals};
use crate::pace::{Sample, answered, failed};
use crate::report::{Bar, Table, finish, mib, quantile};
use crate::{Options, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The part of one proxy's heavy work that a fleet is to do.
const WORK: f64 = 0.9;
/// Beyond the documents: a round a second, and a look.
const LATER_BY: f64 = 2.0;

pub(super) fn report(options: &Options, runs: &[Run]) -> Result<()> {
    let result: Vec<Value> = runs.iter().zip(shares(runs)).map(|(run, share)| to_json(run, share)).collect();
    let result = json!({"burst": options.burst.as_deref().unwrap_or("sums"), "limit_mib": LIMIT >> 20,
        "budget_mib": BUDGET >> 20, "query_timeout_s": QUERY_TIMEOUT.as_secs(), "runs": result});
    let name = options.name.as_ref().map_or_else(|| "fleet".to_owned(), |name| format!("fleet-{name}"));
    let versions = ["weir", "prometheus", "redis-server"];
    finish(&name, options, &versions, &[&budgets(runs), &work(runs)], &bars(runs), &result)
}

impl Run {
    /// Light queries before the burst, and from then on.
    fn phases(&self) -> [Vec<Sample>; 2] {
        let (quiet, loud) = self.light.iter().copied().partition(|sample| sample.at < self.burst.0);
        [quiet, loud]
    }

    fn count(&self, which: impl Fn(&Heavy) -> bool) -> usize {
        self.heavy.iter().filter(|heavy| which(heavy)).count()
    }

    fn per_minute(&self) -> f64 {
        self.count(Heavy::answered) as f64 * 60.0 / self.burst.1
    }

    fn peak(&self) -> u64 {
        self.watched.rss.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// The most bytes that all proxies had booked at the same look.
    fn booked(&self) -> u64 {
        self.looks.iter().map(|(_, look)| look.used as u64).max().unwrap_or(0)
    }

    /// Bytes above the budget, as booked or as the database saw it.
    fn overshoot(&self) -> u64 {
        self.booked().max(self.at_database.most).saturating_sub(BUDGET)
    }

    /// The reasons for which queries waited, as shares of all that waited.
    fn waits(&self) -> BTreeMap<&str, f64> {
        let mut sums = BTreeMap::new();
        for (reason, queries) in self.looks.iter().flat_map(|(_, look)| &look.waiting) {
            *sums.entry(reason.as_str()).or_insert(0.0) += queries;
        }
        let all: f64 = sums.values().sum();
        for sum in sums.values_mut() {
            *sum /= all;
        }
        sums
    }
}

/// Heavy work of each run beside that of one proxy alone, which ran last before it.
fn shares(runs: &[Run]) -> Vec<f64> {
    let mut alone = f64::NAN;
    let share = |run: &Run| {
        if run.proxies == 1 {
            alone = run.per_minute();
        }
        run.per_minute() / alone
    };
    runs.iter().map(share).collect()
}

fn name(run: &Run) -> String {
    if run.proxies == 1 { run.scenario.to_owned() } else { format!("{} × {}", run.proxies, run.scenario) }
}

fn budgets(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "proxies × scenario",
        "database",
        "peak MiB",
        "most booked by all, of the budget",
        "at the database: most, mean",
        "overshoot bytes",
        "light failed",
        "asked twice",
        "light p99 ms: quiet, burst",
        "dead proxies' lease, MiB: used after s",
    ]);
    for run in runs {
        let [quiet, loud] = run.phases();
        let died = run.watched.died.map(|at| format!("killed {:.1} s into the burst", at - run.burst.0));
        let part = |bytes: u64| format!("{:.3}", bytes as f64 / BUDGET as f64);
        let dead = run.dead.map(|(leased, after)| {
            let after = after.map_or("not at all".to_owned(), |after| format!("{after:.1}"));
            format!("{}: {after}", mib(leased as u64))
        });
        table.row([
            name(run),
            died.unwrap_or_else(|| "survives".to_owned()),
            mib(run.peak()),
            part(run.booked()),
            format!("{}, {}", part(run.at_database.most), part(run.at_database.mean as u64)),
            run.overshoot().to_string(),
            format!("{} of {}", failed(&quiet) + failed(&loud), run.light.len()),
            run.retried.to_string(),
            format!("{:.1}, {:.1}", quantile(&answered(&quiet), 0.99), quantile(&answered(&loud), 0.99)),
            dead.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

fn work(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "proxies × scenario",
        "heavy answered a minute",
        "of one proxy alone",
        "refused, and why",
        "failed",
        "heavy ms: median, most",
        "they wait for",
        "load",
    ]);
    for (run, share) in runs.iter().zip(shares(runs)) {
        let mut waits: Vec<_> = run.waits().into_iter().collect();
        waits.sort_by(|a, b| b.1.total_cmp(&a.1));
        let waits: Vec<_> =
            waits.iter().take(3).map(|(reason, part)| format!("{reason} {:.0} %", part * 100.0)).collect();
        let (answered, refused) = (run.count(Heavy::answered), run.count(Heavy::refused));
        let ms: Vec<f64> = run.heavy.iter().filter(|heavy| heavy.answered()).map(|heavy| heavy.ms).collect();
        table.row([
            name(run),
            format!("{:.1}", run.per_minute()),
            format!("{share:.2}"),
            refusals(&run.heavy),
            (run.heavy.len() - answered - refused).to_string(),
            format!("{:.0}, {:.0}", quantile(&ms, 0.5), quantile(&ms, 1.0)),
            waits.join(", "),
            format!("{:.1}", run.load),
        ]);
    }
    table
}

fn bars(runs: &[Run]) -> Vec<Bar> {
    let fleets = || runs.iter().zip(shares(runs)).filter(|(run, _)| run.proxies > 1);
    let killed = fleets().filter(|(run, _)| run.watched.died.is_some()).count();
    let overshoot = fleets().map(|(run, _)| run.overshoot()).max().unwrap_or(0);
    let lights: usize = fleets().map(|(run, _)| failed(&run.light)).sum();
    let unexplained: usize =
        fleets().map(|(run, _)| run.count(|heavy| !heavy.answered() && !heavy.refused())).sum();
    let mut bars = vec![
        Bar::at_most("runs in which the database is killed", killed as f64, 0.0),
        Bar::at_most("overshoot of any run, bytes", overshoot as f64, 0.0),
        Bar::at_most("light queries that fail", lights as f64, 0.0),
        Bar::at_most("heavy queries neither answered nor refused with a reason", unexplained as f64, 0.0),
    ];
    for (run, share) in fleets() {
        bars.push(Bar::at_least(
            format!("{}: heavy work, of one proxy alone: at least {WORK}", name(run)),
            share,
            WORK,
        ));
    }
    let most = LEASE_OVER.as_secs_f64() + LATER_BY;
    for (run, _) in fleets() {
        if let Some((leased, after)) = run.dead.filter(|(leased, _)| *leased > 0.0) {
            let goal = format!(
                "{}: seconds until {} MiB are others', at most {most:.0}",
                name(run),
                mib(leased as u64)
            );
            bars.push(Bar::at_most(goal, after.unwrap_or(f64::NAN), most));
        }
    }
    bars
}

/// A run in one line.
pub(super) fn line(run: &Run) -> String {
    format!(
        "{}: {}, peak {} MiB, booked {} MiB, at the database {} MiB, {:.1} heavy a minute, light {} of {} failed, {} asked \
         twice, waits {:.2?}, load {:.1}, dead {:?}",
        name(run),
        if run.watched.died.is_some() { "killed" } else { "survives" },
        mib(run.peak()),
        mib(run.booked()),
        mib(run.at_database.most),
        run.per_minute(),
        failed(&run.light),
        run.light.len(),
        run.retried,
        run.waits(),
        run.load,
        run.dead,
    )
}

fn to_json(run: &Run, share: f64) -> Value {
    let [quiet, loud] = run.phases();
    let light = |part: &[Sample]| {
        let ms = answered(part);
        json!({"requests": part.len(), "failed": failed(part), "p50_ms": quantile(&ms, 0.5), "p99_ms": quantile(&ms, 0.99)})
    };
    // One a second is enough to read.
    let looks: Vec<Value> = run
        .looks
        .iter()
        .step_by(5)
        .map(|(at, look)| json!({"at": at, "booked": look.used, "leased": look.leased, "waiting": look.waiting}))
        .collect();
    json!({
        "scenario": run.scenario, "proxies": run.proxies, "load": run.load, "died_at": run.watched.died,
        "peak_rss": run.peak(), "booked_most": run.booked(), "at_database_most": run.at_database.most,
        "at_database_mean": run.at_database.mean, "at_database_seconds_above_budget": run.at_database.seconds_above, "overshoot_bytes": run.overshoot(),
        "light_quiet": light(&quiet), "light_burst": light(&loud), "asked_twice": run.retried,
        "heavy_answered": run.count(Heavy::answered), "heavy_refused": run.count(Heavy::refused),
        "heavy_ended": run.heavy.len(), "heavy_per_minute": run.per_minute(), "of_one_proxy": share,
        "waits": run.waits(), "dead_lease_bytes": run.dead.map(|dead| dead.0),
        "dead_lease_used_after_s": run.dead.and_then(|dead| dead.1), "looks": looks,
    })
}
