//! The settings in use: they can be swapped while queries run, and a query keeps those that it began with.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::task::AbortHandle;

use super::{
    fleet::Settings as FleetSettings,
    identify::{Attribution, IdentifyError, Identity, UNCLASSED},
    route::Endpoint,
    supervise::BackendSupervisor,
    upstream::{self, Upstream},
};
use crate::{
    backend::Kind,
    base::{TenantId, TenantMap, TenantPrefixes, tenant},
    http::{ConnectionLimits, HostNames, ServerTls, Tokens},
    limit::{LimitTable, Policy},
    promql::enforce::LabelEnforcement,
    rules::Rule,
};

/// Settings of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest request body that is read, bytes.
    pub request_body: usize,
    /// How long a shutdown waits for queries in flight.
    pub grace: Duration,
    /// How the query API is secured; `None` is plain HTTP.
    pub tls: Option<ServerTls>,
    /// How the admin API is secured; `None` is plain HTTP.
    pub admin_tls: Option<ServerTls>,
    /// Client connections of the query API.
    pub connections: ConnectionLimits,
    /// Client connections of the admin API.
    pub admin_connections: ConnectionLimits,
    /// How requests are attributed to tenants, actors and classes.
    pub attribution: Attribution,
    /// The databases, in the order of `policy.backends`; the first takes every tenant without a route.
    pub upstreams: Vec<upstream::Settings>,
    /// Which tenant goes to which of `upstreams`.
    pub routes: HashMap<TenantId, usize>,
    /// The same for tenants whose names begin alike.
    pub prefix_routes: TenantPrefixes<usize>,
    /// Names under which the admin address may be asked.
    pub admin_hosts: HostNames,
    /// The tokens of the admin address.
    pub admin_tokens: Tokens,
    /// The labels that tenants are confined to.
    pub enforced: TenantMap<Option<Arc<LabelEnforcement>>>,
    /// Rules against single queries.
    pub query_rules: Vec<Arc<Rule>>,
    /// The fleet that the proxy joins at its start.
    pub fleet: Option<FleetSettings>,
    /// The limits.
    pub policy: Policy,
    /// The same as they are written.
    pub limit_table: LimitTable,
}

/// When the configuration was read, and whether that worked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigState {
    /// When it was taken over.
    pub loaded_ms: i64,
    /// The time and the mistake of the last failed reload; `None` after a good one.
    pub mistake: Option<(i64, String)>,
}

/// Settings in use, and the backends that they made.
#[derive(Debug)]
pub(crate) struct ConfigSnapshot {
    pub(super) request_body: usize,
    pub(super) grace: Duration,
    pub(super) tls: Option<ServerTls>,
    pub(crate) admin_tls: Option<ServerTls>,
    pub(super) attribution: Attribution,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) admin_hosts: HostNames,
    pub(crate) admin_tokens: Tokens,
    pub(crate) limit_table: LimitTable,
    routes: HashMap<TenantId, usize>,
    prefix_routes: TenantPrefixes<usize>,
    enforced: TenantMap<Option<Arc<LabelEnforcement>>>,
    /// The class of requests that match none.
    unclassed: Arc<str>,
    /// Health checks and label tables, ended with these settings.
    background: Vec<AbortHandle>,
}

impl ConfigSnapshot {
    /// The listeners of which a revocation list has ended by now, by their keys, and when it did.
    pub(crate) fn ended_revocation_lists(&self, now_ms: i64) -> Vec<(&'static str, i64)> {
        let listeners = [("server.tls", &self.tls), ("server.admin_tls", &self.admin_tls)];
        let ends =
            listeners.into_iter().filter_map(|(key, tls)| Some((key, tls.as_ref()?.revocation_ends()?)));
        ends.filter(|(_, ends)| *ends <= now_ms).collect()
    }

    pub(super) fn start(
        settings: Settings,
        before: Option<&Self>,
        supervisor: &BackendSupervisor,
        clock: fn() -> i64,
    ) -> Self {
        let upstreams: Vec<_> = (settings.upstreams.into_iter().enumerate())
            .map(|(index, settings)| {
                let name = settings.backend.name.as_str();
                let same = before.and_then(|b| b.upstreams.iter().find(|u| u.backend.name() == name));
                Arc::new(Upstream::new(index, settings, same.map(Arc::as_ref)))
            })
            .collect();
        for source in settings.attribution.jwt_sources() {
            before
                .iter()
                .flat_map(|before| before.attribution.jwt_sources())
                .for_each(|other| source.take_over(other));
        }
        let keys = settings.attribution.jwt_sources().map(|source| {
            let keeping = Arc::clone(source).keep_keys(Arc::clone(&supervisor.metrics));
            tokio::spawn(keeping).abort_handle()
        });
        let keys: Vec<AbortHandle> = keys.collect();
        let background = upstreams.iter().flat_map(|upstream| {
            let (tables, health) = (Arc::clone(upstream), Arc::clone(&upstream.backend));
            let counted = Arc::clone(&supervisor.metrics);
            let watched = supervisor.clone().supervise(Arc::clone(upstream), clock);
            [
                tokio::spawn(async move { tables.keep_table(&counted, clock).await }).abort_handle(),
                tokio::spawn(async move { health.run_background(std::future::pending()).await })
                    .abort_handle(),
                tokio::spawn(watched).abort_handle(),
            ]
        });
        let names = upstreams.iter().map(|upstream| upstream.backend.name());
        let endpoints = Endpoint::COUNTED.map(Endpoint::as_str);
        let classes = settings.attribution.classes.iter().map(|class| &*class.name).chain([UNCLASSED]);
        supervisor.metrics.start_at_zero(names, classes, &endpoints);
        Self {
            request_body: settings.request_body,
            grace: settings.grace,
            tls: settings.tls,
            admin_tls: settings.admin_tls,
            background: background.chain(keys).collect(),
            attribution: settings.attribution,
            upstreams,
            admin_hosts: settings.admin_hosts,
            admin_tokens: settings.admin_tokens,
            limit_table: settings.limit_table,
            routes: settings.routes,
            prefix_routes: settings.prefix_routes,
            enforced: settings.enforced,
            unclassed: UNCLASSED.into(),
        }
    }

