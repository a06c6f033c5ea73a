//! `weir rule`: rules against single queries, of a running Weir.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use form_urlencoded::{Serializer, byte_serialize};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    admin::{AdminAddress, block_on},
    exit::{BAD_INPUT, FAILED},
    operator, output,
    queries::elsewhere,
    text::clean,
};

/// List, add or remove.
#[derive(Debug, Subcommand)]
pub(super) enum Rule {
    /// Print the rules in the order in which they are held against a query.
    List {
        #[command(flatten)]
        address: AdminAddress,
        /// Print the JSON of `/api/v1/admin/rules`.
        #[arg(long)]
        json: bool,
    },
    /// Set a rule before all others, until it expires; one of the same name is replaced.
    Add(Box<Add>),
    /// Take away a rule that was set at run time.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        address: AdminAddress,
        /// The operator who takes it away; the user of this terminal when it is left out.
        #[arg(long, default_value = "")]
        by: String,
    },
}

/// A rule. A query has to match everything that is given; in names `*` stands for anything.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The name in messages and metrics.
    name: String,
    /// The reason, which refused clients read.
    #[arg(long)]
    reason: String,
    /// For how long it holds (`2h`), or until when (`2026-12-01T08:00:00Z`).
    #[arg(long)]
    expires: String,
    /// The action on the queries.
    #[arg(long, default_value = "refuse", value_parser = ["refuse", "shadow", "slow", "clamp"])]
    action: String,
    /// The person to ask; the operator who sets it when it is left out.
    #[arg(long, default_value = "")]
    owner: String,
    /// The same query in any layout, with any numbers and times.
    #[arg(long)]
    fingerprint: Option<String>,
    /// The text of the query, in any layout.
    #[arg(long)]
    query: Option<String>,
    /// A regular expression that is found in the text.
    #[arg(long)]
    regex: Option<String>,
    /// A metric that the query may read, or `prefix*`.
    #[arg(long)]
    metric: Option<String>,
    /// A selector does not say which metric it reads.
    #[arg(long)]
    nameless: bool,
    /// The query spans more than this.
    #[arg(long, value_name = "DURATION")]
    range_longer_than: Option<String>,
    /// The points of the graph are closer than this.
    #[arg(long, value_name = "DURATION")]
    step_shorter_than: Option<String>,
    /// One evaluation reaches back further than this.
    #[arg(long, value_name = "DURATION")]
    window_longer_than: Option<String>,
    /// A tenant, or `team-*`.
    #[arg(long)]
    tenant: Option<String>,
    /// A class.
    #[arg(long)]
    class: Option<String>,
    /// The UID of a dashboard.
    #[arg(long)]
    dashboard: Option<String>,
    /// The id of a panel.
    #[arg(long)]
    panel: Option<String>,
    /// A user of Grafana.
    #[arg(long)]
    user: Option<String>,
    /// The client's program.
    #[arg(long)]
    user_agent: Option<String>,
    /// `query`, `query_range`, `series`, `labels`, `label_values`, `query_exemplars` or `read`.
    #[arg(long)]
    endpoint: Option<String>,
    /// A time of day, UTC: `22:00-06:00`.
    #[arg(long)]
    hours: Option<String>,
    /// `--action clamp` cuts to this time.
    #[arg(long, value_name = "DURATION")]
    clamp_range: Option<String>,
    /// `--action clamp` raises the step to this.
    #[arg(long, value_name = "DURATION")]
    clamp_step: Option<String>,
    /// `--action clamp` limits the answer to this many series or names.
    #[arg(long, value_name = "COUNT")]
    clamp_limit: Option<u64>,
    /// The rule as JSON or as one entry of `rules:`, for everything that has no option; options go before it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The operator who sets it; the user of this terminal when it is left out.
    #[arg(long, default_value = "")]
    by: String,
    #[command(flatten)]
    address: AdminAddress,
}

pub(super) fn run(rule: &Rule) -> ExitCode {
    let outcome = match rule {
        Rule::List { address, json } => list(address, *json),
        Rule::Add(args) => add(args),
        Rule::Remove { name, address, by } => remove(name, address, by),
    };
    match outcome {
        Ok(text) => output::out(text, 0),
        Err((message, code)) => output::err(message, code),
    }
}

type Failed = (String, u8);

fn ask(address: &AdminAddress, method: Method, target: &str, body: Option<&Value>) -> Result<Value, Failed> {
    let admin = address.open().map_err(|message| (message, BAD_INPUT))?;
    block_on(admin.ask(method, target, body)).map_err(|message| (message, FAILED))
}

