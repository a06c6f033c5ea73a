//! A backend as the request path sees it: its connections, its cost model, its label table.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

pub use super::query::OnUnparsable;
use crate::{
    backend::{
        self, Backend, BaseUrl, DataScope, Days, Kind, ProbeRequest, pressure,
        pressure::{HeadRemovals, Monitor},
    },
    base::{TimeDialect, TimeRange},
    cost::{HistoryKey, LabelTable, MetricTypes, Model},
    promql::{
        Fingerprint,
        shape::{Reads, Shape},
    },
    telemetry::metrics::Metrics,
};

/// Entries asked for in each list of a label table.
pub const TABLE_ENTRIES: usize = 10_000;
/// Time between two fetches of a label table.
const TABLE_INTERVAL: Duration = Duration::from_secs(60);
/// Time to the next try after a fetch that failed.
const TABLE_RETRY: Duration = Duration::from_secs(15);
/// A table that took long is fetched less often, so that fetching takes at most a hundredth of the time: VictoriaMetrics
/// reads its whole index for one of all its days.
const TABLE_REST: u32 = 100;

/// Settings of one backend.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How it is reached.
    pub backend: backend::Settings,
    /// How its metrics are reached, where that is elsewhere.
    pub metrics: Option<backend::Settings>,
    /// How its queries are priced.
    pub model: Model,
    /// The treatment of a query that is not PromQL.
    pub on_unparsable: OnUnparsable,
    /// The effect of its distress on its window.
    pub pressure: pressure::Settings,
    /// Percent of its memory beyond which a query is split; `None` for never.
    pub split_percent: Option<u8>,
    /// Its own limits are lowered to Weir's, where it takes limits.
    pub push_down: bool,
}

/// One backend in use.
#[derive(Debug)]
pub struct Upstream {
    /// Its position in the configuration, which is also that of its budget.
    pub index: usize,
    /// Where requests go.
    pub backend: Arc<Backend>,
    /// Where its metrics come from: mostly the same.
    pub metrics: Arc<Backend>,
    /// How they are priced.
    pub model: Model,
    /// The treatment of a query that is not PromQL.
    pub on_unparsable: OnUnparsable,
    /// Percent of its memory beyond which a query is split.
    pub split_percent: Option<u8>,
    /// Its own limits are lowered to Weir's, where it takes limits.
    pub push_down: bool,
    /// The identity of the database, under any name: the history of one says nothing of another.
    identity: String,
    /// Its addresses lead to the same database from every machine, so that its counts hold for other proxies as well.
    pub(super) is_known_elsewhere: bool,
    /// The monitor of its distress; it outlives a reload, so that a backend in distress stays known as such.
    monitor: Arc<Mutex<Monitor>>,
    /// Which series left its head; it outlives a reload as well.
    head_removals: Arc<Mutex<HeadRemovals>>,
    table: Arc<ArcSwapOption<LabelTable>>,
    types: Arc<ArcSwap<MetricTypes>>,
    /// Its own metrics said that it takes native histograms.
    takes_histograms: AtomicBool,
    /// The kinds that it may be, as its own metrics page says.
    kinds_of_page: OnceLock<&'static [Kind]>,
}

impl Upstream {
    /// A backend with the knowledge of `before`, the same one under earlier settings.
    pub fn new(index: usize, settings: Settings, before: Option<&Self>) -> Self {
        let (kind, pressure, now) = (settings.backend.kind, settings.pressure, Instant::now());
        let monitor = before.map(|before| Arc::clone(&before.monitor));
        let monitor = monitor.unwrap_or_else(|| Arc::new(Mutex::new(Monitor::new(kind, pressure, now))));
        monitor.lock().obey(kind, pressure, now);
        let head_removals = before.map(|before| Arc::clone(&before.head_removals)).unwrap_or_default();
        let reads_same = before.is_some_and(|before| before.backend.reads_as(&settings.backend));
        let before_reading = before.filter(|_| reads_same);
        let table = before_reading.map(|before| Arc::clone(&before.table));
        let types = before_reading.map(|before| Arc::clone(&before.types));
        let takes_histograms = before_reading.is_some_and(|before| before.takes_histograms.load(Relaxed));
        // Digested once, since it is part of a digest for every query.
        let urls = format!("{:?}", settings.backend.urls);
        let identity = Fingerprint::of_bytes(b"backend", &[kind.as_str().as_bytes(), urls.as_bytes()]);
        let is_known_elsewhere = !settings.backend.urls.iter().any(BaseUrl::is_loopback);
        let renew = |settings, before: Option<&Arc<Backend>>| match before {
            Some(before) => before.renewed(settings),
            None => Backend::new(settings),
        };
        let backend = renew(settings.backend, before.map(|before| &before.backend));
        let metrics = settings.metrics.map(|settings| renew(settings, before.map(|before| &before.metrics)));
        Self {
            index,
            metrics: metrics.unwrap_or_else(|| Arc::clone(&backend)),
            backend,
            model: settings.model,
            on_unparsable: settings.on_unparsable,
            split_percent: settings.split_percent,
            push_down: settings.push_down,
            identity: identity.to_string(),
            is_known_elsewhere,
            monitor,
            head_removals,
            table: table.unwrap_or_default(),
            types: types.unwrap_or_default(),
            takes_histograms: AtomicBool::new(takes_histograms),
            kinds_of_page: OnceLock::new(),
        }
    }

