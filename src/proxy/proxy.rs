//! The proxy from outside: made, reloaded, asked for its numbers, stopped.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};
use tower::ServiceExt as _;

use super::{
    config::{ConfigSnapshot, ConfigState, Settings},
    estimate::FIX_SEARCHES_MAX,
    fleet::{Fleet, FleetStatus, SharedCounts, Subjects, first_number},
    identify::{OnBehalfOf, layer::Incoming},
    log::{ActiveQueries, ActiveQuery, QueryLogs, QueryState, SampledLines, cut},
    long_answers::LongAnswers,
    query::{body::Bodies, offload::LongTexts},
    respond::Body,
    rules::QueryRules,
    shared::{Identifier, Pricing, QueryReader, Settler, Shared},
    stack::{Stack, stack},
    supervise::BackendSupervisor,
};
use crate::{
    backend::Lane,
    base::{TenantId, distress::Signal},
    cost::History,
    http::{Connections, Counts, ServerTls},
    journal::{self, Journal},
    limit::{self, Admission},
    promql,
    telemetry::{
        metrics::{ControlGauges, LaneGauges, Metrics, Resource, TopNumber},
        otlp,
    },
    top::{By, Measure, Top, Window},
};

/// Parsed queries that are kept.
const CACHED_QUERIES: u64 = 10_000;
/// Keys that each number of the ranking shows as metrics.
const TOP_KEYS: usize = 5;
/// The numbers of the ranking that are metrics.
const TOP_NUMBERS: [(Measure, TopNumber); 4] = [
    (Measure::Count, TopNumber::Queries),
    (Measure::Memory, TopNumber::Memory),
    (Measure::Seconds, TopNumber::Seconds),
    (Measure::Refused, TopNumber::Refused),
];
/// Characters of a mistake in the configuration that are kept.
const MISTAKE_CHARS: usize = 2_000;

