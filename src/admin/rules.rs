//! `/api/v1/admin/rules`: the rules in force, and how they are set and taken away.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::reply::{Failed, RequestParams, success, with_fleet};
use crate::{
    base::ErrorKind,
    proxy::{NoRoom, Proxy},
    rules::{RULES_MAX, Rule, RuleSpec},
};

/// Bytes of a rule as JSON.
pub(super) const RULE_BYTES_MAX: usize = 128 << 10;

/// All of them, in the order in which they are held against a query.
pub(super) async fn list(State(proxy): State<Arc<Proxy>>, asked: RequestParams) -> Result<Response, Failed> {
    asked.nothing_else()?;
    Ok(success(json!({"now_ms": proxy.now_ms(), "rules": all(&proxy)})))
}

/// Each as it is written, with its source, its hits, and whether it has expired.
pub(super) fn all(proxy: &Proxy) -> Vec<Value> {
    let (set, now_ms) = (proxy.rules().set(), proxy.now_ms());
    let run_time = set.at_run_time.iter().map(|rule| shown(proxy, rule, "api", now_ms));
    let configured = set.configured.iter().map(|rule| shown(proxy, rule, "configuration", now_ms));
    run_time.chain(configured).collect()
}

fn shown(proxy: &Proxy, rule: &Rule, source: &str, now_ms: i64) -> Value {
    // There are only numbers and texts.
    let mut shown = serde_json::to_value(&rule.spec).unwrap_or_default();
    shown["source"] = json!(source);
    shown["hits"] = json!(proxy.metrics.rule_hits(rule.name(), rule.action.as_str()));
    shown["expired"] = json!(rule.is_expired(now_ms));
    shown
}

/// Sets one, before all others, in place of one of the same name. The body is the rule as JSON.
pub(super) async fn add(
    State(proxy): State<Arc<Proxy>>,
    mut asked: RequestParams,
    body: Bytes,
) -> Result<Response, Failed> {
    let by = asked.take("by");
    asked.nothing_else()?;
    let spec = RuleSpec::from_json(&body).map_err(|error| {
        // The rule may come from options of a command: there is no line to look at.
        let (error, at) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        Failed::bad(format!("the rule: {}", error.strip_suffix(&at).unwrap_or(&error)))
    })?;
    let now_ms = proxy.now_ms();
    let mut rule = spec.read(Some(now_ms)).map_err(|(key, why)| Failed::bad(format!("{key}: {why}")))?;
    let author = asked.author(by);
    if rule.spec.owner.is_empty() {
        rule.spec.owner.clone_from(&author.name);
    }
    let (adding, kept) = (Arc::clone(&proxy), rule.clone());
    // It is written to the disk.
    let set = tokio::task::spawn_blocking(move || adding.rules().add(kept, &author)).await;
    let error =
        set.map_err(|error| Failed(ErrorKind::Internal, error.to_string()))?.map_err(|why| match why {
            NoRoom::Full => Failed::bad(format!("there are {RULES_MAX} rules already; take one away")),
            NoRoom::Configured => {
                Failed::bad(format!("a rule of the configuration is named `{}`", spec.name))
            }
        })?;
    let mut shown = shown(&proxy, &rule, "api", now_ms);
    shown["kept"] = json!(error.is_none());
    Ok(success(with_fleet(shown, proxy.pass_on_rules().await)))
}

/// Takes one away.
pub(super) async fn remove(
    State(proxy): State<Arc<Proxy>>,
    Path(name): Path<String>,
    mut asked: RequestParams,
) -> Result<Response, Failed> {
    let by = asked.take("by");
    asked.nothing_else()?;
    let (author, gone) = (asked.author(by), name.clone());
    let removing = Arc::clone(&proxy);
    let removed = tokio::task::spawn_blocking(move || removing.rules().remove(&gone, &author)).await;
    let removed = removed.map_err(|error| Failed(ErrorKind::Internal, error.to_string()))?;
    let why = || {
        format!("no rule `{name}` was set over the admin API; those of the configuration are changed there")
    };
    let (rule, error) = removed.ok_or_else(|| Failed::missing(why()))?;
    let removed = json!({"removed": rule.name(), "kept": error.is_none()});
    Ok(success(with_fleet(removed, proxy.pass_on_rules().await)))
}
