//! `/api/v1/admin/limits`: the limits of a tenant, the source of each, and their use.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{
    operations::Suggest,
    reply::{Failed, RequestParams, success},
};
use crate::{
    base::{ErrorKind, TenantId},
    limit::{EffectiveLimit, TenantSnapshot},
    proxy::{Proxy, Refused},
};

/// The limits of one tenant and their use.
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
    /// Used of its quotas in the hour or day of now, by all proxies as far as known.
    pub(super) quotas_used: BTreeMap<&'static str, u64>,
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

/// Suggests limits from the journal.
#[derive(Clone)]
pub(super) struct Suggester {
    /// `None` where no journal is kept.
    suggest: Option<Suggest>,
    /// One at a time: it reads all of the journal.
    turn: Arc<Semaphore>,
}

impl TenantLimits {
    /// Those of now; with a suggester the journal is read, which takes seconds.
    pub(super) async fn of(
        proxy: &Proxy,
        tenant: TenantId,
        suggester: Option<&Suggester>,
    ) -> Result<Self, Failed> {
        let used = proxy.snapshot().tenants.into_iter().find(|used| used.tenant == tenant);
        let (running, waiting, memory) = used
            .map_or((0, 0, 0), |TenantSnapshot { queries, waiting, memory, .. }| (queries, waiting, memory));
        let mut refusals = proxy.active().rejections();
        refusals.retain(|refused| refused.tenant == tenant.as_str());
        let limits = proxy.live().limit_table.of(&tenant);
        let quotas = proxy.admission.quotas_used().into_iter().filter(|(whose, _)| *whose == tenant);
        let quotas_used = quotas.map(|(_, used)| (used.kind.as_str(), used.all)).collect();
        let suggestion = match suggester {
            Some(suggester) => Some(suggester.suggest(&tenant).await?),
            None => None,
        };
        let tenant = tenant.to_string();
        Ok(Self { tenant, running, waiting, memory, limits, quotas_used, refusals, suggestion })
    }
}

impl Suggester {
    pub(super) fn new(suggest: Option<Suggest>) -> Self {
        Self { suggest, turn: Arc::new(Semaphore::new(1)) }
    }

    async fn suggest(&self, tenant: &TenantId) -> Result<Suggestion, Failed> {
        let Some(suggest) = self.suggest.clone() else {
            return Ok(Suggestion::None("no journal is kept here".to_owned()));
        };
        let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() else {
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
}

/// The parameters of a request: the tenant, if it names one, and whether to suggest limits.
pub(super) fn parameters(mut asked: RequestParams) -> Result<(Option<TenantId>, bool), Failed> {
    let tenant = match asked.take("tenant") {
        Some(name) => {
            Some(TenantId::new(&name).ok_or_else(|| Failed::bad(format!("`{name}` is no tenant name")))?)
        }
        None => None,
    };
    let suggests = match asked.take("suggest").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Failed::bad(format!("`suggest` is true or false, not `{other}`"))),
    };
    asked.nothing_else()?;
    Ok((tenant, suggests))
}

/// The same as JSON.
pub(super) async fn limits(
    State(proxy): State<Arc<Proxy>>,
    State(suggester): State<Suggester>,
    asked: RequestParams,
) -> Result<Response, Failed> {
    let (named, suggests) = parameters(asked)?;
    let tenant = named.ok_or_else(|| Failed::bad("`tenant` says whose limits"))?;
    Ok(success(TenantLimits::of(&proxy, tenant, suggests.then_some(&suggester)).await?))
}
