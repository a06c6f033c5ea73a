//! Several proxies before the same backends.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::lit,
    raw::Raw,
    scalar::{Count, Secret, Span},
};
use crate::{limit::Sharing, proxy};

/// The time that a query without a limit is taken to run at most.
const UNLIMITED: Duration = Duration::from_secs(3_600);
/// How long a backend may hold the memory of a query whose client left.
const LINGER_MAX: Duration = Duration::from_secs(3);

/// Several proxies before the same backends, which keep to one budget together. All have the same configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// The most proxies that run at the same time, those of a rollout included. Each has an equal part of every budget, or
    /// with a store of half of it. Every budget needs four `queries` for each.
    pub replicas_max: Count,
    /// Redis or Valkey, one primary: `redis://:${PASSWORD}@host:6379/0`, or `rediss://` with TLS. The other half of every
    /// budget is leased there to the proxies that need it. Takes effect at the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Secret>,
    /// The name of the fleet; proxies of one name share. Takes effect at the next start.
    pub name: String,
    /// Longest wait for the store. No query waits for it: a slow store leaves every proxy its fixed part. Takes effect at
    /// the next start.
    pub timeout: Span,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { replicas_max: lit("1"), store: None, name: "weir".to_owned(), timeout: lit("250ms") }
    }
}

impl Fleet {
    /// How budgets are divided.
    pub(super) fn sharing(&self) -> Sharing {
        let replicas_max = self.replicas_max.0;
        Sharing { replicas_max, leased: self.store.is_some() && replicas_max.get() > 1 }
    }
}

/// The fleet that a proxy joins; `None` without a store, or alone.
pub(super) fn resolve(raw: &Raw) -> Option<proxy::FleetSettings> {
    let store = raw.fleet.store.as_ref().filter(|_| raw.fleet.sharing().leased)?;
    let limits = raw.limits.tenants.values().chain([&raw.limits.default]);
    let written = limits.filter_map(|limits| limits.per_query.timeout);
    let classes = raw.classes.iter().filter_map(|class| class.per_query.timeout);
    let longest = written.chain(classes).map(|limit| limit.at().map_or(UNLIMITED, Span::duration)).max();
    Some(proxy::FleetSettings {
        url: store.reveal().to_owned(),
        name: raw.fleet.name.clone(),
        id: format!("{}", raw.server.listen),
        replicas_max: raw.fleet.replicas_max.0.get(),
        timeout: raw.fleet.timeout.duration(),
        longest_query: longest.unwrap_or(UNLIMITED) + LINGER_MAX,
    })
}
