//! Several proxies before the same backends.

use std::{fs, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cross::{Checker, Place},
    defaults::lit,
    raw::{Backend, Raw, TenantLimits},
    scalar::{Count, Limit, Secret, Span},
};
use crate::{
    base::units,
    fleet::Store,
    limit::{Sharing, heaviest, light_each},
    proxy,
};

/// The time that a query without a limit is taken to run at most.
const UNLIMITED: Duration = Duration::from_secs(3_600);
/// How long a backend may hold the memory of a query whose client left.
const LINGER_MAX: Duration = Duration::from_secs(3);

/// Characters of a host's name in that of a proxy.
const NAME_CHARS: usize = 63;
/// Slots of a budget for each proxy of a fleet: half of them are for light queries, and a quarter is leased.
const SLOTS_EACH: u64 = 4;

/// Several proxies before the same backends, which keep to one budget together. All have the same configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fleet {
    /// The most proxies that run at the same time, those of a rollout included. Each has an equal part of every budget, or
    /// with a store of a tenth of it. Every budget needs four `queries` for each.
    pub replicas_max: Count,
    /// Redis or Valkey, one primary: `redis://:${PASSWORD}@host:6379/0`, or `rediss://` with TLS. The rest of every budget is
    /// leased there to the proxies that need it. Takes effect at the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Secret>,
    /// The name of the fleet; proxies of one name share. Takes effect at the next start.
    pub name: String,
    /// Longest wait for the store. No query waits for it: a slow store leaves every proxy its fixed part.
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
        id: name_of_proxy(&raw.server.listen.to_string()),
        replicas_max: raw.fleet.replicas_max.0.get(),
        timeout: raw.fleet.timeout.duration(),
        longest_query: longest.unwrap_or(UNLIMITED) + LINGER_MAX,
    })
}

/// The name of this proxy for people: in a container all listen on the same address.
fn name_of_proxy(listen: &str) -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let visible: String = host.trim().chars().filter(char::is_ascii_graphic).take(NAME_CHARS).collect();
    if visible.is_empty() { listen.to_owned() } else { format!("{visible}/{listen}") }
}

impl Checker<'_> {
    pub(super) fn fleet(&mut self, raw: &Raw) {
        let replicas = raw.fleet.replicas_max.0.get();
        let place = self.place("fleet");
        if let Some(store) = &raw.fleet.store
            && let Err(why) = Store::new(store.reveal(), &raw.fleet.name, String::new())
        {
            self.refuse(&place.key("store"), format!("is no URL of a store: {why}"));
        }
        if raw.fleet.store.is_some() && replicas == 1 {
            self.refuse(
                &place.key("replicas_max"),
                "a store is for several proxies: name the most that run at once",
            );
        }
        if raw.fleet.name.is_empty() || raw.fleet.name.contains(char::is_whitespace) {
            self.refuse(&place.key("name"), "needs a word without spaces");
        }
        for (i, backend) in raw.backends.iter().enumerate().filter(|_| replicas > 1) {
            let least = replicas.saturating_mul(SLOTS_EACH);
            if backend.budget.queries.0.get() < least {
                let place = self.place("backends").index(i).key("budget").key("queries");
                let text = format!(
                    "{replicas} proxies (`fleet.replicas_max`) need {least} at least, {SLOTS_EACH} each"
                );
                self.refuse(&place, text);
            }
        }
    }

    /// Limits of a tenant that cannot be divided among the proxies of a fleet, as far as the file has them.
    pub(super) fn limits_in_fleet<'b>(
        &mut self,
        raw: &Raw,
        backends: impl IntoIterator<Item = &'b Backend>,
        place: &Place<'_>,
        limits: &TenantLimits,
    ) {
        let sharing = raw.fleet.sharing();
        let replicas = sharing.replicas_max.get();
        let widest = backends.into_iter().max_by_key(|backend| backend.budget.memory.0);
        let Some(widest) = widest.filter(|_| replicas > 1) else { return };
        let (budget, name) = (widest.budget.memory.0.get(), &widest.name);
        let mut warn = |group: &str, key: &str, text: String| {
            let at = place.key(group).key(key);
            if at.node.is_some() {
                self.warn(&at, text);
            }
        };
        let most = heaviest(budget, sharing);
        if limits.per_query.memory.and_then(Limit::at).is_some_and(|limit| limit.0.get() > most) {
            let most = units::bytes(most);
            let text = format!(
                "one of {replicas} proxies (`fleet.replicas_max`) never runs more than {most} on backend `{name}`"
            );
            warn("per_query", "memory", text);
        }
        if !sharing.leased {
            return;
        }
        let least = light_each(budget, replicas);
        if limits.in_flight.memory.and_then(Limit::at).is_some_and(|limit| limit.0.get() / replicas < least) {
            let least = units::bytes(least);
            let text = format!(
                "{replicas} proxies (`fleet.replicas_max`) may pass it together: each always runs one light query, of up to \
                 {least} on backend `{name}`"
            );
            warn("in_flight", "memory", text);
        }
        let rate = |limit: Option<Limit<super::scalar::Rate>>| Some(limit?.at()?.count);
        let quota = |limit: Option<Limit<super::scalar::Quota>>| Some(limit?.at()?.count);
        let in_flight = limits.in_flight.queries.and_then(Limit::at).map(|count| count.0);
        for (group, key, count) in [
            ("in_flight", "queries", in_flight),
            ("rate", "queries", rate(limits.rate.queries)),
            ("rate", "samples", rate(limits.rate.samples)),
            ("quota", "queries", quota(limits.quota.queries)),
            ("quota", "samples", quota(limits.quota.samples)),
        ] {
            if count.is_some_and(|count| count.get() < replicas) {
                let text = format!(
                    "{replicas} proxies (`fleet.replicas_max`) may pass it together: each always has 1 of it"
                );
                warn(group, key, text);
            }
        }
    }
}
