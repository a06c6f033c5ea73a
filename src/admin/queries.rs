//! `/api/v1/admin/queries`: the queries that are priced, wait or run, and how they are stopped.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    reply::{Failed, RequestParams, success, with_fleet},
    snapshot::take::{query, wait_reasons},
    state::Admin,
};
use crate::proxy::{Kill, Selection};

/// Characters of a query's text in the list.
const LISTED_CHARS: usize = 1_000;
/// Characters of a reason, and of its author's name.
const REASON_CHARS: usize = 300;

/// All of them, the oldest first.
pub(super) async fn list(State(admin): State<Admin>, asked: RequestParams) -> Result<Response, Failed> {
    asked.nothing_else()?;
    let reasons = wait_reasons(&admin.proxy.admission.snapshot());
    let (mut active, now) = (admin.proxy.active().list(), Instant::now());
    active.sort_by_key(|query| query.facts.began);
    let shown = active.iter().map(|seen| query(seen, reasons.get(&seen.tag).copied(), LISTED_CHARS, now));
    Ok(success(json!({"now_ms": admin.proxy.now_ms(), "queries": shown.collect::<Vec<_>>()})))
}

/// Stops one.
pub(super) async fn kill_one(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    asked: RequestParams,
) -> Result<Response, Failed> {
    let id = id.parse().map_err(|_| Failed::bad(format!("`{id}` is not the number of a query")))?;
    let killed = kill(&admin, Selection { id: Some(id), ..Selection::default() }, asked).await?;
    if killed["killed"] == json!([]) && killed.get("fleet").is_none() {
        return Err(Failed::missing(format!("query {id} is not in the proxy, or was stopped before")));
    }
    Ok(success(killed))
}

/// Stops all that match every parameter.
pub(super) async fn kill_matching(
    State(admin): State<Admin>,
    mut asked: RequestParams,
) -> Result<Response, Failed> {
    let which = Selection {
        id: None,
        tenant: asked.take("tenant"),
        dashboard: asked.take("dashboard"),
        user: asked.take("user"),
        fingerprint: asked.take("fingerprint"),
    };
    if which.is_empty() {
        asked.nothing_else()?;
        return Err(Failed::bad(
            "name a tenant, dashboard, user or fingerprint; all queries are not stopped at once",
        ));
    }
    Ok(success(kill(&admin, which, asked).await?))
}

async fn kill(admin: &Admin, which: Selection, mut asked: RequestParams) -> Result<Value, Failed> {
    let (reason, by) = (asked.take("reason").unwrap_or_default(), asked.take("by"));
    asked.nothing_else()?;
    let is_short = |text: &str| text.chars().count() <= REASON_CHARS;
    if !is_short(&reason) || by.as_deref().is_some_and(|by| !is_short(by)) {
        return Err(Failed::bad(format!("`reason` and `by` have at most {REASON_CHARS} characters")));
    }
    let author = asked.author(by);
    let kill = Kill { by: author.name.clone(), reason };
    let killed = admin.proxy.kill(&which, kill, &author).await;
    let now = Instant::now();
    let shown = killed.here.iter().map(|seen| serde_json::to_value(query(seen, None, LISTED_CHARS, now)));
    // There are only numbers and texts.
    let shown: Vec<_> = shown.filter_map(Result::ok).collect();
    Ok(with_fleet(json!({"killed": shown}), killed.passed_on))
}
