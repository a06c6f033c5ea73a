//! *Rules*: queries that are refused, slowed down or cut at any cost, and the hits of each rule.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{
    escape::escaped,
    html::{Column, cell, none, row, table},
};
use crate::base::units;

const RULE: Column = ("rule", "");
const MATCHES: Column = ("matches", "r");
const WHY: Column = ("reason", "r");
const HITS: Column = ("hits", "n");
const EXPIRES: Column = ("expires", "");
const ACTS: Column = ("", "buttons");

/// The view of the rules as `GET /api/v1/admin/rules` gives them.
pub(super) fn write(out: &mut String, rules: &[Value]) -> fmt::Result {
    out.write_str(
        "<section><h2>Rules against single queries</h2>\
         <p>The first that matches wins: those set here before those of the configuration file.</p>\
         <p class=\"acts\"><button type=\"button\" data-block=\"\" data-what=\"queries\">Add a rule</button></p>",
    )?;
    if rules.is_empty() {
        none(out, "there are no rules")?;
    } else {
        let columns = [RULE, MATCHES, WHY, HITS, EXPIRES, ACTS];
        table(out, "Rules", &columns, |out| rules.iter().try_for_each(|rule| one(out, rule)))?;
    }
    out.write_str("</section>")
}

fn one(out: &mut String, rule: &Value) -> fmt::Result {
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    let name = text("name");
    row(out, format_args!("{} {name}", text("source")), |out| {
        let (action, source) = (text("action"), text("source"));
        let from = if source == "api" { "set at run time" } else { "from the configuration file" };
        cell(
            out,
            RULE,
            format_args!(
                "<b>{}</b> <span class=\"pill\">{}</span><div><small>{from}</small></div>",
                escaped(name),
                escaped(action)
            ),
        )?;
        let mut matches = String::new();
        for (key, value) in rule["match"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            write!(matches, "<div><small>{}</small> <code>{}</code></div>", escaped(key), escaped(&value))?;
        }
        cell(out, MATCHES, if matches.is_empty() { "every query" } else { &matches })?;
        let owner = escaped(text("owner"));
        cell(out, WHY, format_args!("{}<div><small>{owner}</small></div>", escaped(text("reason"))))?;
        cell(out, HITS, units::count(rule["hits"].as_u64().unwrap_or(0)))?;
        let expired = if rule["expired"] == true { " <span class=\"pill\">expired</span>" } else { "" };
        let expires = if text("expires").is_empty() { "never" } else { text("expires") };
        cell(out, EXPIRES, format_args!("{}{expired}", escaped(expires)))?;
        let remove = format!(
            "<button type=\"button\" class=\"danger\" data-remove=\"{0}\" aria-label=\"Remove rule {0}\">Remove</button>",
            escaped(name)
        );
        cell(
            out,
            ACTS,
            if source == "api" { format!("<span class=\"acts\">{remove}</span>") } else { String::new() },
        )
    })
}
