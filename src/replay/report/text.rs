//! The summary as text.

use std::fmt::Write as _;

use super::{COLUMNS, NOTES, cells, rows, tables};
use crate::{
    base::{timestamp, units},
    replay::{Summary, Tally},
};

/// The summary as lines of text.
pub fn text(summary: &Summary) -> String {
    let mut out = headline(&summary.total);
    if let Some((first, last)) = summary.span {
        // Writing to a string does not fail.
        let _ = writeln!(out, "From {} to {}.", timestamp::text(first), timestamp::text(last));
    }
    for (heading, groups) in tables(summary) {
        let rows = rows(groups);
        if !rows.is_empty() {
            table(&mut out, heading, &rows);
        }
    }
    let worst = summary.worst();
    if !worst.is_empty() {
        out.push_str("\nThe worst:\n");
    }
    for case in worst {
        let (observed, max) = (case.limit.show(case.observed.value), case.limit.show(case.max));
        let _ = writeln!(
            out,
            "  {}: {observed} {} ({}), the limit is {max}; {} of {} times answered before\n    tenant {}, {}\n    {}",
            case.limit.id(),
            case.limit.noun(),
            case.observed.confidence,
            units::count(case.ran),
            units::count(case.times),
            one_line(&case.tenant),
            one_line(&case.origin),
            one_line(&case.query),
        );
    }
    let _ = write!(out, "\n{}\n{}", NOTES[0], NOTES[1]);
    out
}

/// The sum as a sentence.
pub(super) fn headline(total: &Tally) -> String {
    let count = units::count;
    format!(
        "Of {} queries {} would be admitted and {} refused, {} of which were answered before; {} are unknown.\n",
        count(total.queries),
        count(total.admitted),
        count(total.refused),
        count(total.newly_refused),
        count(total.unknown),
    )
}

fn table(out: &mut String, heading: &str, rows: &[(String, Tally)]) {
    let name = rows.iter().map(|(name, _)| name.chars().count()).chain([heading.len()]).max().unwrap_or(0);
    let _ = write!(out, "\n{heading:name$}");
    for column in COLUMNS {
        let _ = write!(out, "  {column:>9}");
    }
    out.push('\n');
    for (row, tally) in rows {
        let _ = write!(out, "{:name$}", one_line(row));
        for (column, number) in COLUMNS.iter().zip(cells(tally)) {
            let width = column.len().max(9);
            let _ = write!(out, "  {:>width$}", units::count(number));
        }
        out.push('\n');
    }
}

/// A text that stays on its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
