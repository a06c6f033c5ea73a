//! What the request path works with: settings that can be swapped while queries run.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::task::AbortHandle;

use super::{
    dispatch::LongAnswers,
    identify::{IdentifyError, Identity, Rules},
    log::active::{Board, cut},
    query::body::Bodies,
    supervise::Watcher,
    upstream::{self, Upstream},
};
use crate::{
    backend::{Lane, headers::federates, pressure::Signal},
    base::{TenantId, TenantPrefixes, tenant},
    cost::History,
    http::{ConnectionLimits, Connections, Counts, HostNames, ServerTls},
    limit::{self, Admission, ClassId, Policy},
    promql,
    status::Config,
    telemetry::{
        metrics::{Metrics, Resource},
        otlp,
    },
};

/// Parsed queries that are kept.
const CACHED_QUERIES: u64 = 10_000;
/// Characters of what was wrong with the configuration that are kept.
const MISTAKE_CHARS: usize = 2_000;
/// The name of requests that match no class.
const UNCLASSED: &str = "adhoc";

/// What the configuration says of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest request body that is read, bytes.
    pub request_body: usize,
    /// How long a shutdown waits for queries in flight.
    pub grace: Duration,
    /// Client connections of the query API.
    pub connections: ConnectionLimits,
    /// Client connections of the admin API.
    pub admin_connections: ConnectionLimits,
    /// How the query API is secured; `None` is plain HTTP.
    pub tls: Option<ServerTls>,
    /// How the admin API is secured; `None` is plain HTTP.
    pub admin_tls: Option<ServerTls>,
    /// How requests are told apart.
    pub rules: Rules,
    /// The databases, in the order of `policy.backends`; the first takes every tenant without a route.
    pub upstreams: Vec<upstream::Settings>,
    /// Which tenant goes to which of `upstreams`.
    pub routes: HashMap<TenantId, usize>,
    /// The same for tenants whose names begin alike.
    pub prefix_routes: TenantPrefixes<usize>,
    /// Names under which the admin address may be asked.
    pub admin_hosts: HostNames,
    /// The limits.
    pub policy: Policy,
}

/// Settings in use, and the backends that they made.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) request_body: usize,
    pub(super) grace: Duration,
    pub(super) tls: Option<ServerTls>,
    pub(super) admin_tls: Option<ServerTls>,
    pub(super) rules: Rules,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) admin_hosts: HostNames,
    routes: HashMap<TenantId, usize>,
    prefix_routes: TenantPrefixes<usize>,
    classes: Vec<Arc<str>>,
    /// Health checks and label tables, ended with these settings.
    background: Vec<AbortHandle>,
}

impl Live {
    fn start(settings: Settings, before: Option<&Self>, watcher: &Watcher, clock: fn() -> i64) -> Self {
        let upstreams: Vec<_> = (settings.upstreams.into_iter().enumerate())
            .map(|(index, settings)| {
                let name = settings.backend.name.as_str();
                let same = before.and_then(|b| b.upstreams.iter().find(|u| u.backend.name() == name));
                Arc::new(Upstream::new(index, settings, same.map(Arc::as_ref)))
            })
            .collect();
        let background = upstreams.iter().flat_map(|upstream| {
            let (tables, health) = (Arc::clone(upstream), Arc::clone(&upstream.backend));
            let counted = Arc::clone(&watcher.metrics);
            let watched = watcher.clone().watch(Arc::clone(upstream), clock);
            [
                tokio::spawn(async move { tables.keep_table(&counted, clock).await }).abort_handle(),
                tokio::spawn(async move { health.run_background(std::future::pending()).await })
                    .abort_handle(),
                tokio::spawn(watched).abort_handle(),
            ]
        });
        let mut classes: Vec<_> =
            settings.rules.classes.iter().map(|class| Arc::clone(&class.name)).collect();
        classes.push(UNCLASSED.into());
        Self {
            request_body: settings.request_body,
            grace: settings.grace,
            tls: settings.tls,
            admin_tls: settings.admin_tls,
            background: background.collect(),
            rules: settings.rules,
            upstreams,
            admin_hosts: settings.admin_hosts,
            routes: settings.routes,
            prefix_routes: settings.prefix_routes,
            classes,
        }
    }

