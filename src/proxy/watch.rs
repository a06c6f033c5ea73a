//! Keeps each backend's budget in step with its health and its own distress.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::upstream::Upstream;
use crate::{
    backend::{Kind, pressure::Controller},
    limit::{Admission, BackendId},
    telemetry::metrics::Metrics,
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row that find no replica alive before nothing more is sent: a replica that is left alone for a second
/// after a query that it did not survive is not yet dead.
const DEAD_LOOKS: u32 = 2;
/// A change of the share by so much is worth a log line.
const WORTH_SAYING: f64 = 0.1;

/// Watches a backend until the future is dropped. While it is known to be down nothing runs and nothing waits; under
/// pressure its budget shrinks.
pub(super) async fn watch(upstream: Arc<Upstream>, admission: Arc<Admission>, metrics: Arc<Metrics>) {
    let name = upstream.backend.name();
    let mut controller = Controller::new(upstream.pressure.on_stale, Instant::now());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut dead, mut told) = (0, None);
    loop {
        ticks.tick().await;
        dead = if upstream.backend.sick() { dead + 1 } else { 0 };
        let share = if dead >= DEAD_LOOKS {
            0.0
        } else {
            let reading = read(&upstream).await;
            if let Some(reading) = reading {
                metrics.pressure(name, reading.signal, reading.pressure);
            }
            controller.step(reading.map(|reading| reading.pressure), Instant::now())
        };
        if told != Some(share) {
            admission.set_capacity(BackendId(upstream.index), share);
            metrics.budget_share(name, share);
        }
        let before: f64 = told.unwrap_or(1.0);
        if (share - before).abs() >= WORTH_SAYING || (share == 0.0) != (before == 0.0) {
            tracing::warn!(backend = name, share, before, down = dead >= DEAD_LOOKS, "share of the budget");
        }
        told = Some(share);
    }
}

async fn read(upstream: &Upstream) -> Option<crate::backend::pressure::Reading> {
    let limit = upstream.pressure.memory_limit;
    // Backends of these kinds tell their own limits; the others have no signal without a configured one.
    let tells = matches!(upstream.backend.kind(), Kind::Weir | Kind::VictoriaMetrics);
    if !tells && limit.is_none() {
        return None;
    }
    upstream.backend.read_pressure(limit, Instant::now() + EVERY).await
}
