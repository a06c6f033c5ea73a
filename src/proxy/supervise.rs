//! Keeps each backend's budget in step with its health and its own distress.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{log::active::ActiveQueries, upstream::Upstream};
use crate::{
    backend::pressure::{Expected, Look, Signal},
    base::Allowance,
    limit::{self, Admission, BackendId},
    telemetry::metrics::Metrics,
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that find no replica alive before nothing more is sent: a replica that is left alone for a second
/// after a query that it did not survive is not yet dead.
const DEAD_LOOKS: u32 = 2;
/// A change of the share by so much is worth a log line.
const WORTH_SAYING: f64 = 0.1;

/// Whom a watched backend's state matters to.
#[derive(Clone)]
pub(super) struct Watcher {
    admission: Arc<Admission>,
    active: Arc<ActiveQueries>,
    pub(super) metrics: Arc<Metrics>,
}

impl Watcher {
    pub(super) fn new(
        admission: &Arc<Admission>,
        active: &Arc<ActiveQueries>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (admission, active) = (Arc::clone(admission), Arc::clone(active));
        Self { admission, active, metrics: Arc::clone(metrics) }
    }

    /// Watches a backend until the future is dropped. While it is known to be down nothing runs and nothing waits; under
    /// pressure its budget shrinks; about to run out of memory, it is rid of its heaviest query at every look.
    pub(super) async fn watch(self, upstream: Arc<Upstream>, clock: fn() -> i64) {
        let (name, id) = (upstream.backend.name(), BackendId(upstream.index));
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut dead, mut told, mut stale) = (0, None, Vec::new());
        loop {
            ticks.tick().await;
            dead = if upstream.backend.sick() { dead + 1 } else { 0 };
            let is_dead = dead >= DEAD_LOOKS;
            let look = self.look(&upstream, id, clock).await;
            tell(name, &look, &self.metrics);
            // A dead backend says nothing of itself: one line about that is enough.
            if look.stale != stale && !is_dead {
                tell_silence(name, &look);
                stale.clone_from(&look.stale);
            }
            let left = if is_dead { Allowance::Nothing } else { look.left };
            if told != Some(left) {
                self.admission.allow(id, left);
                self.metrics.budget_share(name, left.share());
                tell_change(name, told.unwrap_or(Allowance::Share(1.0)), left, &look, is_dead);
            }
            told = Some(left);
        }
    }

    async fn look(&self, upstream: &Upstream, id: BackendId, clock: fn() -> i64) -> Look {
        let pages = upstream.metrics.metrics_pages(Instant::now() + EVERY).await;
        let pages: Vec<_> = pages.iter().map(|page| std::str::from_utf8(page.as_deref()?).ok()).collect();
        upstream.churn().look(&pages, clock());
        let (bytes, budget) = self.admission.held_since_asked(id).unwrap_or_default();
        let look = upstream.monitor().look(&pages, Expected { bytes, budget }, Instant::now());
        self.admission.doubt(id, look.doubts());
        if look.runs_out() {
            self.recall(upstream.backend.name(), budget);
        }
        look
    }

    /// Breaks off the heaviest query, unless what runs is light: then it is not what memory is used for.
    fn recall(&self, backend: &str, budget: Option<u64>) {
        let least = budget.map_or(1, limit::light);
        if let Some(seen) = self.active.cancel_heaviest(backend, least) {
            let query = &seen.facts;
            tracing::warn!(
                backend, tenant = %query.owner.tenant, actor = &*query.owner.actor, query = &*query.query,
                fingerprint = query.fingerprint.map(tracing::field::display), est_memory_bytes = query.cost.memory.value,
                "the backend is about to run out of memory: its heaviest query is broken off"
            );
        }
    }
}

fn tell(backend: &str, look: &Look, metrics: &Metrics) {
    metrics.estimate_error(backend, look.error);
    for reading in &look.readings {
        metrics.pressure(backend, reading.signal.as_str(), Some(reading.pressure));
        metrics.pressure_stale(backend, reading.signal.as_str(), false);
    }
    for signal in &look.stale {
        metrics.pressure(backend, signal.as_str(), None);
        metrics.pressure_stale(backend, signal.as_str(), true);
    }
}

/// Says what is left of the budget, where the change is worth a line.
fn tell_change(backend: &str, before: Allowance, left: Allowance, look: &Look, down: bool) {
    let is_another_kind = std::mem::discriminant(&before) != std::mem::discriminant(&left);
    if is_another_kind || (left.share() - before.share()).abs() >= WORTH_SAYING {
        let holds_times_expected = look.error;
        tracing::warn!(backend, ?left, ?before, down, holds_times_expected, "what is left of the budget");
    }
}

fn tell_silence(backend: &str, look: &Look) {
    let signals: Vec<_> = look.stale.iter().copied().map(Signal::as_str).collect();
    if signals.is_empty() {
        tracing::info!(backend, "every signal of pressure comes again");
    } else {
        tracing::warn!(
            backend,
            signals = signals.join(","),
            left = ?look.left,
            "signals of pressure that should come stay away; pressure.on_stale says what becomes of the budget"
        );
    }
}