    /// The names of all classes, that of requests that match none among them.
    pub(super) fn class_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.attribution.classes.iter().map(|class| &class.name).chain([&self.unclassed])
    }

    /// Where a tenant's queries run.
    pub(super) fn upstream(&self, tenant: &TenantId) -> Option<&Arc<Upstream>> {
        let index = self.routes.get(tenant).or_else(|| self.prefix_routes.get(tenant)).copied().unwrap_or(0);
        self.upstreams.get(index)
    }

    /// The backend of the caller's queries. A name such as `a|b` stands for both tenants where their database reads it
    /// so: then it gets its one form here, and each of them pays. Several that a token names are several to every database.
    pub(super) fn upstream_of(&self, who: &mut Identity) -> Result<Option<&Arc<Upstream>>, IdentifyError> {
        let is_pattern = |upstream: Option<&Arc<Upstream>>, name: &TenantId| {
            let is_cortex = upstream.is_some_and(|upstream| upstream.backend.kind() == Kind::Cortex);
            is_cortex && tenant::is_pattern(name.as_str())
        };
        if !who.several.is_empty() {
            let home = self.home_of(&who.several, &who.tenant)?;
            return match who.several.iter().find(|payer| is_pattern(home, payer)) {
                Some(payer) => Err(IdentifyError::Pattern(payer.clone())),
                None => Ok(home),
            };
        }
        let upstream = self.upstream(&who.tenant);
        if is_pattern(upstream, &who.tenant) {
            return Err(IdentifyError::Pattern(who.tenant.clone()));
        }
        let Some(tenants) = tenant::federated(who.tenant.as_str()) else { return Ok(upstream) };
        let homes: Vec<_> = tenants.iter().map(|tenant| self.upstream(tenant)).collect();
        let reads_several = |home: Option<&Arc<Upstream>>| {
            home.is_some_and(|u| u.backend.tenancy().federates(u.backend.kind()))
        };
        if !homes.iter().copied().chain([upstream]).any(reads_several) {
            return Ok(upstream);
        }
        let name = tenant::joined(&tenants).ok_or(IdentifyError::Name("the header"))?;
        let home = self.home_of(&tenants, &name)?;
        who.tenant = name;
        who.several = if tenants.len() > 1 { tenants } else { Vec::new() };
        Ok(home)
    }

    /// The labels that the caller's queries are confined to.
    pub(super) fn enforced_on(&self, who: &Identity) -> Option<Arc<LabelEnforcement>> {
        if !who.several.is_empty() {
            return enforced_on(&self.enforced, &who.several);
        }
        let Some(mut names) = tenant::federated(who.tenant.as_str()) else {
            return enforced_on(&self.enforced, std::slice::from_ref(&who.tenant));
        };
        // `a|b` is one tenant to most databases. Its parts may have been checked before it came here.
        names.push(who.tenant.clone());
        enforced_on(&self.enforced, &names)
    }

    /// The one backend that has the data of all these tenants, whose common name is for the error.
    fn home_of(
        &self,
        tenants: &[TenantId],
        name: &TenantId,
    ) -> Result<Option<&Arc<Upstream>>, IdentifyError> {
        let mut homes = tenants.iter().map(|tenant| self.upstream(tenant));
        let home = homes.next().flatten();
        let index = |home: Option<&Arc<Upstream>>| home.map(|upstream| upstream.index);
        if homes.any(|other| index(other) != index(home)) {
            return Err(IdentifyError::Apart(name.clone()));
        }
        Ok(home)
    }

    /// Whether refusals of a class have a fix.
    pub(super) fn suggests_fix(&self, class: usize) -> bool {
        self.attribution.classes.get(class).is_some_and(|class| class.fix)
    }

    /// The name of a class; `adhoc` for requests that match none.
    pub(super) fn class(&self, class: usize) -> &Arc<str> {
        self.attribution.classes.get(class).map_or(&self.unclassed, |class| &class.name)
    }
}

/// The labels that a query is confined to that reads the data of these tenants: those of each.
pub(super) fn enforced_on(
    map: &TenantMap<Option<Arc<LabelEnforcement>>>,
    tenants: &[TenantId],
) -> Option<Arc<LabelEnforcement>> {
    let each = tenants.iter().filter_map(|tenant| map.get(tenant).clone());
    each.reduce(|all, other| if all == other { all } else { Arc::new(all.and(&other)) })
}

impl ConfigSnapshot {
    /// Ends the background; requests that still run on these settings keep the rest.
    pub(super) fn retire(&self) {
        for task in &self.background {
            task.abort();
        }
    }
}

impl Drop for ConfigSnapshot {
    fn drop(&mut self) {
        self.retire();
    }
}
