//! The summary as one HTML file: no scripts, nothing from elsewhere.

use std::fmt::{self, Write as _};

use super::{COLUMNS, NOTES, cells, rows, tables, text::headline};
use crate::{
    admin::escaped,
    base::{timestamp, units},
    replay::{Summary, Tally},
};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}\
th,td{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #8886}\
th:first-child,td:first-child{text-align:left}code{white-space:pre-wrap;overflow-wrap:anywhere}\
@media (prefers-color-scheme:dark){body{background:#161616;color:#ddd}}";

/// The summary as a page.
pub fn html(summary: &Summary) -> String {
    let mut out = String::with_capacity(16 << 10);
    // Writing to a string does not fail.
    let _ = write_page(&mut out, summary);
    out
}

fn write_page(out: &mut String, summary: &Summary) -> fmt::Result {
    out.write_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    out.write_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    out.write_str("<meta name=\"color-scheme\" content=\"light dark\">")?;
    write!(out, "<title>Weir: replay</title><style>{STYLE}</style></head>\n<body><main><h1>Replay</h1>")?;
    write!(out, "<p>{}</p>", escaped(headline(&summary.total).trim_end()))?;
    if let Some((first, last)) = summary.span {
        write!(out, "<p>From {} to {}.</p>", timestamp::text(first), timestamp::text(last))?;
    }
    for (heading, groups) in tables(summary) {
        let rows = rows(groups);
        if !rows.is_empty() {
            table(out, heading, &rows)?;
        }
    }
    worst(out, summary)?;
    writeln!(out, "<p>{}</p><p>{}</p></main></body></html>", NOTES[0], NOTES[1])
}

fn table(out: &mut String, heading: &str, rows: &[(String, Tally)]) -> fmt::Result {
    write!(out, "<h2>By {heading}</h2><table><thead><tr><th scope=\"col\">{heading}</th>")?;
    for column in COLUMNS {
        write!(out, "<th scope=\"col\">{column}</th>")?;
    }
    out.write_str("</tr></thead><tbody>")?;
    for (name, tally) in rows {
        write!(out, "<tr><td>{}</td>", escaped(name))?;
        for number in cells(tally) {
            write!(out, "<td>{}</td>", units::count(number))?;
        }
        out.write_str("</tr>")?;
    }
    out.write_str("</tbody></table>")
}

fn worst(out: &mut String, summary: &Summary) -> fmt::Result {
    let worst = summary.worst();
    if worst.is_empty() {
        return Ok(());
    }
    out.write_str("<h2>The worst</h2><ol>")?;
    for case in worst {
        write!(
            out,
            "<li><strong>{}</strong>: {} {} ({}), the limit is {}; {} of {} times answered before.<br>\
             Tenant {}, {}.<br><code>{}</code></li>",
            case.limit.id(),
            case.limit.show(case.observed.value),
            case.limit.noun(),
            case.observed.confidence,
            case.limit.show(case.max),
            units::count(case.ran),
            units::count(case.times),
            escaped(&case.tenant),
            escaped(&case.origin),
            escaped(&case.query),
        )?;
    }
    out.write_str("</ol>")
}
