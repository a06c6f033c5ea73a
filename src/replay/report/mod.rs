//! A summary for people, for programs and for a browser.

mod html;
mod json;
mod text;

pub use self::{html::html, json::json, text::text};

use super::summary::{Groups, Tally};

/// Rows of a table; the report counts those that it leaves out.
const ROWS_MAX: usize = 20;

/// The first rows of a table, and the sum of all others.
fn rows(groups: &Groups) -> Vec<(String, Tally)> {
    let sorted = groups.sorted();
    let mut rows: Vec<_> =
        sorted.iter().take(ROWS_MAX).map(|(name, tally)| ((*name).to_owned(), *tally)).collect();
    let mut others = groups.others;
    for (_, tally) in sorted.iter().skip(ROWS_MAX) {
        others.plus(tally);
    }
    if others.queries > 0 {
        rows.push(("all others".to_owned(), others));
    }
    rows
}

/// The columns of every table.
const COLUMNS: [&str; 9] = [
    "queries",
    "admitted",
    "refused",
    "of these answered before",
    "unknown",
    "admitted now",
    "shadow",
    "slow lane",
    "cut",
];

fn cells(tally: &Tally) -> [u64; 9] {
    let Tally { queries, admitted, refused, newly_refused, unknown, newly_admitted, shadowed, slow, clamped } =
        *tally;
    [queries, admitted, refused, newly_refused, unknown, newly_admitted, shadowed, slow, clamped]
}

/// The tables of a report, with the heading of their first column.
fn tables(summary: &super::Summary) -> [(&'static str, &Groups); 5] {
    [
        ("tenant", &summary.tenants),
        ("limit", &summary.limits),
        ("dashboard", &summary.dashboards),
        ("rule", &summary.rules),
        ("not replayed", &summary.not_replayed),
    ]
}

/// The note of a report on verdicts that cannot be known.
const NOTES: [&str; 2] = [
    "unknown: the record lacks a number that decides, or Weir would have counted first.",
    "Rates run on the recorded times. Budgets in flight are simulated with the recorded durations; a query that would have to wait is unknown.",
];