fn by(name: &str) -> String {
    format!("?{}", Serializer::new(String::new()).append_pair("by", &operator::name(name)).finish())
}

fn list(address: &AdminAddress, json: bool) -> Result<String, Failed> {
    let data = ask(address, Method::GET, "/api/v1/admin/rules", None)?;
    if json {
        return Ok(format!("{data:#}"));
    }
    let mut out = format!(
        "{:24} {:8} {:>8} {:22} {:16} {}",
        "NAME", "ACTION", "HITS", "EXPIRES", "OWNER", "MATCH: REASON"
    );
    for rule in data["rules"].as_array().into_iter().flatten() {
        let text = |key: &str| rule[key].as_str().unwrap_or_default();
        let expires = if rule["expired"] == true { "expired" } else { text("expires") };
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "\n{:24} {:8} {:>8} {:22} {:16} {}: {}",
            clean(text("name"), 24),
            text("action"),
            rule["hits"].to_string(),
            if expires.is_empty() { "never".to_owned() } else { to_the_second(expires) },
            clean(text("owner"), 16),
            clean(&rule["match"].to_string(), 80),
            clean(text("reason"), 100),
        );
    }
    Ok(out)
}

/// A time without its fraction of a second.
fn to_the_second(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(whole, _)| format!("{whole}Z"))
}

fn add(args: &Add) -> Result<String, Failed> {
    let spec = spec(args).map_err(|message| (message, BAD_INPUT))?;
    let target = format!("/api/v1/admin/rules{}", by(&args.by));
    let data = ask(&args.address, Method::POST, &target, Some(&spec))?;
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    let lost = if data["kept"] == true {
        ""
    } else {
        "; it could not be written to the data folder and ends with the process"
    };
    Ok(format!("rule `{}` holds until {}{lost}{}", text("name"), text("expires"), elsewhere(&data["fleet"])))
}

/// The rule as JSON: the file, with the options over it.
fn spec(args: &Add) -> Result<Value, String> {
    let mut spec = match &args.file {
        None => json!({}),
        Some(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?
        }
    };
    let all = spec.as_object_mut().ok_or("a rule is a mapping")?;
    for (key, value) in [
        ("name", &args.name),
        ("reason", &args.reason),
        ("expires", &args.expires),
        ("action", &args.action),
        ("owner", &args.owner),
    ] {
        all.insert(key.to_owned(), json!(value));
    }
    let mut put = |group: &str, key: &str, value: Value| {
        let group = all.entry(group).or_insert_with(|| Value::Object(Map::new()));
        if !value.is_null() {
            group[key] = value;
        }
    };
    for (key, value) in [
        ("fingerprint", &args.fingerprint),
        ("query", &args.query),
        ("regex", &args.regex),
        ("metric", &args.metric),
        ("tenant", &args.tenant),
        ("class", &args.class),
        ("dashboard", &args.dashboard),
        ("panel", &args.panel),
        ("user", &args.user),
        ("user_agent", &args.user_agent),
        ("endpoint", &args.endpoint),
        ("hours", &args.hours),
    ] {
        put("match", key, json!(value));
    }
    for (key, span, value) in [
        ("range", "longer_than", &args.range_longer_than),
        ("step", "shorter_than", &args.step_shorter_than),
        ("window", "longer_than", &args.window_longer_than),
    ] {
        put("match", key, value.as_ref().map_or(Value::Null, |value| json!({span: value})));
    }
    put("match", "nameless", if args.nameless { json!(true) } else { Value::Null });
    put("clamp", "range", json!(args.clamp_range));
    put("clamp", "step", json!(args.clamp_step));
    put("clamp", "limit", json!(args.clamp_limit));
    Ok(spec)
}

fn remove(name: &str, address: &AdminAddress, author: &str) -> Result<String, Failed> {
    let name: String = byte_serialize(name.as_bytes()).collect();
    let target = format!("/api/v1/admin/rules/{name}{}", by(author));
    let data = ask(address, Method::DELETE, &target, None)?;
    let lost =
        if data["kept"] == true { "" } else { "; the data folder could not be written, and brings it back" };
    let name = data["removed"].as_str().unwrap_or_default();
    Ok(format!("rule `{name}` is gone{lost}{}", elsewhere(&data["fleet"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_fits_its_column() {
        for time in ["2026-12-01T12:01:29.774Z", "2026-12-01T12:01:29Z"] {
            assert_eq!(to_the_second(time), "2026-12-01T12:01:29Z");
        }
    }
}
