//! `/api/v1/admin/top`: the ranking of the heaviest.

use axum::{extract::State, response::Response};
use tokio::time::Instant;

use super::{
    reply::{Failed, RequestParams, success},
    state::Admin,
};
use crate::{
    proxy::{ActiveQuery, Proxy},
    top::{By, Measure, Observation, Ranking, Window},
};

/// Rows, unless it is asked otherwise.
const ROWS: usize = 20;
/// The most that can be asked for.
const ROWS_MAX: usize = 50;

/// The heaviest of a window, the heaviest first.
pub(super) async fn rank(State(admin): State<Admin>, mut asked: RequestParams) -> Result<Response, Failed> {
    let ranking = ranking(&admin.proxy, &mut asked, By::ALL)?;
    ranking.map(success).ok_or_else(|| Failed::missing("this process keeps no record of queries"))
}

/// The ranking that a request asks for, by the first of `by` where it does not say; `None` where no queries are recorded.
pub(super) fn ranking(
    proxy: &Proxy,
    asked: &mut RequestParams,
    by: &[By],
) -> Result<Option<Ranking>, Failed> {
    let window = asked.one_of("window", Window::ALL, Window::as_str)?;
    let by = asked.one_of("by", by, By::as_str)?;
    let sort = asked.one_of("sort", Measure::ALL, Measure::as_str)?;
    let limit = asked.take("limit").map_or(Ok(ROWS), |limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=ROWS_MAX).contains(limit));
        limit.ok_or_else(|| Failed::bad(format!("`limit` is a number from 1 to {ROWS_MAX}")))
    })?;
    asked.nothing_else()?;
    let active = proxy.active().list();
    let (now, now_ms) = (Instant::now(), proxy.now_ms());
    let running: Vec<_> = active
        .iter()
        .filter(|query| query.waited().is_some() && !query.is_uncounted())
        .map(|query| observation(query, now, now_ms))
        .collect();
    Ok(proxy.top().map(|top| top.ranking_with(&running, window, by, sort, limit, now_ms)))
}

/// A query that runs, as if it ended now.
fn observation(query: &ActiveQuery, now: Instant, now_ms: i64) -> Observation<'_> {
    let (facts, cost) = (&query.facts, query.asked().map(|asked| asked.cost));
    let origin = &facts.owner.origin;
    let took_ms = now.saturating_duration_since(facts.began).as_millis() as u64;
    Observation {
        at_ms: now_ms.saturating_sub_unsigned(took_ms),
        took_ms,
        wait_ms: query.waited().unwrap_or_default().as_millis() as u64,
        tenant: facts.owner.tenant.as_str(),
        dashboard: origin.dashboard.as_deref().unwrap_or_default(),
        panel: origin.panel.as_deref().unwrap_or_default(),
        user: origin.user.as_deref().unwrap_or_default(),
        rule: origin.rule.as_deref().unwrap_or_default(),
        client: origin.client,
        fingerprint: facts.fingerprint,
        query: facts.query.as_deref().unwrap_or_default(),
        ran: true,
        memory: cost.map(|cost| cost.memory.value),
        series: cost.map(|cost| cost.series.value),
        samples: cost.map(|cost| cost.samples.value),
        ..Observation::default()
    }
}
