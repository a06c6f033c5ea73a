//! Whether a selector matches native histograms: each takes many times the memory of a float, and no list of series
//! distinguishes them.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, de::IgnoredAny};
use tokio::time::{Instant, timeout_at};

use super::{
    ask::Form,
    kinds::{Answer, LOOKBACK_MS, Vector},
    request::{ProbeError, ProbeRequest, now_ms},
    state::PROBES_BYTES_MAX,
};
use crate::{
    backend::Backend,
    base::{TimeRange, time::seconds},
};

/// Bytes that a backend holds for a series at one instant, a native histogram of 160 buckets with it.
const TYPED_BYTES: u64 = 4 << 10;
/// The most instants of a window that are asked about: a day of lookbacks.
const INSTANTS_MAX: u64 = 288;

#[derive(Deserialize)]
struct Matrix {
    result: Vec<Points>,
}

#[derive(Deserialize)]
struct Points {
    values: Vec<(IgnoredAny, String)>,
}

impl Backend {
    /// The share of a selector's series that are native histograms, 0 to 1, at the end of its window, or the largest
    /// within it where it has no series then; `None` where none was seen, or the backend did not answer. One selector of
    /// a metric stands for all of them.
    pub async fn histogram_share(&self, request: &ProbeRequest<'_>) -> Option<f64> {
        let shares = &self.probes.shares;
        let known = shares.key(request.metric.unwrap_or(request.selector), request);
        if let Some(Some(share)) = shares.kept.get(&known).await {
            return Some(share);
        }
        // Another window may have samples where this one has none.
        let asked = shares.key_of_window(request);
        let share = shares.kept.get_with(asked, Box::pin(self.ask_share(request)));
        let share = timeout_at(request.deadline, share).await.ok()?;
        if share.is_some() {
            shares.kept.insert(known, share).await;
        }
        share
    }

    async fn ask_share(&self, request: &ProbeRequest<'_>) -> Option<f64> {
        let TimeRange { start, end } = request.window;
        let window = TimeRange { start, end: end.min(now_ms()) };
        let at_end = Form::new().with("time", &seconds(window.end));
        match self.ask_typed::<Vector>("/api/v1/query", at_end, request.limit, request).await {
            Ok(Vector { result }) if result.is_empty() => self.ask_share_within(window, request).await,
            Ok(Vector { result }) => result.first()?.value.1.parse().ok(),
            // A backend that does not know the function holds none.
            Err(ProbeError::Refused(400 | 422, _)) => Some(0.0),
            Err(_) => None,
        }
    }

    /// Asks about instants before the end of the window: a lookback apart, so that they see every sample, or fewer where
    /// these would not fit into the memory of probes.
    async fn ask_share_within(&self, window: TimeRange, request: &ProbeRequest<'_>) -> Option<f64> {
        let length = window.len_ms();
        let fitting = PROBES_BYTES_MAX / TYPED_BYTES / request.limit.max(1);
        let instants = (length / LOOKBACK_MS).min(fitting.clamp(1, INSTANTS_MAX));
        if instants == 0 {
            return None;
        }
        let step = i64::try_from(length / (instants + 1)).ok()?;
        let form = Form::new()
            .window(TimeRange { start: window.start + step, end: window.end - step })
            .with("step", &seconds(step));
        let points = request.limit.saturating_mul(instants);
        let asked = self.ask_typed::<Matrix>("/api/v1/query_range", form, points, request).await;
        let values = asked.ok()?.result.into_iter().flat_map(|points| points.values);
        values.filter_map(|(_, share)| share.parse().ok()).reduce(f64::max)
    }

    /// Asks for the share at times that make the backend hold this number of points.
    async fn ask_typed<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        times: Form,
        points: u64,
        request: &ProbeRequest<'_>,
    ) -> Result<T, ProbeError> {
        let (probes, selector) = (&self.probes, request.selector);
        let _booked = probes.book(points.saturating_mul(TYPED_BYTES), request).await?;
        let query = format!("(count(histogram_count({selector})) or vector(0)) / count({selector})");
        let began = Instant::now();
        let deadline = began + probes.settings.deadline;
        probes.counters.sent.fetch_add(1, Relaxed);
        let asked = self.ask_json::<Answer<T>>(path, times.with("query", &query), request, deadline);
        let asked = timeout_at(deadline, asked).await;
        let answer = asked.unwrap_or_else(|_| Err(ProbeError::Late(began.elapsed())));
        if !matches!(answer, Ok(_) | Err(ProbeError::Refused(400 | 422, _))) {
            probes.counters.failures.fetch_add(1, Relaxed);
        }
        answer.map(|(answer, _)| answer.data)
    }
}
