//! *Top*: the heaviest of the last minutes, hour or day.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{
    escape::escaped,
    html::{Column, buttons, cell, code, filled, none, params, row, table},
};
use crate::base::units;

/// A parameter, its label, and its values with theirs.
type Choice = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The choices of the form.
const CHOICES: [Choice; 3] = [
    ("window", "Of the last", &[("5m", "5 minutes"), ("1h", "hour"), ("24h", "day")]),
    (
        "by",
        "By",
        &[
            ("dashboard", "dashboard and panel"),
            ("fingerprint", "query"),
            ("user", "user"),
            ("rule", "rule"),
            ("tenant", "tenant"),
            ("client", "client"),
        ],
    ),
    (
        "sort",
        "Sorted by",
        &[
            ("memory", "memory"),
            ("count", "queries"),
            ("samples", "samples"),
            ("seconds", "time"),
            ("refused", "refusals"),
            ("shadow_refused", "refusals in shadow mode"),
        ],
    ),
];

const KEY: Column = ("key", "who");
const MEMORY: Column = ("memory, sum", "");
const QUERIES: Column = ("queries", "n");
const SAMPLES: Column = ("samples", "n");
const TIME: Column = ("time", "n");
const P50: Column = ("p50", "n");
const P99: Column = ("p99", "n");
const REFUSED: Column = ("refused", "n");
const WORST: Column = ("most expensive", "q");
const ACTS: Column = ("", "buttons");

/// The view of an answer of `GET /api/v1/admin/top`; `None` where no queries are recorded.
pub(super) fn write(out: &mut String, top: Option<&Value>) -> fmt::Result {
    let Some(top) = top else {
        out.write_str("<section><h2>The heaviest</h2>")?;
        none(out, "not available: this process keeps no record of queries")?;
        return out.write_str("</section>");
    };
    out.write_str("<section><h2>The heaviest</h2><form action=\"/top\" method=\"get\" class=\"line\">")?;
    for (name, label, values) in CHOICES {
        write!(out, "<label>{label} <select name=\"{name}\">")?;
        for (value, text) in values {
            let chosen = if top[name] == *value { " selected" } else { "" };
            write!(out, "<option value=\"{value}\"{chosen}>{text}</option>")?;
        }
        out.write_str("</select></label> ")?;
    }
    out.write_str("<button>Show</button></form></section><section>")?;
    let rows = top["rows"].as_array().map_or(&[][..], Vec::as_slice);
    write!(
        out,
        "<h2>{} queries <small>of which {} still run, {} of memory in all, {} refused</small></h2>",
        number(&top["total"]["count"], units::count),
        number(&top["running"], units::count),
        number(&top["total"]["memory"], units::bytes),
        number(&top["total"]["refused"], units::count)
    )?;
    if rows.is_empty() {
        none(out, "none")?;
    } else {
        let columns = [KEY, MEMORY, QUERIES, SAMPLES, TIME, P50, P99, REFUSED, WORST, ACTS];
        table(out, "The heaviest", &columns, |out| rows.iter().try_for_each(|row| one(out, row, top)))?;
    }
    out.write_str("</section>")
}

fn one(out: &mut String, one: &Value, top: &Value) -> fmt::Result {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (key, panel, by) = (text(&one["key"]), text(&one["panel"]), text(&top["by"]));
    row(out, format_args!("{key} {panel}"), |out| {
        let of_panel = if panel.is_empty() {
            String::new()
        } else {
            format!(" <small>panel {}</small>", escaped(&panel))
        };
        cell(out, KEY, format_args!("<b>{}</b>{of_panel}", escaped(&key)))?;
        let (memory, all) =
            (one["memory"].as_u64().unwrap_or(0), top["total"]["memory"].as_u64().unwrap_or(0));
        let percent = u128::from(memory) * 100 / u128::from(all.max(1));
        let shown = format!("{} <small>{percent} %</small>", units::bytes(memory));
        cell(out, MEMORY, filled("share of the memory of all queries", percent as u64, &shown))?;
        cell(out, QUERIES, number(&one["count"], units::count))?;
        cell(out, SAMPLES, number(&one["samples"], units::count))?;
        cell(out, TIME, seconds(&one["seconds"]))?;
        cell(out, P50, seconds(&one["p50_seconds"]))?;
        cell(out, P99, seconds(&one["p99_seconds"]))?;
        let shadow = match one["shadow_refused"].as_u64() {
            None | Some(0) => String::new(),
            Some(n) => format!("<div><small>{} in shadow mode</small></div>", units::count(n)),
        };
        cell(out, REFUSED, format_args!("{}{shadow}", number(&one["refused"], units::count)))?;
        let worst = &one["worst"];
        let (query, tenant) = (text(&worst["query"]), text(&worst["tenant"]));
        let (of, memory) = (escaped(&tenant), number(&worst["memory"], units::bytes));
        cell(out, WORST, format_args!("{}<div><small>tenant {of} · {memory}</small></div>", code(&query)))?;
        let matches = [(by.as_str(), key.as_str()), ("panel", &panel)];
        // Rules and clients are no parameters of a kill, nor of a rule.
        let is_named = ["dashboard", "fingerprint", "user", "tenant"].contains(&&*by);
        let what = format!("all queries of {by} {key}");
        let acts =
            if is_named { buttons(&what, &params([(&*by, &*key)]), &params(matches)) } else { String::new() };
        cell(out, ACTS, acts)
    })
}

fn number(value: &Value, show: fn(u64) -> String) -> String {
    value.as_u64().map_or_else(|| "–".to_owned(), show)
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.2}s"))
}
