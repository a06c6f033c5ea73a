//! *Explain*: the syntax tree of a query with the cost of each node, the verdict, and the fix.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{
    escape::escaped,
    html::{Column, cell, row, table},
};
use crate::{admin::explain::Question, base::units};

const NODE: Column = ("node", "node");
const MEMORY: Column = ("memory", "n");
const SERIES: Column = ("series", "n");
const POINTS: Column = ("points", "n");
const SAMPLES: Column = ("samples", "n");
const KNOWN: Column = ("known as", "");

/// Levels of the tree that are shown as such; deeper nodes stand at the last.
const DEPTH_MAX: u64 = 24;

/// The form, and the answer to its question.
pub(super) fn write(
    out: &mut String,
    question: &Question,
    answer: Option<&Result<Value, String>>,
) -> fmt::Result {
    let Question { query, range, step, tenant } = question;
    write!(
        out,
        "<section><h2>What would a query cost?</h2><form action=\"/explain\" method=\"get\">\
         <label>Query <textarea name=\"query\" rows=\"4\" required spellcheck=\"false\">{}</textarea></label>\
         <div class=\"fields\">\
         <label>Range <input name=\"range\" placeholder=\"one moment, or 6h\" value=\"{}\"></label>\
         <label>Step <input name=\"step\" placeholder=\"15s\" value=\"{}\"></label>\
         <label>Tenant <input name=\"tenant\" value=\"{}\"></label></div>\
         <button>Explain</button></form></section>",
        escaped(query),
        escaped(range),
        escaped(step),
        escaped(tenant)
    )?;
    match answer {
        None => Ok(()),
        Some(Err(message)) => {
            write!(
                out,
                "<div class=\"findings\" role=\"status\"><p class=\"critical\">{}</p></div>",
                escaped(message)
            )
        }
        Some(Ok(answer)) => explained(out, answer),
    }
}

fn explained(out: &mut String, answer: &Value) -> fmt::Result {
    let data = &answer["data"];
    let verdict = &data["verdict"];
    let message = verdict["message"].as_str().unwrap_or_default();
    let (class, word) = match (verdict["admitted"] == true, verdict["slow"] == true) {
        (true, false) => ("ok", "It would run"),
        (true, true) => ("warning", "It would run in the slow lane"),
        (false, _) => ("critical", "It would be refused"),
    };
    write!(
        out,
        "<div class=\"findings\" role=\"status\"><p class=\"{class}\"><b>verdict</b> {word}{}{}</p>",
        if message.is_empty() { "." } else { ": " },
        escaped(message)
    )?;
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        write!(out, "<p class=\"warning\">{}</p>", escaped(warning))?;
    }
    out.write_str("</div>")?;
    let nodes = data["tree"].as_array().map_or(&[][..], Vec::as_slice);
    if !nodes.is_empty() {
        out.write_str("<section><h2>Cost by node</h2>")?;
        let columns = [NODE, MEMORY, SERIES, POINTS, SAMPLES, KNOWN];
        table(out, "Cost by node", &columns, |out| {
            nodes.iter().enumerate().try_for_each(|(at, one)| node(out, at, one))
        })?;
        out.write_str("</section>")?;
    }
    write!(
        out,
        "<section><h2>In words</h2><pre id=\"words\">{}</pre>\
         <p class=\"acts\"><button type=\"button\" data-copy=\"words\">Copy</button></p></section>",
        escaped(data["text"].as_str().unwrap_or_default())
    )?;
    fix(out, data)
}

/// The cheapest change that would pass, where one was found, and else the change that would save most.
fn fix(out: &mut String, data: &Value) -> fmt::Result {
    let text = |at: &Value| at.as_str().map(str::to_owned);
    let ready = &data["verdict"]["fix"];
    let (title, fix) = match text(&ready["query"]) {
        Some(fix) => ("A query that would pass", fix),
        None => ("The change that saves most", text(&data["cheapestFix"]).unwrap_or_default()),
    };
    let mut times = String::new();
    for name in ["start", "end", "step"] {
        if let Some(value) = ready[name].as_str() {
            write!(times, "<p><small>{name}</small> <code>{}</code></p>", escaped(value))?;
        }
    }
    write!(
        out,
        "<section><h2>{title}</h2><pre id=\"fix\">{}</pre>{times}\
         <p class=\"acts\"><button type=\"button\" data-copy=\"fix\">Copy</button></p></section>",
        escaped(&fix)
    )
}

fn node(out: &mut String, at: usize, one: &Value) -> fmt::Result {
    let number = |key: &str, show: fn(u64) -> String| match one[key].as_u64() {
        Some(u64::MAX) => "unknown".to_owned(),
        Some(value) => show(value),
        None => "–".to_owned(),
    };
    row(out, at, |out| {
        let depth = one["depth"].as_u64().unwrap_or(0);
        // Indentation for the eye, the level for the ear.
        let indent = "<i></i>".repeat(depth.min(DEPTH_MAX) as usize);
        let name = escaped(one["node"].as_str().unwrap_or_default());
        cell(
            out,
            NODE,
            format_args!("{indent}<span class=\"sr\">level {}: </span><code>{name}</code>", depth + 1),
        )?;
        cell(out, MEMORY, number("memoryBytes", units::bytes))?;
        cell(out, SERIES, number("series", units::count))?;
        cell(out, POINTS, number("points", units::count))?;
        cell(out, SAMPLES, number("samples", units::count))?;
        cell(out, KNOWN, escaped(one["known"].as_str().unwrap_or_default()))
    })
}
