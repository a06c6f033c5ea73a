//! `weir top --by …`: the heaviest users, as a table.

use std::fmt::Write as _;

use clap::{Args, builder::PossibleValuesParser};
use serde_json::Value;

use super::text::{clean, number, size};
use crate::top::{By, Measure, Window};

/// The property that is ranked.
#[derive(Debug, Args)]
pub(super) struct Ranking {
    /// Show the heaviest of this kind, instead of budgets and queries under way.
    #[arg(long, value_name = "KIND", value_parser = words(By::ALL.iter().map(|by| by.as_str())))]
    by: Option<String>,
    /// How far back; needs `--by`.
    #[arg(long, requires = "by", default_value = Window::FiveMinutes.as_str(), value_parser = words(Window::ALL.iter().map(|window| window.as_str())))]
    window: String,
    /// The number by which to rank; needs `--by`.
    #[arg(long, requires = "by", default_value = Measure::Memory.as_str(), value_parser = words(Measure::ALL.iter().map(|sort| sort.as_str())))]
    sort: String,
    /// Rows, at most 50; needs `--by`.
    #[arg(long, requires = "by", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=50))]
    limit: u64,
}

fn words(words: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(words.collect::<Vec<_>>())
}

impl Ranking {
    /// The request to the admin API; `None` where no ranking is wanted.
    pub(super) fn target(&self) -> Option<String> {
        let Self { by, window, sort, limit } = self;
        let by = by.as_ref()?;
        Some(format!("/api/v1/admin/top?by={by}&window={window}&sort={sort}&limit={limit}"))
    }
}

/// One line for each row of the ranking, the heaviest first; then the others, and all.
pub(super) fn table(ranking: &Value) -> String {
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "by {}, {} of the last {}; {} of the queries still run\n",
        text(&ranking["by"]),
        text(&ranking["sort"]),
        text(&ranking["window"]),
        number(&ranking["running"]),
    );
    let _ = writeln!(
        out,
        "{:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:32} WORST QUERY",
        "MEM SUM", "COUNT", "SAMPLES", "SECONDS", "REFUSED", "SHADOW", "P50 S", "P99 S", "KEY"
    );
    for row in ranking["rows"].as_array().into_iter().flatten() {
        let panel = row["panel"].as_str().map(|panel| format!("/{panel}")).unwrap_or_default();
        let key = format!("{}{panel}", text(&row["key"]));
        line(&mut out, row, &key, row["worst"]["query"].as_str().unwrap_or_default());
    }
    // A query without a dashboard, a user or a rule has no key.
    let others = match text(&ranking["by"]).as_str() {
        by @ ("dashboard" | "user" | "rule") => format!("(others, or no {by})"),
        _ => "(others)".to_owned(),
    };
    line(&mut out, &ranking["other"], &others, "");
    line(&mut out, &ranking["total"], "(all)", "");
    out
}

fn line(out: &mut String, row: &Value, key: &str, query: &str) {
    let seconds = |of: &Value| of.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:32} {}",
        size(&row["memory"]),
        number(&row["count"]),
        number(&row["samples"]),
        seconds(&row["seconds"]),
        number(&row["refused"]),
        number(&row["shadow_refused"]),
        seconds(&row["p50_seconds"]),
        seconds(&row["p99_seconds"]),
        clean(key, 32),
        clean(query, 100),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_line() {
        let row = serde_json::json!({"key": "abc", "panel": "7", "memory": 3_u64 << 30, "count": 12_345, "samples": 5, "seconds": 1.25,
            "refused": 0, "shadow_refused": 2, "p50_seconds": 0.4, "p99_seconds": null, "worst": {"query": "sum(\u{1b}[2Jup)"}});
        let amounts = serde_json::json!({"memory": 0, "count": 1});
        let ranking = serde_json::json!({"by": "dashboard", "sort": "memory", "window": "1h", "running": 2, "rows": [row], "other": amounts, "total": amounts});
        let text = table(&ranking);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "by dashboard, memory of the last 1h; 2 of the queries still run");
        let words: Vec<_> = lines[2].split_whitespace().take(9).collect();
        assert_eq!(words, ["3GiB", "12.3k", "5", "1.2", "0", "2", "0.4", "-", "abc/7"]);
        assert!(lines[3].contains("(others, or no dashboard)"), "{text}");
        assert!(lines[2].ends_with("sum( [2Jup)") && lines[4].contains("(all)"), "{text}");
    }
}
