//! The tenants whose queries hold a backend's memory: an operator stops these first.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use serde::Serialize;
use tokio::time::Instant;

use super::span;
use crate::proxy::{ActiveQuery, cut};

/// Holders that are listed.
const HOLDERS_MAX: usize = 8;
/// Characters of a query's text.
const QUERY_CHARS: usize = 240;

/// The active queries of one dashboard, of one user, or of one fingerprint where neither is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The tenant that pays.
    pub tenant: String,
    /// Which of the parameters of a kill names them: `dashboard`, `user` or `fingerprint`.
    pub by: &'static str,
    /// Its value.
    pub key: String,
    /// Where they run.
    pub backend: String,
    /// Queries that run.
    pub running: u64,
    /// Queries that wait, for budget or for their price.
    pub waiting: u64,
    /// Bytes that the running ones are expected to hold.
    pub memory: u64,
    /// The same in percent of all that run on the backend.
    pub percent: u64,
    /// Bytes that the waiting ones are expected to hold.
    pub wanted: u64,
    /// Time since the oldest of them came, milliseconds.
    pub oldest_ms: u64,
    /// The text of the most expensive one, cut.
    pub text: String,
}

/// Tenant, backend, and the parameter of a kill with its value.
type Key<'a> = (&'a str, &'a str, &'static str, &'a str);

/// The first holders by the memory that they hold or wait for.
pub(super) fn holders(active: &[Arc<ActiveQuery>], now: Instant) -> Vec<Holder> {
    let mut all = HashMap::<Key<'_>, (Holder, &ActiveQuery)>::new();
    let mut held = HashMap::<&str, u64>::new();
    let fingerprints: Vec<_> = active.iter().map(fingerprint).collect();
    let counted = active.iter().zip(&fingerprints).filter(|(query, _)| !query.is_uncounted());
    for (query, fingerprint) in counted {
        let facts = &query.facts;
        let (by, key) = match (&facts.owner.origin.dashboard, &facts.owner.origin.user) {
            (Some(dashboard), _) => ("dashboard", &**dashboard),
            (None, Some(user)) => ("user", &**user),
            (None, None) => ("fingerprint", fingerprint.as_str()),
        };
        let backend = &*facts.owner.backend;
        let (holder, heaviest) = all
            .entry((facts.owner.tenant.as_str(), backend, by, key))
            .or_insert_with(|| (Holder::default(), query));
        let memory = known(query);
        if query.waited().is_some() {
            holder.running += 1;
            holder.memory = holder.memory.saturating_add(memory);
            let on_backend = held.entry(backend).or_default();
            *on_backend = on_backend.saturating_add(memory);
        } else {
            holder.waiting += 1;
            holder.wanted = holder.wanted.saturating_add(memory);
        }
        let age = now.saturating_duration_since(facts.began).as_millis() as u64;
        holder.oldest_ms = holder.oldest_ms.max(age);
        if memory > known(heaviest) {
            *heaviest = query;
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(key, (holder, _))| {
        (Reverse((holder.memory.saturating_add(holder.wanted), holder.memory)), *key)
    });
    all.truncate(HOLDERS_MAX);
    let named = |((tenant, backend, by, key), (holder, heaviest)): (Key<'_>, (Holder, &ActiveQuery))| {
        let of = u128::from(held.get(backend).copied().unwrap_or(0)).max(1);
        Holder {
            tenant: tenant.to_owned(),
            by,
            key: key.to_owned(),
            backend: backend.to_owned(),
            percent: u64::try_from(u128::from(holder.memory) * 100 / of).unwrap_or(100),
            text: cut(heaviest.facts.query.as_deref().unwrap_or_default(), QUERY_CHARS),
            ..holder
        }
    };
    all.into_iter().map(named).collect()
}

/// The bytes that a query is expected to hold; one of which nothing is known adds nothing to a sum.
fn known(query: &ActiveQuery) -> u64 {
    Some(query.memory()).filter(|memory| *memory < u64::MAX).unwrap_or(0)
}

fn fingerprint(query: &Arc<ActiveQuery>) -> String {
    query.facts.fingerprint.map(|known| known.to_string()).unwrap_or_default()
}

impl Holder {
    /// Its queries.
    pub const fn queries(&self) -> u64 {
        self.running + self.waiting
    }

    /// The memory that its running queries hold, as a finding.
    pub(super) fn finding(&self) -> String {
        let Self { running, waiting, percent, backend, .. } = self;
        let hold = if *running == 1 { "holds" } else { "hold" };
        let part = match (running, waiting) {
            (_, 0) => format!(", {hold}"),
            (1, _) => ": 1 runs and holds".to_owned(),
            _ => format!(": {running} run and hold"),
        };
        let others = if *waiting == 0 { String::new() } else { format!(", {waiting} wait") };
        let (whose, since) = (self.sentence(), span(self.oldest_ms));
        format!(
            "{whose}{part} {percent} % of the memory in use on backend {backend}{others}; the oldest came {since} ago"
        )
    }

    /// Its queries in words: `12 queries of dashboard abc, tenant a`.
    pub fn sentence(&self) -> String {
        let (n, by, key, tenant) = (self.queries(), self.by, &self.key, &self.tenant);
        let queries = if n == 1 { "query" } else { "queries" };
        match (by, key.is_empty()) {
            ("fingerprint", true) => format!("{n} {queries} of tenant {tenant}"),
            ("fingerprint", false) => format!("{n} {queries} with fingerprint {key}, tenant {tenant}"),
            _ => format!("{n} {queries} of {by} {key}, tenant {tenant}"),
        }
    }
}
