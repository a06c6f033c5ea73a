//! Small requests that ask a backend how many series a selector matches, before a query is let in.
//!
//! A probe costs the backend something too. So there are few at a time, their memory is booked, the same one is sent
//! once however many wait for the answer, answers are kept, failures too for a while, and a selector that matches
//! everything is never asked about. A crowd of probes waits for places; one that was late in a crowd is sent again
//! without the others of its tenant. One tenant leaves a place to others, and tenants take turns.

mod ask;
mod cache;
mod counts;
mod kinds;
mod request;
mod scan;
mod state;
mod types;
mod values;

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::{Instant, timeout_at};

use super::{Backend, Kind, error::Cause};
use crate::base::Estimate;

pub(super) use self::state::Probes;
use self::{
    cache::{Kept, widened},
    kinds::{Counted, VICTORIA_LISTS_CHEAPLY},
    request::now_ms,
    state::{COUNTED_BYTES, LISTED_BYTES},
};
pub use self::{
    counts::Counts,
    request::{ProbeError, ProbeOutcome, ProbeRequest},
};

/// Series of the list that is asked for first, where lists are cut. Most selectors match fewer, and their counts do not
/// wait for those that would hold much.
const SHORT_LIST: u64 = 1_000;
/// Series that a list is taken to hold at a backend that cannot cut it.
const UNCUT_SERIES: u64 = 100_000;

impl Backend {
    /// How many series a selector matches in a window, from the cache or from the backend. The window asked about is up
    /// to a 32nd (at least a minute) longer at either end, so that a dashboard that reloads asks the same again.
    pub async fn probe(&self, request: &ProbeRequest<'_>) -> Result<ProbeOutcome, ProbeError> {
        let probes = &self.probes;
        if request.match_all {
            probes.counters.refused.fetch_add(1, Relaxed);
            return Err(ProbeError::MatchAll);
        }
        if let Some(outcome) = probes.answers.of_other_window(request) {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
            return Ok(outcome);
        }
        let asked = ProbeRequest { window: widened(request.window), ..*request };
        // In a box, as the cache keeps a place for it whether it is asked or not.
        let ask = || Box::pin(self.ask_in_turn(&asked, request.window.end));
        let answered = timeout_at(request.deadline, probes.answers.get(&asked, ask)).await;
        let (Kept { answer, open }, cached) = answered.map_err(|_| ProbeError::Busy)?;
        if cached {
            probes.counters.cache_hits.fetch_add(1, Relaxed);
        }
        let outcome = answer?;
        if !cached && !outcome.truncated {
            probes.answers.keep_whole(&asked, outcome, open);
        }
        Ok(outcome.as_seen(cached, open))
    }

    /// `end` is the last moment of the window before it was widened.
    async fn ask_in_turn(&self, request: &ProbeRequest<'_>, end: i64) -> Kept {
        let probes = &self.probes;
        let (began, now_ms) = (Instant::now(), now_ms());
        let asking = async {
            let first = if self.cuts_lists() { request.limit.min(SHORT_LIST) } else { request.limit };
            let short = ProbeRequest { limit: first, ..*request };
            let mut counted = self.ask_booked(&short, end.min(now_ms)).await;
            if first < request.limit && counted.as_ref().is_ok_and(|counted| counted.truncated) {
                counted = self.ask_booked(request, end.min(now_ms)).await;
            }
            // Its own crowd may have made it late. Alone, it is the selector or the backend.
            if !matches!(counted, Err(ProbeError::Late(_))) || probes.tenant_places == 1 {
                return counted;
            }
            let _all = probes.places(probes.tenant_places, request).await?;
            self.ask_within_deadline(request, end.min(now_ms)).await
        };
        let counted = asking.await;
        let took = began.elapsed();
        probes.counters.micros.fetch_add(took.as_micros() as u64, Relaxed);
        let answer = counted.map(|counted| ProbeOutcome {
            series: Estimate::new(counted.series, counted.class),
            truncated: counted.truncated,
            cached: false,
            took,
            bytes: counted.bytes,
            labels: counted.labels,
        });
        Kept { answer, open: request.window.end >= now_ms }
    }

    /// Whether it is counted by a list that ends at a limit.
    fn cuts_lists(&self) -> bool {
        matches!(self.kind(), Kind::Prometheus | Kind::Thanos | Kind::Cortex | Kind::M3)
    }

    /// Asks as soon as there is room for the probe. A short list takes a place only: it would wait for large ones.
    async fn ask_booked(&self, request: &ProbeRequest<'_>, end_ms: i64) -> Result<Counted, ProbeError> {
        let probes = &self.probes;
        let bytes = self.probe_bytes(request).await;
        if bytes > (SHORT_LIST + 1) * LISTED_BYTES {
            let _booked = probes.book(bytes, request).await?;
            return self.ask_within_deadline(request, end_ms).await;
        }
        let _place = probes.places(1, request).await?;
        self.ask_within_deadline(request, end_ms).await
    }

    async fn ask_within_deadline(
        &self,
        request: &ProbeRequest<'_>,
        end_ms: i64,
    ) -> Result<Counted, ProbeError> {
        let (probes, began) = (&self.probes, Instant::now());
        let deadline = began + probes.settings.deadline;
        probes.counters.sent.fetch_add(1, Relaxed);
        let counted = match timeout_at(deadline, self.count_series(request, end_ms, deadline)).await {
            Ok(Err(ProbeError::Backend(error)))
                if matches!(error.cause(), Cause::Late(_) | Cause::LateBody) =>
            {
                Err(ProbeError::Late(began.elapsed()))
            }
            Ok(counted) => counted,
            Err(_) => Err(ProbeError::Late(began.elapsed())),
        };
        if counted.is_err() {
            probes.counters.failures.fetch_add(1, Relaxed);
        }
        counted
    }

    /// Bytes that the backend is expected to hold for a probe.
    async fn probe_bytes(&self, request: &ProbeRequest<'_>) -> u64 {
        let deadline = Instant::now() + self.probes.settings.deadline;
        let series = match self.kind() {
            Kind::Weir => return COUNTED_BYTES,
            Kind::Prometheus if self.obeys_series_limit(request, deadline).await => request.limit,
            Kind::Prometheus => request.limit.max(UNCUT_SERIES),
            Kind::VictoriaMetrics => request.limit.min(VICTORIA_LISTS_CHEAPLY),
            Kind::Thanos | Kind::Mimir | Kind::Cortex | Kind::M3 => request.limit,
        };
        series.saturating_add(1).saturating_mul(LISTED_BYTES).max(COUNTED_BYTES)
    }
}
