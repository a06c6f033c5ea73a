//! `weir queries` and `weir kill`: the queries that are priced, wait or run, and an end to them.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use form_urlencoded::Serializer;
use http::Method;
use serde_json::Value;

use super::{
    admin::{AdminAddress, block_on},
    exit::{BAD_INPUT, FAILED},
    operator, output,
    text::{clean, duration_ms, number, size},
};

/// Characters of a query's text in a line.
const TEXT_CHARS: usize = 100;

/// The filters of the list.
#[derive(Debug, Args)]
pub(super) struct Queries {
    #[command(flatten)]
    address: AdminAddress,
    /// Print the JSON of `/api/v1/admin/queries`.
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &Queries) -> ExitCode {
    let admin = match args.address.open() {
        Ok(admin) => admin,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    match block_on(admin.ask(Method::GET, "/api/v1/admin/queries", None)) {
        Ok(data) if args.json => output::out(format_args!("{data:#}"), 0),
        Ok(data) => output::out(table(&data["queries"]), 0),
        Err(message) => output::err(message, FAILED),
    }
}

/// The queries to stop, and the reason for their clients.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
pub(super) struct Kill {
    /// The number of one query, as `weir queries` shows it.
    #[arg(group = "which", conflicts_with_all = ["tenant", "dashboard", "user", "fingerprint"])]
    id: Option<u64>,
    /// Queries of this tenant; of several options a query has to match all.
    #[arg(long, group = "which")]
    tenant: Option<String>,
    /// Queries of the dashboard with this UID.
    #[arg(long, value_name = "UID", group = "which")]
    dashboard: Option<String>,
    /// Queries of this user of Grafana.
    #[arg(long, group = "which")]
    user: Option<String>,
    /// Queries with this fingerprint.
    #[arg(long, group = "which")]
    fingerprint: Option<String>,
    /// Why; the clients and the audit log read it.
    #[arg(long, default_value = "")]
    reason: String,
    /// The operator who stops them; the user of this terminal when it is left out.
    #[arg(long, default_value = "")]
    by: String,
    #[command(flatten)]
    address: AdminAddress,
}

pub(super) fn kill(args: &Kill) -> ExitCode {
    let admin = match args.address.open() {
        Ok(admin) => admin,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    match block_on(admin.ask(Method::DELETE, &target(args), None)) {
        Ok(data) => {
            let killed = data["killed"].as_array().map_or(0, Vec::len);
            let elsewhere = elsewhere(&data["fleet"]);
            let list = if killed == 0 { String::new() } else { table(&data["killed"]) };
            let said = format!("stopped {killed}{elsewhere}\n{list}");
            let is_everywhere = data["fleet"]["passed_on"] != false;
            output::out(said.trim_end(), if is_everywhere { 0 } else { FAILED })
        }
        Err(message) => output::err(message, FAILED),
    }
}

/// How far an order of the admin API went; nothing without a fleet.
pub(super) fn elsewhere(fleet: &Value) -> String {
    match (fleet["passed_on"].as_bool(), fleet["error"].as_str()) {
        (Some(true), _) => " here; passed on to the other proxies".to_owned(),
        (Some(false), why) => {
            format!(" here; NOT passed on to the other proxies: {}", clean(why.unwrap_or_default(), 200))
        }
        (None, _) => String::new(),
    }
}

fn target(args: &Kill) -> String {
    let mut query = Serializer::new(String::new());
    for (name, value) in [
        ("tenant", &args.tenant),
        ("dashboard", &args.dashboard),
        ("user", &args.user),
        ("fingerprint", &args.fingerprint),
        ("reason", &Some(args.reason.clone())),
        ("by", &Some(operator::name(&args.by))),
    ] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            query.append_pair(name, value);
        }
    }
    let id = args.id.map(|id| format!("/{id}")).unwrap_or_default();
    format!("/api/v1/admin/queries{id}?{}", query.finish())
}

/// One line for each query.
pub(super) fn table(queries: &Value) -> String {
    let queries = queries.as_array().map_or(&[][..], Vec::as_slice);
    let state = |query: &Value| {
        let text = |key: &str| query[key].as_str().unwrap_or_default();
        match text("reason") {
            "" => text("state").to_owned(),
            reason => format!("{}: {reason}", text("state")),
        }
    };
    let wide = queries.iter().map(|query| state(query).len()).max().unwrap_or(0).max(9);
    let mut out = format!(
        "{:>8} {:wide$} {:>7} {:>10} {:>9} {:5} {:20} {:24} {}\n",
        "ID", "STATE", "AGE", "SERIES", "MEMORY", "PART", "TENANT", "FROM", "QUERY"
    );
    for query in queries {
        let text = |key: &str| query[key].as_str().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:>8} {:wide$} {:>7} {:>10} {:>9} {:5} {:20} {:24} {}",
            query["id"].to_string(),
            state(query),
            duration_ms(&query["age_ms"]),
            number(&query["series"]["value"]),
            size(&query["memory"]["value"]),
            format!("{}/{}", query["part"], query["parts"]),
            clean(text("tenant"), 20),
            clean(text("actor"), 24),
            clean(text("text"), TEXT_CHARS),
        );
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_headings_whatever_a_query_waits_for() {
        let query = |state, reason| serde_json::json!({"id": 7, "state": state, "reason": reason, "tenant": "acme", "part": 1, "parts": 1});
        let text = table(&serde_json::json!([query("queued", "pressure_saturation"), query("running", "")]));
        let at: Vec<_> = text.lines().map(|line| line.find("acme").or(line.find("TENANT"))).collect();
        assert_eq!(at, [at[0]; 3], "{text}");
    }
}