/// The query API and everything that outlives a single request.
pub struct Proxy {
    stack: Stack,
    shared: Arc<Shared>,
    pub(super) logs: Arc<QueryLogs>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    /// The client connections of the query API.
    pub(super) connections: Arc<Connections>,
    /// Those of the admin API.
    pub(crate) admin_connections: Arc<Connections>,
    pub(crate) started_ms: i64,
    config: Mutex<ConfigState>,
    /// Held while the gauges are cleared and set anew, up to their text.
    encoding: Mutex<()>,
    pub(super) fleet: Arc<Fleet>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("shared", &self.shared).finish_non_exhaustive()
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
        let rules = std::mem::take(&mut settings.query_rules);
        let connections = Connections::new(settings.connections);
        let admin_connections = Connections::new(settings.admin_connections);
        let (fleet, joined) = (Arc::new(Fleet::default()), settings.fleet.take());
        let last_number = joined.as_ref().map_or(0, |_| first_number());
        let (admission, active) = (Admission::new(policy), ActiveQueries::new(last_number, clock));
        let rules = Arc::new(QueryRules::new(rules, Arc::clone(&metrics), clock));
        let in_fleet = joined.is_some();
        let counts = in_fleet.then(Arc::<SharedCounts>::default);
        let subjects = Subjects {
            active: Arc::clone(&active),
            rules: Arc::clone(&rules),
            history: Arc::clone(&history),
            counts: counts.clone().unwrap_or_default(),
            metrics: Arc::clone(&metrics),
            clock,
        };
        if let Some(Err(error)) = joined.map(|of| fleet.join(&of, &admission, subjects)) {
            // The check of the configuration has read the same URL.
            tracing::error!(error, "no fleet: every proxy keeps to its fixed part");
        }
        let supervisor = BackendSupervisor::new(&admission, &active, &fleet, &metrics);
        let config = ArcSwap::from_pointee(ConfigSnapshot::start(settings, None, &supervisor, clock));
        let logs = Arc::new(QueryLogs {
            active,
            metrics: Arc::clone(&metrics),
            spans: OnceLock::new(),
            journal: OnceLock::new(),
            rate_lines: SampledLines::default(),
            clock,
        });
        let identifier = Identifier { config, logs: Arc::clone(&logs), stopping: AtomicBool::new(false) };
        let pricing = Pricing {
            admission: Arc::clone(&admission),
            history: Arc::clone(&history),
            counts,
            long_answers: LongAnswers::new(),
            metrics: Arc::clone(&metrics),
            fix_searches: Semaphore::new(FIX_SEARCHES_MAX),
        };
        let cache = promql::Cache::new(CACHED_QUERIES);
        let shared = Arc::new(Shared {
            identifier,
            reader: QueryReader { bodies: Bodies::new(), long_texts: LongTexts::new(), cache },
            rules,
            pricing,
            settler: Settler { metrics: Arc::clone(&metrics), history, in_fleet, clock },
        });
        Arc::new(Self {
            stack: stack(&shared),
            shared,
            logs,
            admission,
            metrics,
            connections,
            admin_connections,
            started_ms: clock(),
            config: Mutex::new(ConfigState { loaded_ms: clock(), mistake: None }),
            encoding: Mutex::default(),
            fleet,
        })
    }

    /// Answers a request of the query API. Never fails: every failure is a response.
    pub async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answered = self.stack.clone().oneshot(Incoming { request, peer }).await;
        answered.unwrap_or_else(|never| match never {})
    }

    /// The cost and the verdict of a query in a tenant's name, in no tenant's where that is `None`: the answer of `query_cost`,
    /// or of `query_range_cost` with a step. `params` are those of the query API.
    ///
    /// # Errors
    /// The error of the query, as its client would read it.
    pub(crate) async fn explain(
        &self,
        tenant: Option<TenantId>,
        params: String,
        is_graph: bool,
    ) -> Result<serde_json::Value, String> {
        let endpoint = if is_graph { "query_range_cost" } else { "query_cost" };
        let tenant = tenant.unwrap_or_else(|| self.live().attribution.default.clone());
        let request = Request::post(format!("/api/v1/{endpoint}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .extension(OnBehalfOf(tenant))
            .body(Full::from(params))
            .map_err(|error| error.to_string())?;
        let response = self.answer(request, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut answer: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            return Ok(answer);
        }
        match answer["error"].take() {
            serde_json::Value::String(message) => Err(message),
            other => Err(other.to_string()),
        }
    }

    /// The query API as a service.
    pub(super) fn stack(&self) -> Stack {
        self.stack.clone()
    }

    /// Milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        (self.logs.clock)()
    }

    /// Obeys other settings from now on. Queries in flight end on the backends where they began.
    pub fn reload(&self, mut settings: Settings) {
        let policy = std::mem::take(&mut settings.policy);
        self.shared.rules.configure(std::mem::take(&mut settings.query_rules));
        self.connections.set_limits(settings.connections);
        self.admin_connections.set_limits(settings.admin_connections);
        if let Some(fleet) = &settings.fleet {
            self.fleet.reload(fleet);
        }
        let before = self.live();
        before.retire();
        self.admission.reload(policy);
        let supervisor =
            BackendSupervisor::new(&self.admission, &self.logs.active, &self.fleet, &self.metrics);
        let after = ConfigSnapshot::start(settings, Some(&before), &supervisor, self.logs.clock);
        for gone in before.upstreams.iter().map(|upstream| upstream.backend.name()) {
            if !after.upstreams.iter().any(|upstream| upstream.backend.name() == gone) {
                let (lanes, signals) = (Lane::ALL.map(Lane::as_str), Signal::ALL.map(Signal::as_str));
                self.metrics.forget_backend(gone, lanes, signals);
            }
        }
        let listeners = [
            (&self.connections, ServerTls::accepts_others(after.tls.as_ref(), before.tls.as_ref())),
            (
                &self.admin_connections,
                ServerTls::accepts_others(after.admin_tls.as_ref(), before.admin_tls.as_ref()),
            ),
        ];
        self.shared.identifier.config.store(Arc::new(after));
        // Certificates are looked at in handshakes alone.
        for (connections, _) in listeners.iter().filter(|(_, accepts_others)| *accepts_others) {
            connections.end_open();
        }
    }

    /// The rules against single queries.
    pub(crate) fn rules(&self) -> &Arc<QueryRules> {
        &self.shared.rules
    }

    /// Takes up the rules that were set at run time before the last stop, and keeps later ones there. Blocks.
    pub fn keep_rules_in(&self, folder: &std::path::Path) {
        self.shared.rules.keep_in(folder);
    }

    /// Fetches the label tables once, for a caller that cannot wait for the background task.
    pub async fn warm(&self) {
        let live = self.live();
        join_all(live.upstreams.iter().map(|upstream| upstream.refresh_table(self.logs.clock))).await;
    }

    /// Whether the backend of a tenant takes connections, as far as is known; the error names each replica and why.
    pub fn reachable(&self, tenant: &TenantId) -> Result<(), String> {
        let live = self.live();
        match live.upstream(tenant) {
            Some(upstream) if upstream.backend.sick() => Err(format!(
                "backend `{}` did not answer: {}",
                upstream.backend.name(),
                upstream.backend.whys()
            )),
            _ => Ok(()),
        }
    }

    /// The settings in use.
    pub(crate) fn live(&self) -> Arc<ConfigSnapshot> {
        self.shared.identifier.config.load_full()
    }

    /// How long a shutdown waits for queries in flight.
    pub fn grace(&self) -> Duration {
        self.live().grace
    }

    /// Queries are kept there from now on; the first to say so wins.
    pub fn journal_to(&self, journal: Journal) {
        let _ = self.logs.journal.set(journal);
    }

    /// The ranking of queries, where a journal is kept.
    pub(crate) fn top(&self) -> Option<&Arc<Top>> {
        self.logs.journal.get().map(Journal::top)
    }

    /// Queries leave spans there from now on; the first to say so wins.
    pub fn trace_to(&self, spans: otlp::Sender) {
        drop(self.logs.spans.set(spans));
    }

    /// The state of the fleet; `None` without a store.
    pub fn fleet(&self) -> Option<FleetStatus> {
        self.fleet.status()
    }

    /// Gives the leases of all budgets back to the store, for the other proxies.
    pub async fn leave_fleet(&self) {
        self.fleet.leave().await;
    }

    /// No new query is accepted from now on.
    pub fn stop(&self) {
        self.shared.identifier.stopping.store(true, Relaxed);
    }

    /// Whether a shutdown is under way.
    pub fn stopping(&self) -> bool {
        self.shared.identifier.stopping.load(Relaxed)
    }

    /// The configuration was read again and taken over, or has this mistake.
    pub fn note_reload(&self, mistake: Option<&str>) {
        let now_ms = self.now_ms();
        self.metrics.reloaded(mistake.is_none(), now_ms / 1_000);
        let mut config = self.config.lock();
        match mistake {
            None => *config = ConfigState { loaded_ms: now_ms, mistake: None },
            Some(mistake) => config.mistake = Some((now_ms, cut(mistake, MISTAKE_CHARS))),
        }
    }

    /// The queries under way, and the latest rejections.
    pub(crate) fn active(&self) -> &ActiveQueries {
        &self.logs.active
    }

    /// When the configuration was read, and whether that worked.
    pub(crate) fn config_state(&self) -> ConfigState {
        self.config.lock().clone()
    }

    /// Client connections that are open, of how many.
    pub(crate) fn open_connections(&self) -> (usize, usize) {
        let counts = self.connections.counts();
        (counts.open, counts.max)
    }

    /// The state of admission now.
    pub fn snapshot(&self) -> limit::Snapshot {
        self.admission.snapshot()
    }

    /// Name and readiness of each backend.
    pub fn backends(&self) -> Vec<(String, bool)> {
        let live = self.live();
        live.upstreams.iter().map(|u| (u.backend.name().to_owned(), u.backend.ready())).collect()
    }

    /// Lanes, window, reserves and reasons to wait of a backend, as metrics.
    fn show_control(&self, backend: &limit::BackendSnapshot) {
        let lane = |lane: &limit::LaneSnapshot| LaneGauges {
            lane: lane.lane,
            memory: (lane.memory, lane.open),
            queries: (lane.queries, lane.slots),
        };
        self.metrics.control(&ControlGauges {
            backend: &backend.name,
            window: backend.window,
            lanes: backend.lanes.each_ref().map(lane),
            stalled: backend.stalled.1,
            lingering: backend.lingering,
        });
        for (class, free) in &backend.reserves {
            self.metrics.reserve(&backend.name, class, *free);
        }
        for (reason, queries) in &backend.reasons {
            self.metrics.waiting(&backend.name, reason.label(), *queries);
        }
    }

    /// How old the oldest query of each class is in each state, as metrics.
    fn show_oldest(&self, config: &ConfigSnapshot) {
        let now = Instant::now();
        let active = self.logs.active.list();
        for class in config.class_names() {
            for (label, states) in [
                ("probing", &[QueryState::Probing][..]),
                ("waiting", &[QueryState::Queued]),
                ("running", &[QueryState::Running, QueryState::Streaming]),
            ] {
                let is_of = |query: &&Arc<ActiveQuery>| {
                    query.facts.owner.class == *class && states.contains(&query.state())
                };
                let began = active.iter().filter(is_of).map(|query| query.facts.began).min();
                let age = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
                self.metrics.oldest_query(label, class, age);
            }
        }
    }

    /// The heaviest users, as metrics.
    fn show_top(&self) {
        self.metrics.clear_top();
        let Some(top) = self.top() else { return };
        for (by, (measure, number)) in By::ALL.iter().flat_map(|by| TOP_NUMBERS.map(|shown| (by, shown))) {
            let ranking = top.ranking(Window::FiveMinutes, *by, measure, TOP_KEYS, self.now_ms());
            let rows: Vec<_> =
                ranking.rows.iter().map(|row| (row.name(), row.amounts.number(measure))).collect();
            self.metrics.top(by.as_str(), number, &rows, ranking.other.number(measure));
        }
    }

    /// All metrics in Prometheus' text format, with the usage of now.
    pub fn metrics_text(&self) -> prometheus::Result<String> {
        let _encoding = self.encoding.lock();
        let Counts { open, max, evicted, refused } = self.connections.counts();
        self.metrics.client_connections(open, max, evicted, refused);
        self.metrics.learned_entries(self.shared.pricing.history.len() as u64);
        let (held, max) = self.shared.reader.bodies.taken();
        self.metrics.request_bodies(held, max);
        if let Some(journal) = self.logs.journal.get() {
            let journal::Counters { written, dropped, failed, bytes } = journal.counters();
            self.metrics.journal([("written", written), ("dropped", dropped), ("failed", failed)], bytes);
        }
        let live = self.live();
        for upstream in &live.upstreams {
            for lane in Lane::ALL {
                let (used, max) = upstream.backend.connections(lane);
                self.metrics.backend_connections(upstream.backend.name(), lane.as_str(), used, max);
            }
        }
        // One that was removed is forgotten, though queries may still end there.
        let is_live = |name: &str| live.upstreams.iter().any(|upstream| upstream.backend.name() == name);
        self.metrics.clear_control();
        self.show_oldest(&live);
        self.show_top();
        for backend in self.admission.snapshot().backends.into_iter().filter(|b| is_live(&b.name)) {
            self.show_control(&backend);
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
        self.metrics.clear_quotas();
        let policy = self.admission.policy();
        for (tenant, used) in self.admission.quotas_used() {
            if let Some(quota) = policy.tenant(&tenant).quota.of(used.kind).rate {
                self.metrics.quota_used(&tenant, used.kind.as_str(), used.all, quota.count.get());
            }
        }
        self.metrics.encode()
    }
}
