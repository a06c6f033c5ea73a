//! Names, help texts, labels and buckets of every metric.

use std::cell::RefCell;

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector, exponential_buckets,
};

use super::{
    Described, Dimension, Metrics,
    control::Control,
    fleet::Fleet,
    identity::{Identified, identified},
    top::TopGauges,
};
use crate::telemetry::{process::ProcessCollector, tenants::TenantLabels};

/// Makes and registers metrics.
pub(super) struct Maker<'a> {
    registry: &'a Registry,
    described: RefCell<Vec<Described>>,
}

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.describe(&collector);
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn describe(&self, collector: &impl Collector) {
        let described = collector
            .desc()
            .into_iter()
            .map(|desc| Described { name: desc.fq_name.clone(), labels: desc.variable_labels.clone() });
        self.described.borrow_mut().extend(described);
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.keep(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.keep(IntGauge::new(name, help)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> prometheus::Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
    }

    fn fleet(&self) -> prometheus::Result<Fleet> {
        Ok(Fleet {
            up: self.gauge("weir_fleet_up", "1 while the store of leases answers; 0 without a store.")?,
            learning: self.gauge(
                "weir_fleet_learning",
                "1 while the store of leases has just lost its memory and grants only what is held.",
            )?,
            proxies: self.gauge("weir_fleet_proxies", "Proxies of the fleet that run.")?,
            leased: self.gauges(
                "weir_fleet_leased",
                "Leased of a backend's budget, beyond this proxy's fixed part.",
                &["backend", "resource"],
            )?,
            tenants: self.gauge(
                "weir_fleet_tenants",
                "Tenants that needed more than this proxy's fixed part of their limits in the last round trip.",
            )?,
            rounds: self.counter(
                "weir_fleet_rounds_total",
                "Round trips to the store of leases, each for all backends and tenants.",
                &["outcome"],
            )?,
            seconds: self.keep(Histogram::with_opts(
                HistogramOpts::new(
                    "weir_fleet_round_seconds",
                    "Time of a round trip to the store of leases.",
                )
                .buckets(exponential_buckets(0.000_25, 4.0, 6)?),
            )?)?,
            entries: self.counter(
                "weir_fleet_entries_total",
                "Entries of the board over which proxies share kills, rules, pressure and history.",
                &["topic", "outcome"],
            )?,
        })
    }

    fn control(&self) -> prometheus::Result<Control> {
        let lane = &["backend", "lane", "resource"];
        Ok(Control {
            window: self.gauges(
                "weir_backend_window_bytes",
                "The congestion window: bytes of heavy queries that may be in flight at the same time.",
                &["backend"],
            )?,
            lane_used: self.gauges("weir_backend_lane_used", "What runs in a lane of a backend.", lane)?,
            lane_capacity: self.gauges(
                "weir_backend_lane_capacity",
                "What may run in a lane of a backend now.",
                lane,
            )?,
            stalled: self.gauges(
                "weir_backend_stalled_bytes",
                "Memory booked for answers whose clients do not read.",
                &["backend"],
            )?,
            lingering: self.gauges(
                "weir_backend_lingering_queries",
                "Queries whose clients left and that the backend may still work on.",
                &["backend"],
            )?,
            reserve: self.gauges(
                "weir_backend_reserve_bytes",
                "Memory of the heavy lane that is free for one class only.",
                &["backend", "class"],
            )?,
            waiting: self.gauges(
                "weir_queue_waiting",
                "Queries waiting, by reason.",
                &["backend", "reason"],
            )?,
            oldest: self.gauges(
                "weir_oldest_query_age_seconds",
                "Time since the oldest query of a class came that is priced (probing), waits for budget or runs; 0 where none does.",
                &["state", "class"],
            )?,
        })
    }

    fn estimated(&self, sizes: Vec<f64>) -> prometheus::Result<[Histogram; 3]> {
        let help = "Cost expected of a query.";
        let by_dimension = self.histograms("weir_estimated_cost", help, &["dimension"], sizes)?;
        Ok(Dimension::ALL.map(|dimension| by_dimension.with_label_values(&[dimension.label()])))
    }

    fn pressure(&self) -> prometheus::Result<GaugeVec> {
        let help = "A backend's own distress, 0 to 1; absent where it gives no signal.";
        self.gauges("weir_backend_pressure", help, &["backend", "signal"])
    }

    fn pressure_stale(&self) -> prometheus::Result<IntGaugeVec> {
        let help = "1 while a signal of pressure that a backend should give stays away for too long, else 0.";
        self.int_gauges("weir_backend_pressure_stale", help, &["backend", "signal"])
    }

    fn reload_time(&self) -> prometheus::Result<IntGauge> {
        let help = "When the configuration in force was loaded.";
        self.gauge("weir_config_last_reload_success_timestamp_seconds", help)
    }

    fn queue_wait(&self, seconds: Vec<f64>) -> prometheus::Result<HistogramVec> {
        let help = "Time that admitted queries waited.";
        self.histograms("weir_queue_wait_seconds", help, &["class"], seconds)
    }

    fn requests(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Requests by how they ended and by class of the client's status (`2xx`), or `none`: it left before.";
        self.counter("weir_requests_total", help, &["endpoint", "outcome", "status"])
    }

    fn request_seconds(&self) -> prometheus::Result<HistogramVec> {
        let help =
            "Time from a request to its end: the last byte of a priced query, the head of any other answer.";
        let buckets = exponential_buckets(0.001, 2.5, 13)?;
        self.histograms("weir_request_seconds", help, &["endpoint"], buckets)
    }

    fn request_bodies(&self) -> prometheus::Result<IntGauge> {
        let help = "Bytes that request bodies beyond 64 KiB hold together.";
        self.gauge("weir_request_body_bytes", help)
    }

    fn request_bodies_max(&self) -> prometheus::Result<IntGauge> {
        let help = "Most bytes that such bodies hold together; more wait, and are refused after 10 s.";
        self.gauge("weir_request_body_bytes_max", help)
    }

    fn backend_connections(&self) -> prometheus::Result<IntGaugeVec> {
        let help = "Connections in use to the replicas of a backend, for queries or for light requests.";
        self.int_gauges("weir_backend_connections", help, &["backend", "lane"])
    }

    fn backend_connections_max(&self) -> prometheus::Result<IntGaugeVec> {
        let help = "Most connections in use to the replicas of a backend; more requests wait.";
        self.int_gauges("weir_backend_connections_max", help, &["backend", "lane"])
    }

    fn tls_handshakes(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Handshakes with clients: done, failed or late.";
        self.counter("weir_tls_handshakes_total", help, &["listener", "result"])
    }

    fn refusals(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Queries refused; with mode `shadow` those that would have been.";
        self.counter("weir_refusals_total", help, &["tenant", "limit", "mode", "reason"])
    }

    fn spans(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Spans of queries for the trace collector: sent, failed, or dropped before.";
        self.counter("weir_trace_spans_total", help, &["result"])
    }

    fn journal_records(&self) -> prometheus::Result<IntCounterVec> {
        let help =
            "Queries for the journal: written, dropped since too many came at once, or failed to be written.";
        self.counter("weir_journal_records_total", help, &["result"])
    }

    fn client_connections_lost(&self) -> prometheus::Result<IntCounterVec> {
        let help =
            "Unused client connections closed to make room, and connections refused because all were in use.";
        self.counter("weir_client_connections_lost_total", help, &["outcome"])
    }

    fn client_connections_max(&self) -> prometheus::Result<IntGauge> {
        let help = "Most connections to the query API; beyond them the longest unused one is closed.";
        self.gauge("weir_client_connections_max", help)
    }

    fn label_table_time(&self) -> prometheus::Result<IntGaugeVec> {
        let help = "When the label table was fetched; its age is time() minus this.";
        self.int_gauges("weir_label_table_timestamp_seconds", help, &["backend"])
    }

    fn rule_hits(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Queries that a rule matched, by rule and action.";
        self.counter("weir_rule_hits_total", help, &["rule", "action"])
    }

    fn soft_limits(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Queries that ran in the slow lane for being over a soft limit.";
        self.counter("weir_soft_limit_queries_total", help, &["tenant", "limit", "mode"])
    }

    fn identified(&self) -> prometheus::Result<Identified> {
        let help = "Requests by what named their tenant: known, or refused since it was not believed.";
        Ok(identified(&self.counter("weir_identified_total", help, &["source", "outcome"])?))
    }

    fn jwks_fetches(&self) -> prometheus::Result<IntCounterVec> {
        let help = "Fetches of the keys of issuers of JWTs; the old keys stay where one failed.";
        self.counter("weir_jwks_fetches_total", help, &["outcome"])
    }

    fn label_enforcement(&self) -> prometheus::Result<IntCounterVec> {
        let help =
            "Requests of tenants that are confined to labels: confined, or refused since they could not be.";
        self.counter("weir_label_enforcement_total", help, &["tenant", "outcome"])
    }

    fn overhead(&self) -> prometheus::Result<Histogram> {
        let help = "Time from a request to its admission, without the wait.";
        let buckets = exponential_buckets(0.000_01, 2.5, 13)?;
        self.keep(Histogram::with_opts(HistogramOpts::new("weir_overhead_seconds", help).buckets(buckets))?)
    }

    fn estimate_error(&self) -> prometheus::Result<GaugeVec> {
        let help =
            "How many times more than expected queries hold at the backend; 1 is as expected, or not known.";
        self.gauges("weir_backend_estimate_error", help, &["backend"])
    }

    fn budget_share(&self) -> prometheus::Result<GaugeVec> {
        let help = "The share of a backend's budget that pressure and health leave, 0 to 1.";
        self.gauges("weir_backend_budget_share", help, &["backend"])
    }

    /// Metrics without events: the build, and the process.
    fn keep_facts(&self) -> prometheus::Result<()> {
        let build =
            self.int_gauges("weir_build_info", "Always 1; the labels say which build runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process = ProcessCollector::new()?;
        self.describe(&process);
        self.registry.register(Box::new(process))
    }
}

/// From 1 to 3e10, a factor of ten in two steps: one scale for series, samples and bytes.
fn sizes() -> prometheus::Result<Vec<f64>> {
    exponential_buckets(1.0, 10f64.sqrt(), 22)
}

impl Metrics {
    /// Metrics that name at most `tenants_max` tenants; those seen later are counted together as `other`.
    ///
    /// # Errors
    /// Only if two metrics had the same name.
    #[allow(clippy::too_many_lines, reason = "a table: one entry for each metric")]
    pub fn new(tenants_max: usize) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker { registry: &registry, described: RefCell::default() };
        let (sizes, seconds) = (sizes()?, exponential_buckets(0.001, 2.5, 13)?);
        make.keep_facts()?;
        Ok(Self {
            tenants: TenantLabels::new(tenants_max),
            admissions: make.counter("weir_admissions_total", "Queries admitted.", &["tenant", "class"])?.into(),
            refusals: make.refusals()?,
            estimated: make.estimated(sizes.clone())?,
            actual: make.histograms("weir_actual_cost", "Cost that a query turned out to have.", &["dimension"], sizes)?.into(),
            ratio: make.histograms(
                "weir_estimate_ratio",
                "Expected over actual cost, by how the estimate was known: 1 is right, above 1 is too careful.",
                &["dimension", "known"],
                exponential_buckets(1.0 / 64.0, 2.0, 13)?,
            )?.into(),
            queue_length: make.int_gauges("weir_queue_length", "Queries waiting.", &["backend"])?,
            queue_wait: make.queue_wait(seconds.clone())?.into(),
            budget_used: make.gauges("weir_budget_used", "Budget held by permits.", &["backend", "resource"])?,
            budget_capacity: make.gauges(
                "weir_budget_capacity",
                "Budget that permits may hold, as pressure leaves it.",
                &["backend", "resource"],
            )?,
            control: make.control()?,
            fleet: make.fleet()?,
            probes: make.counter("weir_probes_total", "Probes for the size of a selector.", &["backend", "result"])?,
            probe_bytes: make.counter("weir_probe_bytes_total", "Bytes that probes received.", &["backend"])?,
            probe_seconds: make.histograms("weir_probe_seconds", "Time that probes took.", &["backend"], seconds.clone())?,
            probe_cache: make.counter("weir_probe_cache_total", "Looks into the cache of probes.", &["result"])?,
            split_queries: make.counter(
                "weir_divided_queries_total",
                "Queries that were sent in parts: merged, or sent again as a whole.",
                &["backend", "outcome"],
            )?,
            upstream: make.counter(
                "weir_upstream_responses_total",
                "Answers of backends by class of status (`2xx`), or `error` for none.",
                &["backend", "status"],
            )?.into(),
            upstream_seconds: make.histograms(
                "weir_upstream_seconds",
                "Time from sending a query to the head of its answer.",
                &["backend"],
                seconds.clone(),
            )?.into(),
            answers: make.counter("weir_answers_total", "Answers by how they ended.", &["backend", "outcome"])?.into(),
            answer_bytes: make.counter("weir_answer_bytes_total", "Bytes of answers received.", &["backend"])?.into(),
            learned_entries: make.gauge("weir_learned_entries", "Queries whose cost is remembered.")?,
            pressure: make.pressure()?,
            pressure_stale: make.pressure_stale()?,
            budget_share: make.budget_share()?,
            estimate_error: make.estimate_error()?,
            label_table_time: make.label_table_time()?,
            reloads: make.counter("weir_config_reloads_total", "Reloads of the configuration.", &["result"])?,
            reload_ok: make.gauge("weir_config_last_reload_successful", "1 if the last reload was taken over, else 0.")?,
            reload_time: make.reload_time()?,
            overhead: make.overhead()?,
            client_connections: make.gauge("weir_client_connections", "Open connections to the query API.")?,
            requests: make.requests()?.into(),
            request_seconds: make.request_seconds()?.into(),
            request_bodies: make.request_bodies()?,
            request_bodies_max: make.request_bodies_max()?,
            tls_handshakes: make.tls_handshakes()?,
            backend_connections: make.backend_connections()?,
            backend_connections_max: make.backend_connections_max()?,
            client_connections_max: make.client_connections_max()?,
            client_connections_lost: make.client_connections_lost()?,
            spans: make.spans()?,
            rule_hits: make.rule_hits()?,
            soft_limits: make.soft_limits()?,
            label_enforcement: make.label_enforcement()?,
            quota_limit: make.gauges(
                "weir_quota_limit",
                "A tenant's quota in the hour or day of now, where some of it is used.",
                &["tenant", "quota"],
            )?,
            quota_used: make.gauges(
                "weir_quota_used",
                "Used of a tenant's quota in the hour or day of now, by all proxies as far as known.",
                &["tenant", "quota"],
            )?,
            identified: make.identified()?,
            jwks_fetches: make.jwks_fetches()?,
            journal_records: make.journal_records()?,
            journal_bytes: make.gauge("weir_journal_bytes", "Bytes of the journal's files.")?,
            top: TopGauges::make(&make)?,
            described: make.described.into_inner(),
            registry,
        })
    }
}
