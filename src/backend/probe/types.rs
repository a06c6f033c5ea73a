//! Whether a selector matches native histograms: each takes many times the memory of a float, and no list of series
//! distinguishes them.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::{Instant, timeout_at};

use super::{
    ask::Form,
    kinds::{Answer, Vector},
    request::{ProbeError, ProbeRequest, now_ms},
};
use crate::{backend::Backend, base::time::seconds};

/// Bytes that a backend holds for a series at one instant, a native histogram of 160 buckets with it.
const TYPED_BYTES: u64 = 4 << 10;

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
        let bytes = request.limit.saturating_mul(TYPED_BYTES);
        let _booked = probes.book(bytes, request.deadline).await.ok()?;
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