    /// Where a tenant's queries run.
    pub(super) fn upstream(&self, tenant: &TenantId) -> Option<&Arc<Upstream>> {
        let index = self.routes.get(tenant).or_else(|| self.prefix_routes.get(tenant)).copied().unwrap_or(0);
        self.upstreams.get(index)
    }

    /// Where the queries of whoever asks run. A name such as `a|b` stands for both tenants where their database reads it so:
    /// then it gets its one form here, and each of them pays.
    pub(super) fn upstream_of(&self, who: &mut Identity) -> Result<Option<&Arc<Upstream>>, IdentifyError> {
        let upstream = self.upstream(&who.tenant);
        let Some(tenants) = tenant::federated(who.tenant.as_str()) else { return Ok(upstream) };
        let homes: Vec<_> = tenants.iter().map(|tenant| self.upstream(tenant)).collect();
        let reads_several = |home: &Option<&Arc<Upstream>>| home.is_some_and(|u| federates(u.backend.kind()));
        if !homes.iter().chain([&upstream]).any(reads_several) {
            return Ok(upstream);
        }
        let name = tenant::joined(&tenants).ok_or(IdentifyError::Name("the header"))?;
        let index = |home: &Option<&Arc<Upstream>>| home.map(|upstream| upstream.index);
        let home = homes.first().copied().flatten();
        if homes.iter().any(|other| index(other) != index(&home)) {
            return Err(IdentifyError::Apart(name));
        }
        who.tenant = name;
        who.payers = if tenants.len() > 1 { tenants } else { Vec::new() };
        Ok(home)
    }

    pub(super) fn class_name(&self, class: usize) -> Arc<str> {
        self.classes.get(class).map_or_else(|| UNCLASSED.into(), Arc::clone)
    }

    pub(super) fn class_id(&self, class: usize) -> ClassId {
        if class < self.rules.unclassed() { ClassId(class) } else { ClassId::NONE }
    }
}