    /// The monitor of its distress. Lock it for a moment only, never across a wait.
    pub fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock()
    }

    /// The removals from its head. Lock them for a moment only, never across a wait.
    pub fn head_removals(&self) -> MutexGuard<'_, HeadRemovals> {
        self.head_removals.lock()
    }

    /// The series that left the scope of its label table since then, as far as it counts them.
    pub fn gone_since(&self, since_ms: i64, now_ms: i64) -> Option<u64> {
        (self.backend.kind() == Kind::Prometheus)
            .then(|| self.head_removals().gone_since(since_ms, now_ms))?
    }

    /// The latest label table.
    pub fn table(&self) -> Guard<Option<Arc<LabelTable>>> {
        self.table.load()
    }

    /// The types of its metrics, as far as they are known; `None` where it holds floats alone.
    pub fn types(&self) -> Option<Guard<Arc<MetricTypes>>> {
        match self.backend.kind() {
            Kind::VictoriaMetrics | Kind::M3 | Kind::Weir => None,
            Kind::Prometheus | Kind::Thanos | Kind::Mimir | Kind::Cortex => Some(self.types.load()),
        }
    }

    /// Whether it is asked for the types of metrics that [`types`](Self::types) leaves open, for a window that begins then:
    /// Prometheus says on its metrics page whether it took native histograms since it started, and older blocks may hold
    /// some; the others say nothing.
    pub fn asks_types(&self, since_ms: i64) -> bool {
        let is_counted = || self.head_removals().count_since_ms().is_none_or(|start| start <= since_ms);
        match self.backend.kind() {
            Kind::Prometheus => self.takes_histograms.load(Relaxed) || !is_counted(),
            Kind::Thanos | Kind::Mimir | Kind::Cortex => true,
            Kind::VictoriaMetrics | Kind::M3 | Kind::Weir => false,
        }
    }

    /// Looks at the metrics page of each replica for native histograms. A replica that took them once holds them.
    pub(super) fn look_for_histograms(&self, pages: &[Option<&str>]) {
        if pressure::takes_histograms(pages) {
            self.takes_histograms.store(true, Relaxed);
        }
    }

    /// Looks for the program on a metrics page, where the page is the database's own.
    pub(super) fn look_for_program(&self, pages: &[Option<&str>]) {
        if self.kinds_of_page.get().is_none() && Arc::ptr_eq(&self.metrics, &self.backend) {
            let kinds = pages.iter().flatten().find_map(|page| pressure::kinds_of_page(page));
            if let Some(kinds) = kinds {
                // One look follows another: nobody else sets it.
                let _ = self.kinds_of_page.set(kinds);
            }
        }
    }

    /// The kind that its metrics page names, where the configuration has another.
    pub fn other_kind(&self) -> Option<Kind> {
        let kinds = self.kinds_of_page.get().filter(|kinds| !kinds.contains(&self.backend.kind()))?;
        kinds.first().copied()
    }

    /// Under which a run of a query is remembered; the scope says whose data it reads.
    pub(super) fn history_key(
        &self,
        scope: &DataScope,
        fingerprint: Fingerprint,
        shape: &Shape,
        now_ms: i64,
    ) -> HistoryKey {
        HistoryKey::new(&self.identity, scope.key(), fingerprint, shape, now_ms)
    }

    /// Under which the bytes of an entry are remembered, where a request lists series or values: few databases say how long
    /// these are. The fingerprint holds the labels that a tenant is confined to.
    pub(super) fn entry_key(
        &self,
        scope: &DataScope,
        fingerprint: Fingerprint,
        shape: &Shape,
    ) -> Option<HistoryKey> {
        match &shape.reads {
            Reads::Listing(listed) => {
                HistoryKey::of_entries(&self.identity, scope.key(), fingerprint, listed)
            }
            Reads::Query(_) | Reads::RemoteRead { .. } => None,
        }
    }

    /// Under which proxies of a fleet share a count of series; `None` where another proxy may have another database there.
    pub(super) fn count_key(&self, request: &ProbeRequest<'_>) -> Option<Fingerprint> {
        let TimeRange { start, end } = request.asked_window();
        let [start, end] = [start, end].map(i64::to_le_bytes);
        let (identity, scope) = (self.identity.as_bytes(), request.scope.key().as_bytes());
        let parts: [&[u8]; 5] = [identity, scope, request.selector.as_bytes(), &start, &end];
        self.is_known_elsewhere.then(|| Fingerprint::of_bytes(b"count", &parts))
    }

    /// How it reads times; VictoriaMetrics also fills in missing start, end and step by itself.
    pub fn dialect(&self) -> TimeDialect {
        match self.backend.kind() {
            Kind::VictoriaMetrics => TimeDialect::VictoriaMetrics,
            Kind::M3 => TimeDialect::M3,
            _ => TimeDialect::Prometheus,
        }
    }

    /// Keeps the label table fresh until the future is dropped.
    pub async fn keep_table(&self, metrics: &Metrics, clock: fn() -> i64) {
        loop {
            let began = Instant::now();
            let fresh = self.refresh_table(clock).await;
            let rest = TABLE_INTERVAL.max(began.elapsed().saturating_mul(TABLE_REST));
            if let Some(table) = self.table.load().as_deref().filter(|_| fresh) {
                metrics.label_table_fetched(self.backend.name(), table.fetched_ms() / 1_000);
            }
            tokio::time::sleep(if fresh { rest } else { TABLE_RETRY }).await;
        }
    }

    /// Fetches the label table once; `false` when the backend has none to give. An old one rules itself out by its
    /// age; without one, more queries are probed.
    pub async fn refresh_table(&self, clock: fn() -> i64) -> bool {
        if self.types().is_some() {
            self.refresh_types().await;
        }
        match self.fetch_table(clock).await {
            Ok(table) => {
                self.table.store(Some(Arc::new(table)));
                true
            }
            Err(why) => {
                tracing::debug!(backend = self.backend.name(), %why, "no label table");
                false
            }
        }
    }

    async fn fetch_table(&self, clock: fn() -> i64) -> Result<LabelTable, String> {
        let table = self.fetch_table_of(Days::Latest, clock()).await?;
        if self.backend.kind() != Kind::VictoriaMetrics {
            return Ok(table);
        }
        match self.fetch_table_of(Days::All, clock()).await {
            Ok(wider) => Ok(table.or(wider.covering(i64::MIN))),
            Err(why) => {
                tracing::debug!(backend = self.backend.name(), %why, "no label table of all days");
                Ok(table)
            }
        }
    }

    async fn refresh_types(&self) {
        match self.backend.metadata(TABLE_ENTRIES).await {
            Ok(body) => {
                if let Some(types) = MetricTypes::from_metadata(&body, TABLE_ENTRIES) {
                    self.types.store(Arc::new(types));
                }
            }
            Err(why) => tracing::debug!(backend = self.backend.name(), %why, "no types of metrics"),
        }
    }

    async fn fetch_table_of(&self, days: Days, asked_ms: i64) -> Result<LabelTable, String> {
        let body = self.backend.tsdb_status(TABLE_ENTRIES, days).await.map_err(|error| error.to_string())?;
        let table = LabelTable::from_tsdb_status(&body, asked_ms, TABLE_ENTRIES);
        let table = table.map_err(|error| error.to_string())?;
        // A Thanos querier asks its sidecars, rulers and receivers, and no store gateway.
        Ok(if self.backend.kind() == Kind::Thanos { table.partial() } else { table })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old blocks with native histograms of a Prometheus that took none since its start were priced as floats.
    #[tokio::test]
    async fn types_are_asked_for_windows_that_the_metrics_page_says_nothing_of() {
        let upstream = Upstream::new(
            0,
            Settings {
                backend: backend::Settings::new("main", Kind::Prometheus, Vec::new()),
                metrics: None,
                model: Model::default(),
                on_unparsable: OnUnparsable::Refuse,
                pressure: pressure::Settings::default(),
                split_percent: None,
                push_down: false,
            },
            None,
        );
        assert!(!upstream.asks_types(0), "it has no page");
        let page = "process_start_time_seconds 7000\nprometheus_tsdb_head_series_removed_total 0\n\
                    prometheus_tsdb_head_samples_appended_total{type=\"histogram\"} 0\n";
        upstream.head_removals().observe(&[Some(page)], 8_000_000);
        upstream.look_for_histograms(&[Some(page)]);
        assert!(!upstream.asks_types(7_000_000), "it would have counted them");
        assert!(upstream.asks_types(6_999_999));
    }
}
