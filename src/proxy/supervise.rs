//! Carries the health and the distress of each backend to admission, and cancels a query where nothing else
//! helps. It decides nothing itself: `backend::pressure` observes, `limit` obeys, and [`victim`] chooses.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{fleet::Fleet, log::ActiveQueries, upstream::Upstream};
use crate::{
    backend::pressure::Observation,
    base::distress::{Distress, Load, Signal},
    limit::{self, Admission, Candidate, Cut, victim},
    telemetry::metrics::Metrics,
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Time without a read after which a client counts as stalled.
pub(super) const STALLED: Duration = Duration::from_secs(1);
/// A change of the share by this much is worth a log line.
const WORTH_SAYING: f64 = 0.1;

/// Observes backends, and passes their state on.
#[derive(Clone)]
pub(super) struct BackendSupervisor {
    admission: Arc<Admission>,
    active: Arc<ActiveQueries>,
    fleet: Arc<Fleet>,
    pub(super) metrics: Arc<Metrics>,
}

impl BackendSupervisor {
    pub(super) fn new(
        admission: &Arc<Admission>,
        active: &Arc<ActiveQueries>,
        fleet: &Arc<Fleet>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (admission, active, fleet) = (Arc::clone(admission), Arc::clone(active), Arc::clone(fleet));
        Self { admission, active, fleet, metrics: Arc::clone(metrics) }
    }

    /// Watches a backend until the future is dropped.
    pub(super) async fn supervise(self, upstream: Arc<Upstream>, clock: fn() -> i64) {
        let name = upstream.backend.name();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut was_alive, mut stale) = (true, Vec::new());
        let mut share = self.share(name);
        loop {
            let is_due = tokio::select! {
                _ = ticks.tick() => true,
                () = upstream.backend.changed() => false,
            };
            let alive = !upstream.backend.sick();
            self.admission.set_alive(name, alive);
            if alive != was_alive {
                if alive {
                    tracing::warn!(backend = name, alive, "the backend is up again");
                } else {
                    let why = upstream.backend.whys();
                    tracing::warn!(backend = name, alive, why, "the backend is down");
                }
                was_alive = alive;
            }
            if !is_due {
                continue;
            }
            self.active.release_stalled(name, STALLED);
            let observation = self.observe(&upstream, clock).await;
            self.count(name, &observation);
            // A dead backend says nothing of itself: one line about that is enough.
            if observation.stale != stale && alive {
                say_silence(name, &observation);
                stale.clone_from(&observation.stale);
            }
            share = self.say_window(name, share, alive, &observation);
        }
    }

    async fn observe(&self, upstream: &Upstream, clock: fn() -> i64) -> Observation {
        let name = upstream.backend.name();
        let pages = upstream.metrics.metrics_pages(Instant::now() + EVERY).await;
        let pages: Vec<_> = pages.iter().map(|page| std::str::from_utf8(page.as_deref()?).ok()).collect();
        upstream.head_removals().observe(&pages, clock());
        upstream.look_for_histograms(&pages);
        upstream.look_for_program(&pages);
        let in_flight = self.admission.take_peak(name).unwrap_or_default();
        // A backend shows the memory of all proxies' queries.
        let all = self.fleet.load_of_all(name, in_flight);
        let observation = upstream.monitor().observe(&pages, all, Instant::now());
        let pressure = self.fleet.worst_pressure(name, observation.distress.pressure);
        self.admission.observe(name, &Distress { pressure, ..observation.distress }, in_flight);
        if observation.runs_out {
            self.cancel_one(name, in_flight);
        }
        observation
    }

    /// Cancels the query that is chosen for it.
    fn cancel_one(&self, backend: &str, in_flight: Load) {
        let light = in_flight.budget.map_or(0, limit::light);
        let choose = |running: &[Candidate]| victim(running.iter().copied(), light);
        if let Some(seen) = self.active.cancel_one(backend, choose) {
            let query = &seen.facts;
            tracing::warn!(
                backend, tenant = %query.owner.tenant, actor = &*query.owner.actor, query = query.query.as_deref().unwrap_or_default(),
                fingerprint = query.fingerprint.map(tracing::field::display), est_memory_bytes = seen.memory(),
                "the backend is about to run out of memory: a query is cancelled"
            );
        }
    }

    fn count(&self, backend: &str, observation: &Observation) {
        self.metrics.estimate_error(backend, observation.distress.underestimate);
        for reading in &observation.readings {
            self.metrics.pressure(backend, reading.signal.as_str(), Some(reading.pressure));
            self.metrics.pressure_stale(backend, reading.signal.as_str(), false);
        }
        for signal in &observation.stale {
            self.metrics.pressure(backend, signal.as_str(), None);
            self.metrics.pressure_stale(backend, signal.as_str(), true);
        }
    }

    /// The open part of the window, and the cause of its last cut.
    fn share(&self, backend: &str) -> (f64, Option<Cut>) {
        self.admission.share(backend).unwrap_or((1.0, None))
    }

    /// Logs the open part of the window, where the change since `before` is worth a line.
    fn say_window(
        &self,
        backend: &str,
        before: (f64, Option<Cut>),
        alive: bool,
        observation: &Observation,
    ) -> (f64, Option<Cut>) {
        let now = self.share(backend);
        self.metrics.budget_share(backend, now.0);
        // That nothing runs on a dead backend is no distress of its.
        if !alive || (now.0 - before.0).abs() < WORTH_SAYING {
            return before;
        }
        let cut_by = now.1.map(Cut::as_str);
        let underestimate = observation.distress.underestimate;
        tracing::warn!(
            backend,
            share = now.0,
            before = before.0,
            cut_by,
            underestimate,
            "distress changed the window for heavy queries"
        );
        now
    }
}

fn say_silence(backend: &str, observation: &Observation) {
    let signals: Vec<_> = observation.stale.iter().copied().map(Signal::as_str).collect();
    if signals.is_empty() {
        tracing::info!(backend, "all signals of pressure are there again");
    } else {
        tracing::warn!(
            backend,
            signals = signals.join(","),
            "signals of pressure are missing; pressure.on_stale decides on the window"
        );
    }
}