impl Live {
    /// Ends the background; requests that still run on these settings keep the rest.
    fn retire(&self) {
        for task in &self.background {
            task.abort();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.retire();
    }
}

/// The request path: everything that outlives a single request.
pub struct Proxy {
    live: ArcSwap<Live>,
    pub(super) admission: Arc<Admission>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) history: Arc<History>,
    pub(super) cache: promql::Cache,
    pub(super) bodies: Bodies,
    pub(super) long_answers: LongAnswers,
    /// The client connections of the query API.
    pub(super) connections: Arc<Connections>,
    /// Those of the admin API.
    pub(super) admin_connections: Arc<Connections>,
    /// Milliseconds since the epoch.
    pub(super) clock: fn() -> i64,
    pub(super) started_ms: i64,
    pub(super) board: Arc<Board>,
    pub(super) config: Mutex<Config>,
    /// Where spans go, if anywhere.
    pub(super) spans: OnceLock<otlp::Sender>,
    stopping: AtomicBool,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy that obeys these settings. Needs a runtime: health checks and label tables start at once.
    pub fn new(
        mut settings: Settings,
        metrics: Arc<Metrics>,
        history: Arc<History>,
        clock: fn() -> i64,
    ) -> Arc<Self> {
        let policy = std::mem::take(&mut settings.policy);
        metrics.learned_entries(history.len() as u64);
        let connections = Connections::new(settings.connections);
        let admin_connections = Connections::new(settings.admin_connections);
        let (admission, board) = (Admission::new(policy), Board::new(clock));
        let watcher = Watcher::new(&admission, &board, &metrics);
        Arc::new(Self {
            live: ArcSwap::from_pointee(Live::start(settings, None, &watcher, clock)),
            admission,
            metrics,
            history,
            cache: promql::Cache::new(CACHED_QUERIES),
            bodies: Bodies::new(),
            long_answers: LongAnswers::new(),
            connections,
            admin_connections,
            clock,
            started_ms: clock(),
            board,
            config: Mutex::new(Config { loaded_ms: clock(), mistake: None }),
            spans: OnceLock::new(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Obeys other settings from now on. Queries in flight end on the backends where they began.
    pub fn reload(&self, mut settings: Settings) {
        let policy = std::mem::take(&mut settings.policy);
        let before = self.live.load_full();
        before.retire();
        self.admission.reload(policy);
        self.connections.set_limits(settings.connections);
        self.admin_connections.set_limits(settings.admin_connections);
        let watcher = Watcher::new(&self.admission, &self.board, &self.metrics);
        let after = Live::start(settings, Some(&before), &watcher, self.clock);
        for gone in before.upstreams.iter().map(|upstream| upstream.backend.name()) {
            if !after.upstreams.iter().any(|upstream| upstream.backend.name() == gone) {
                let (lanes, signals) = (Lane::ALL.map(Lane::as_str), Signal::ALL.map(Signal::as_str));
                self.metrics.forget_backend(gone, lanes, signals);
            }
        }
        self.live.store(Arc::new(after));
    }

    /// Fetches what is known of the backends once, for a caller that cannot wait for the background to do it.
    pub async fn warm(&self) {
        let live = self.live();
        join_all(live.upstreams.iter().map(|upstream| upstream.refresh_table(self.clock))).await;
    }

    pub(super) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// How long a shutdown waits for queries in flight.
    pub fn grace(&self) -> Duration {
        self.live.load().grace
    }

    /// Queries leave spans there from now on; the first to say so wins.
    pub fn trace_to(&self, spans: otlp::Sender) {
        drop(self.spans.set(spans));
    }

    /// No new query is accepted from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Whether a shutdown is under way.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// The configuration was read again and taken over, or has this mistake.
    pub fn note_reload(&self, mistake: Option<&str>) {
        let now_ms = (self.clock)();
        self.metrics.reloaded(mistake.is_none(), now_ms / 1_000);
        // Nothing that panics runs under the lock.
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        match mistake {
            None => *config = Config { loaded_ms: now_ms, mistake: None },
            Some(mistake) => config.mistake = Some((now_ms, cut(mistake, MISTAKE_CHARS))),
        }
    }

    /// Client connections that are open, of how many.
    pub(super) fn open_connections(&self) -> (usize, usize) {
        let counts = self.connections.counts();
        (counts.open, counts.max)
    }

    /// What is held and who waits, now.
    pub fn snapshot(&self) -> limit::Snapshot {
        self.admission.snapshot()
    }

    /// Name and readiness of each backend.
    pub fn backends(&self) -> Vec<(String, bool)> {
        let live = self.live.load();
        live.upstreams.iter().map(|u| (u.backend.name().to_owned(), u.backend.ready())).collect()
    }

    /// Everything in Prometheus' text format, with what is held now.
    pub fn metrics_text(&self) -> prometheus::Result<String> {
        let Counts { open, max, evicted, refused } = self.connections.counts();
        self.metrics.client_connections(open, max, evicted, refused);
        let (held, max) = self.bodies.taken();
        self.metrics.request_bodies(held, max);
        for upstream in &self.live.load().upstreams {
            for lane in Lane::ALL {
                let (used, max) = upstream.backend.connections(lane);
                self.metrics.backend_connections(upstream.backend.name(), lane.as_str(), used, max);
            }
        }
        let live = self.live.load();
        // One that was removed is forgotten, though queries may still end there.
        let is_live = |name: &str| live.upstreams.iter().any(|upstream| upstream.backend.name() == name);
        for backend in self.admission.snapshot().backends.into_iter().filter(|b| is_live(&b.name)) {
            self.metrics.queue_length(&backend.name, backend.waiting);
            let capacity = |of: Option<u64>| of.unwrap_or(u64::MAX);
            self.metrics.budget(
                &backend.name,
                Resource::Memory,
                backend.memory,
                capacity(backend.memory_capacity),
            );
            self.metrics.budget(
                &backend.name,
                Resource::Queries,
                backend.queries,
                capacity(backend.queries_capacity),
            );
        }
        self.metrics.encode()
    }
}
