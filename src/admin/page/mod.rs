//! The page: HTML without scripts, fonts or pictures, so that it works from any machine and needs nothing else.

mod escape;
mod tables;

use std::fmt::{self, Write as _};

use super::snapshot::{Snapshot, span};
use crate::base::units;
pub use escape::{Escaped, escaped};
use tables::{backends, queries, refusals, tenants};

const STYLE: &str = include_str!("page.css");
/// Seconds between two loads that the page offers, beside none at all.
const OFFERED: [u32; 3] = [2, 5, 30];

/// The page of a snapshot; `refresh` is the time between reloads, seconds.
pub fn page(snapshot: &Snapshot, refresh: Option<u32>) -> String {
    let mut out = String::with_capacity(32 << 10);
    // Writing to a string does not fail.
    let _ = write_page(&mut out, snapshot, refresh);
    out
}

fn write_page(out: &mut String, snapshot: &Snapshot, refresh: Option<u32>) -> fmt::Result {
    let findings = snapshot.findings();
    let title = match findings.len() {
        0 => "Weir: all is well".to_owned(),
        1 => "Weir: 1 finding".to_owned(),
        n => format!("Weir: {n} findings"),
    };
    out.write_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    out.write_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    out.write_str("<meta name=\"color-scheme\" content=\"light dark\">")?;
    if let Some(seconds) = refresh {
        write!(out, "<meta http-equiv=\"refresh\" content=\"{seconds}\">")?;
    }
    write!(out, "<title>{title}</title><style>{STYLE}</style></head>\n<body>")?;
    header(out, snapshot, refresh)?;
    out.write_str("<main>")?;
    out.write_str("<section class=\"findings\">")?;
    if findings.is_empty() {
        out.write_str("<p class=\"ok\">All is well.</p>")?;
    }
    for finding in &findings {
        let severity = finding.severity.as_str();
        write!(out, "<p class=\"{severity}\"><b>{severity}</b> {}</p>", escaped(&finding.text))?;
    }
    if let Some((_, mistake)) = &snapshot.config.mistake {
        write!(out, "<pre>{}</pre>", escaped(mistake))?;
    }
    out.write_str("</section>")?;
    backends(out, snapshot)?;
    queries(out, "In flight", &snapshot.running, false)?;
    queries(out, "Waiting", &snapshot.waiting, true)?;
    tenants(out, snapshot)?;
    refusals(out, snapshot)?;
    out.write_str("</main></body></html>\n")
}

fn header(out: &mut String, snapshot: &Snapshot, refresh: Option<u32>) -> fmt::Result {
    let since = |then: i64| span(snapshot.now_ms.saturating_sub(then).max(0) as u64);
    out.write_str("<header><h1>Weir</h1><p>")?;
    write!(out, "<span>{}</span>", clock(snapshot.now_ms))?;
    write!(out, "<span>version {}, up {}</span>", escaped(snapshot.version), since(snapshot.started_ms))?;
    write!(out, "<span>configuration loaded {} ago</span>", since(snapshot.config.loaded_ms))?;
    write!(out, "<span>{} client connections</span>", units::count(snapshot.connections.used))?;
    out.write_str("</p><nav>reload every ")?;
    for seconds in OFFERED {
        link(out, refresh == Some(seconds), &format!("?refresh={seconds}"), &format!("{seconds}s"))?;
    }
    link(out, refresh.is_none(), "?refresh=0", "never")?;
    out.write_str(" · <a href=\"/status.json\">JSON</a> <a href=\"/metrics\">metrics</a></nav></header>")
}

fn link(out: &mut String, here: bool, to: &str, text: &str) -> fmt::Result {
    if here { write!(out, "<b>{text}</b> ") } else { write!(out, "<a href=\"{to}\">{text}</a> ") }
}

/// A moment as people write it, in UTC.
pub(super) fn clock(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}
