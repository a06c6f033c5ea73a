//! Whether a selector matches native histograms: each takes many times the memory of a float, and no list of series
//! distinguishes them.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant as StdInstant},
};

use moka::{Expiry, future};
use tokio::time::{Instant, timeout_at};

use super::{
    BYTES_UNIT, COUNTED_BYTES, PROBES_BYTES_MAX, ProbeError, ProbeRequest,
    ask::Form,
    kinds::{Answer, Vector},
    now_ms, taken,
};
use crate::{
    backend::{Backend, ProbeSettings},
    base::time::seconds,
};

/// Bytes that a backend holds for a series at one instant, a native histogram of 160 buckets with it.
const TYPED_BYTES: u64 = 4 << 10;
/// How long the type of a metric is cached: it changes with its exporter.
const SHARE_TTL: Duration = Duration::from_secs(600);
/// How long nothing is kept: the selector had no series, or the backend did not answer.
const NONE_TTL: Duration = Duration::from_secs(10);

type Key = [u64; 2];

/// Shares of native histograms that were asked for, by metric or selector, and scope.
#[derive(Debug)]
pub(super) struct Shares {
    kept: future::Cache<Key, Option<f64>>,
    hashing: [RandomState; 2],
}

#[derive(Debug)]
struct Lifetimes;

impl Expiry<Key, Option<f64>> for Lifetimes {
    fn expire_after_create(&self, _: &Key, share: &Option<f64>, _: StdInstant) -> Option<Duration> {
        Some(if share.is_some() { SHARE_TTL } else { NONE_TTL })
    }
}

impl Shares {
    pub(super) fn new(settings: &ProbeSettings) -> Self {
        let kept = future::Cache::builder().max_capacity(settings.cache_entries).expire_after(Lifetimes);
        Self { kept: kept.build(), hashing: [RandomState::new(), RandomState::new()] }
    }

    fn key(&self, text: &str, request: &ProbeRequest<'_>) -> Key {
        let of = (text, request.scope.key());
        [self.hashing[0].hash_one(of), self.hashing[1].hash_one(of)]
    }
}

impl Backend {
    /// The share of a selector's series that are native histograms, 0 to 1, at the end of its window; `None` where it
    /// has no series then, or the backend did not answer. One selector of a metric stands for all of them.
    pub async fn histogram_share(&self, request: &ProbeRequest<'_>) -> Option<f64> {
        let shares = &self.probes.shares;
        let of_metric = request.metric.map(|metric| shares.key(metric, request));
        if let Some(key) = of_metric
            && let Some(Some(share)) = shares.kept.get(&key).await
        {
            return Some(share);
        }
        let asking = Box::pin(self.ask_share(request));
        let share = shares.kept.get_with(shares.key(request.selector, request), asking);
        let share = timeout_at(request.deadline, share).await.ok()?;
        if let (Some(key), Some(_)) = (of_metric, share) {
            shares.kept.insert(key, share).await;
        }
        share
    }

    async fn ask_share(&self, request: &ProbeRequest<'_>) -> Option<f64> {
        let probes = &self.probes;
        let _place = taken(&probes.places, 1, request.deadline).await.ok()?;
        let bytes = request.limit.saturating_mul(TYPED_BYTES).clamp(COUNTED_BYTES, PROBES_BYTES_MAX);
        let _booked = taken(&probes.memory, (bytes / BYTES_UNIT) as u32, request.deadline).await.ok()?;
        let (selector, at_ms) = (request.selector, request.window.end.min(now_ms()));
        let query = format!("(count(histogram_count({selector})) or vector(0)) / count({selector})");
        let form = Form::new().with("query", &query).with("time", &seconds(at_ms));
        let deadline = Instant::now() + probes.settings.deadline;
        probes.counters.sent.fetch_add(1, Relaxed);
        let asked = self.ask_json::<Answer<Vector>>("/api/v1/query", form, request, deadline);
        match timeout_at(deadline, asked).await {
            Ok(Ok((answer, _))) => answer.data.result.first()?.value.1.parse().ok(),
            // A backend that does not know the function holds none.
            Ok(Err(ProbeError::Refused(400 | 422, _))) => Some(0.0),
            Ok(Err(_)) | Err(_) => {
                probes.counters.failures.fetch_add(1, Relaxed);
                None
            }
        }
    }
}
