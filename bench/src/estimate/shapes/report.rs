//! The table of shapes: estimate over measure, in quantiles, and the queries that are furthest off.

use super::Seen;
use crate::report::{Bar, Table, finish, mib, quantile};
use crate::{Options, Result};
use serde_json::{Value, json};

/// Bytes of a point as `peakSamples` counts.
const POINT: u64 = 16;
/// Peaks below this are not judged.
const PEAK_LEAST: u64 = 50_000;
/// Queries below this are not judged by the live heap.
const LIVE_LEAST: u64 = 20 << 20;
/// The database's own work moves its heap by this much between two queries.
const NOISE: u64 = 4 << 20;
/// Queries shown on either end.
const SHOWN: usize = 12;

impl Seen {
    fn answered(&self) -> Option<&super::Measured> {
        self.measured.as_ref().filter(|measured| measured.status == 200)
    }

    /// The larger of the live heap, as far as it is more than noise, and of `peakSamples` in bytes.
    fn truth(&self) -> Option<u64> {
        let measured = self.answered()?;
        let live = Some(measured.live).filter(|live| *live > NOISE).unwrap_or(0);
        Some(live.max(measured.peak_samples.unwrap_or(0) * POINT))
    }

    fn ratio(&self) -> Option<f64> {
        self.truth().filter(|bytes| *bytes > 0).map(|bytes| self.estimated as f64 / bytes as f64)
    }

    fn is_heavy(&self) -> bool {
        self.answered().is_some_and(|measured| measured.live >= LIVE_LEAST)
    }

    /// Judged for being estimated too low.
    fn is_judged(&self) -> bool {
        let peak = |m: &super::Measured| m.peak_samples.is_some_and(|peak| peak > PEAK_LEAST);
        self.answered().is_some_and(peak) || self.is_heavy()
    }

    fn to_json(&self) -> Value {
        let measured = self.measured.as_ref();
        json!({"query": self.case.query.get(..300).unwrap_or(&self.case.query), "points": self.case.points,
            "hostile": self.case.hostile, "estimated": self.estimated, "status": measured.map(|m| m.status),
            "live": measured.map(|m| m.live), "peak_samples": measured.and_then(|m| m.peak_samples),
            "answer_bytes": measured.map(|m| m.answer_bytes), "ms": measured.map(|m| m.ms)})
    }

    pub(super) fn row(&self) -> [String; 6] {
        let measured = self.answered();
        let ratio = self.ratio().unwrap_or(f64::NAN);
        let query = self.case.query.replace('|', "\\|");
        let query: String = query.chars().take(110).collect();
        let peak = measured.and_then(|m| m.peak_samples).unwrap_or(0) * POINT;
        [
            format!("{ratio:.2}"),
            mib(self.estimated),
            mib(measured.map_or(0, |m| m.live)),
            mib(peak),
            self.case.points.to_string(),
            format!("`{query}`"),
        ]
    }
}

pub(super) fn write(options: &Options, target: &str, version: &str, seen: &[Seen]) -> Result<()> {
    let (quantiles, extremes) = (quantiles(seen), extremes(seen));
    let heavy: Vec<f64> = seen.iter().filter(|s| s.is_heavy()).filter_map(Seen::ratio).collect();
    let low = seen.iter().filter(|s| s.is_judged()).filter_map(Seen::ratio).filter(|r| *r < 0.5).count();
    let answered = seen.iter().filter(|s| s.answered().is_some()).count();
    let bars = [
        Bar::at_least("queries that were answered", answered as f64, 2_000.0),
        Bar::at_most("estimated below half of the truth", low as f64, 0.0),
        Bar::at_least("median of those over 20 MiB", quantile(&heavy, 0.5), 1.0),
        Bar::at_most("median of those over 20 MiB", quantile(&heavy, 0.5), 2.0),
        Bar::at_most("p90 of those over 20 MiB", quantile(&heavy, 0.9), 4.0),
    ];
    let is_far_off =
        |s: &&Seen| s.is_judged() && s.ratio().is_some_and(|ratio| !(0.7..=4.0).contains(&ratio));
    let kept = seen.iter().filter(|s| is_far_off(s) || s.case.hostile || s.answered().is_none());
    let result = json!({"version": version, "asked": seen.len(), "answered": answered,
        "queries": kept.map(Seen::to_json).collect::<Vec<_>>()});
    let name = match version.split('.').next().filter(|major| !major.is_empty() && *major != "?") {
        // The node's version is that of an API.
        Some(major) if target != super::NODE => format!("shapes-{target}-{major}"),
        _ => format!("shapes-{target}"),
    };
    finish(&name, options, &["weir"], &[&quantiles, &extremes], &bars, &result)
}

fn quantiles(seen: &[Seen]) -> Table {
    let mut table = Table::new(&["queries", "number", "least", "p50", "p90", "p99", "most"]);
    let mut row = |what: &str, keep: &dyn Fn(&Seen) -> bool| {
        let ratios: Vec<f64> = seen.iter().filter(|s| keep(s)).filter_map(Seen::ratio).collect();
        let number = ratios.len().to_string();
        let of = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| format!("{:.2}", quantile(&ratios, share)));
        table.row([what.to_owned(), number].into_iter().chain(of));
    };
    row("live heap over 20 MiB", &Seen::is_heavy);
    row("peak over 50,000 samples, or the same", &Seen::is_judged);
    row("the hostile ones", &|s| s.case.hostile);
    row("instant queries, judged", &|s| s.case.points == 1 && s.is_judged());
    row("graphs, judged", &|s| s.case.points > 1 && s.is_judged());
    let too_dear = seen.iter().filter(|s| s.measured.is_none()).count();
    let late = |s: &&Seen| s.measured.as_ref().is_some_and(|measured| measured.late);
    let failed = seen.iter().filter(|s| s.measured.is_some() && s.answered().is_none() && !late(s)).count();
    let late = seen.iter().filter(late).count();
    let none = || std::iter::repeat_n("-".to_owned(), 5);
    table.row(["estimated over 1 GiB, not run".to_owned(), too_dear.to_string()].into_iter().chain(none()));
    table.row(["late, not judged".to_owned(), late.to_string()].into_iter().chain(none()));
    table.row(["answered with an error".to_owned(), failed.to_string()].into_iter().chain(none()));
    table
}

/// The judged queries that are furthest off, the too low ones first.
fn extremes(seen: &[Seen]) -> Table {
    let mut table =
        Table::new(&["ratio", "estimate, MiB", "live, MiB", "peak × 16 B, MiB", "points", "query"]);
    let mut judged: Vec<&Seen> = seen.iter().filter(|s| s.is_judged() && s.ratio().is_some()).collect();
    judged.sort_by(|a, b| a.ratio().unwrap_or(0.0).total_cmp(&b.ratio().unwrap_or(0.0)));
    let last = judged.len().saturating_sub(SHOWN).max(SHOWN.min(judged.len()));
    for one in judged.iter().take(SHOWN).chain(judged.iter().skip(last)) {
        table.row(one.row());
    }
    table
}
