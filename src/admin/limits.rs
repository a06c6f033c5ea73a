//! `/api/v1/admin/limits`: the limits of a tenant, where each comes from, and what they meet.

use axum::{extract::State, response::Response};
use serde::Serialize;

use super::{
    reply::{Asked, Failed, success},
    state::Admin,
};
use crate::{
    base::{ErrorKind, TenantId},
    limit::{EffectiveLimit, TenantSnapshot},
    proxy::Refused,
};

/// The limits of one tenant and what they meet.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TenantLimits {
    /// Whose.
    pub(super) tenant: String,
    /// Queries in flight and waiting now.
    pub(super) running: u64,
    pub(super) waiting: u64,
    /// Bytes that those in flight are expected to hold.
    pub(super) memory: u64,
    /// By key.
    pub(super) limits: Vec<EffectiveLimit>,
    /// The latest of its queries that were refused, or would have been.
    pub(super) refusals: Vec<Refused>,
    /// Limits that the journal suggests; `None` if nobody asked.
    pub(super) suggestion: Option<Suggestion>,
}

/// Limits that the journal suggests.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Suggestion {
    /// As a patch to the configuration.
    Patch(String),
    /// Why there are none.
    None(String),
}

impl TenantLimits {
    /// Those of now; with `suggests` the journal is read, which takes seconds.
    pub(super) async fn of(admin: &Admin, tenant: TenantId, suggests: bool) -> Result<Self, Failed> {
        let proxy = &admin.proxy;
        let used = proxy.snapshot().tenants.into_iter().find(|used| used.tenant == tenant);
        let (running, waiting, memory) = used
            .map_or((0, 0, 0), |TenantSnapshot { queries, waiting, memory, .. }| (queries, waiting, memory));
        let mut refusals = proxy.active().rejections();
        refusals.retain(|refused| refused.tenant == tenant.as_str());
        let limits = proxy.live().limit_table.of(&tenant);
        let suggestion = if suggests { Some(suggest(admin, &tenant).await?) } else { None };
        Ok(Self { tenant: tenant.to_string(), running, waiting, memory, limits, refusals, suggestion })
    }
}

async fn suggest(admin: &Admin, tenant: &TenantId) -> Result<Suggestion, Failed> {
    let Some(suggest) = admin.operations.suggest.clone() else {
        return Ok(Suggestion::None("no journal is kept here".to_owned()));
    };
    let Ok(turn) = admin.suggesting.clone().try_acquire_owned() else {
        let why = "the journal is being read for somebody else; ask again in a moment";
        return Ok(Suggestion::None(why.to_owned()));
    };
    let name = tenant.to_string();
    // It reads all of the journal.
    let suggested = tokio::task::spawn_blocking(move || {
        let suggested = suggest(&name).map_or_else(Suggestion::None, Suggestion::Patch);
        drop(turn);
        suggested
    });
    suggested.await.map_err(|error| Failed(ErrorKind::Internal, error.to_string()))
}

/// The tenant of a request, as a name.
pub(super) fn tenant(asked: &mut Asked) -> Result<Option<TenantId>, Failed> {
    let name = asked.take("tenant");
    name.map(|name| TenantId::new(&name).ok_or_else(|| Failed::bad(format!("`{name}` is no tenant name"))))
        .transpose()
}

/// The same as JSON.
pub(super) async fn limits(State(admin): State<Admin>, mut asked: Asked) -> Result<Response, Failed> {
    let named = tenant(&mut asked)?;
    let suggests = asked.take("suggest").is_some_and(|value| value == "true");
    asked.nothing_else()?;
    let tenant = named.ok_or_else(|| Failed::bad("`tenant` says whose limits"))?;
    Ok(success(TenantLimits::of(&admin, tenant, suggests).await?))
}
