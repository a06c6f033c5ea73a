//! The cheapest way to count series that each kind of backend has.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    ask::{Form, Listed},
    request::{ProbeError, ProbeRequest, now_ms},
};
use crate::{
    backend::{
        Backend, Kind,
        endpoint::Place,
        headers::{M3Limits, m3_push_down},
    },
    base::{
        Confidence::{self, Exact, Learned, UpperBound},
        LabelSize, TimeRange,
        time::seconds,
    },
};

/// How far an instant query looks back.
pub(super) const LOOKBACK_MS: u64 = 300_000;
/// A backend is upgraded under a running Weir, now and then.
const LIMIT_SUPPORT_TTL: Duration = Duration::from_secs(600);
/// The first Prometheus whose `/api/v1/series` obeys `limit`.
const SERIES_LIMIT_SINCE: (u64, u64) = (2, 51);
/// Up to here VictoriaMetrics lists series in 30 ms, and surely lists them all: its own limit is 30,000. Its statistics
/// take a millisecond for any selector, and were measured to count 2 to 4 % too many.
pub(super) const VICTORIA_LISTS_CHEAPLY: u64 = 25_000;
/// The time that Mimir's ingesters, which count, surely still hold.
const MIMIR_RECENT_MS: i64 = 12 * 3_600_000;

impl Backend {
    /// Asks in the way of this kind of backend. `end_ms` is the last moment of the window that there can be samples of.
    pub(super) async fn count_series(
        &self,
        request: &ProbeRequest<'_>,
        end_ms: i64,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        match self.kind() {
            Kind::Prometheus => self.count_on_prometheus(request, end_ms, deadline).await,
            Kind::VictoriaMetrics => self.count_on_victoria(request, deadline).await,
            Kind::Mimir => self.count_on_mimir(request, deadline, now_ms()).await,
            Kind::Cortex => self.list(request, deadline).await?.classed(Exact),
            // Replicas may be counted twice, so it is a bound; and none when a store gave no answer.
            Kind::Thanos => self.list(request, deadline).await?.classed(UpperBound),
            Kind::M3 => self.count_on_m3(request, deadline).await,
            Kind::Weir => self.count_on_weir(request, deadline).await,
        }
    }

    async fn list(&self, request: &ProbeRequest<'_>, deadline: Instant) -> Result<Listed, ProbeError> {
        self.list_series(request, HeaderMap::new(), deadline).await
    }

    /// One list of series, cut by the backend where it can cut it. Before 2.51 it cannot: there an instant count goes
    /// first, and sorts out selections far too large. It misses series that came and went before, which a query holds
    /// as well: the rest is listed.
    async fn count_on_prometheus(
        &self,
        request: &ProbeRequest<'_>,
        end_ms: i64,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        if self.obeys_series_limit(request, deadline).await {
            return self.list(request, deadline).await?.classed(Exact);
        }
        let at_end = self.count_near(request, end_ms, deadline).await?;
        if at_end.series > request.limit {
            return Ok(Counted { truncated: true, ..at_end });
        }
        let listed = self.list(request, deadline).await?.classed(Exact)?;
        Ok(Counted { bytes: listed.bytes + at_end.bytes, ..listed })
    }

    pub(super) async fn obeys_series_limit(&self, request: &ProbeRequest<'_>, deadline: Instant) -> bool {
        // Held while asking: the probes that come meanwhile need the same answer.
        let mut known = self.probes.series_limit.lock().await;
        let now = Instant::now();
        if let Some((obeys, at)) = *known
            && now.saturating_duration_since(at) < LIMIT_SUPPORT_TTL
        {
            return obeys;
        }
        let path = "/api/v1/status/buildinfo";
        let asked = self.ask_json::<Answer<BuildInfo>>(path, Form::new(), request, deadline).await;
        let version = asked.ok().and_then(|(answer, _)| major_minor(&answer.data.version));
        // Unknown is taken for old: the old way works everywhere.
        let obeys = version.is_some_and(|v| v >= SERIES_LIMIT_SINCE);
        *known = Some((obeys, now));
        obeys
    }

    /// Counts at the last moment of the window, or up to a lookback before, so that windows that end together share it.
    async fn count_near(
        &self,
        request: &ProbeRequest<'_>,
        end_ms: i64,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        let length = request.window.len_ms();
        let lookback = LOOKBACK_MS as i64;
        let shares = length > 3 * LOOKBACK_MS;
        let at_ms = if shares { end_ms.div_euclid(lookback).saturating_mul(lookback) } else { end_ms };
        let mut bytes = 0;
        let asking = async {
            let (series, answer) = self.count_at(request, at_ms, deadline).await?;
            bytes = answer;
            Ok(series)
        };
        let series = self.probes.answers.at_instant(request, at_ms, asking).await?;
        Ok(Counted::whole(series, Learned, bytes))
    }

    /// The series at an instant, and the bytes of the answer.
    async fn count_at(
        &self,
        request: &ProbeRequest<'_>,
        at_ms: i64,
        deadline: Instant,
    ) -> Result<(u64, u64), ProbeError> {
        let query = format!("count({})", request.selector);
        let form = Form::new().with("query", &query).with("time", &seconds(at_ms));
        let (answer, bytes): (Answer<Vector>, _) =
            self.ask_json("/api/v1/query", form, request, deadline).await?;
        let Some(sample) = answer.data.result.first() else { return Ok((0, bytes)) };
        let text = sample.value.1.as_str();
        let series = text.parse().map_err(|_| ProbeError::Unreadable(format!("`{text}` is not a count")))?;
        Ok((series, bytes))
    }

    /// The statistics of the window's last day first, a matter of a millisecond for any selector. They count a few
    /// percent too many: series are listed where that or the other days of the window matter.
    async fn count_on_victoria(
        &self,
        request: &ProbeRequest<'_>,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        let last_day = date(request.window.end.saturating_sub(1).max(request.window.start));
        let last = self.victoria_total(request, &last_day, deadline).await?;
        let surely_over = request.limit.saturating_add(request.limit / 10);
        if last.series > surely_over {
            return Ok(last);
        }
        let one_day = date(request.window.start) == last_day;
        if last.series > VICTORIA_LISTS_CHEAPLY && last.series <= request.limit {
            if one_day {
                return Ok(last);
            }
            // Every day there is: when that is hardly more, the days of the window hold hardly more.
            let ever = self.victoria_total(request, "0", deadline).await?;
            if ever.series <= last.series + last.series / 50 {
                return Ok(Counted { bytes: last.bytes + ever.bytes, ..ever });
            }
        }
        match self.list(request, deadline).await {
            Ok(listed) => {
                let listed = listed.classed(UpperBound)?;
                Ok(Counted { bytes: last.bytes + listed.bytes, ..listed })
            }
            // It lists no more than its own limit allows; the statistics know no such limit.
            Err(ProbeError::Refused(..)) => {
                let ever = self.victoria_total(request, "0", deadline).await?;
                Ok(if one_day { last } else { ever })
            }
            Err(error) => Err(error),
        }
    }

    async fn victoria_total(
        &self,
        request: &ProbeRequest<'_>,
        date: &str,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        let form = Form::new().with("match[]", request.selector).with("date", date).with("topN", "1");
        let (answer, bytes): (Answer<TsdbTotal>, _) =
            self.ask_json("/api/v1/status/tsdb", form, request, deadline).await?;
        Ok(Counted::whole(answer.data.total_series, Learned, bytes))
    }

    /// The ingesters' count, where the operator switched it on; older series are in the list only.
    async fn count_on_mimir(
        &self,
        request: &ProbeRequest<'_>,
        deadline: Instant,
        now_ms: i64,
    ) -> Result<Counted, ProbeError> {
        let form = Form::new()
            .with("label_names[]", "__name__")
            .with("selector", request.selector)
            .with("count_method", "active")
            .with("limit", "1");
        let path = "/api/v1/cardinality/label_values";
        let endpoint = &self.probes.cardinality;
        if endpoint.places(Place::Prefix, Instant::now()).is_empty() {
            return self.list(request, deadline).await?.classed(Learned);
        }
        let counted = self.ask_json::<Cardinality>(path, form, request, deadline).await;
        let recent = request.window.start >= now_ms.saturating_sub(MIMIR_RECENT_MS);
        match counted {
            Ok((answer, bytes)) => {
                endpoint.found(Place::Prefix);
                let names = answer.labels.iter().find(|l| l.label_name == "__name__");
                let series = names.map_or(0, |l| l.series_count);
                if recent || series > request.limit {
                    return Ok(Counted::whole(series, Learned, bytes));
                }
            }
            // There is none, or the operator did not switch it on: no question of this query.
            Err(ProbeError::Refused(403 | 404 | 405 | 422 | 501, why)) => {
                if endpoint.not_found(Instant::now()) {
                    tracing::info!(
                        backend = self.name(),
                        "the backend has no {path}, series are listed instead: {why}"
                    );
                }
            }
            Err(ProbeError::Refused(..) | ProbeError::Unreadable(_)) => {}
            Err(error) => return Err(error),
        }
        // Its own `max_series_query_limit` shortens the list in silence: never more than an observation.
        self.list(request, deadline).await?.classed(Learned)
    }

    async fn count_on_m3(
        &self,
        request: &ProbeRequest<'_>,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        let mut headers = HeaderMap::new();
        let left = deadline.saturating_duration_since(Instant::now());
        // One more than is asked for, since the list has to be able to hold one more than the limit.
        let limits = M3Limits {
            series: Some(request.limit.saturating_add(1)),
            timeout: Some(left),
            ..M3Limits::default()
        };
        m3_push_down(&mut headers, |_| None, &limits);
        headers.insert("m3-limit-require-exhaustive", HeaderValue::from_static("false"));
        self.list_series(request, headers, deadline).await?.classed(Exact)
    }

    async fn count_on_weir(
        &self,
        request: &ProbeRequest<'_>,
        deadline: Instant,
    ) -> Result<Counted, ProbeError> {
        let TimeRange { end, .. } = request.window;
        let range = request.window.len_ms().max(1);
        let query = format!("last_over_time({}[{range}ms])", request.selector);
        let form = Form::new().with("query", &query).with("time", &seconds(end));
        let (answer, bytes): (Answer<QueryCost>, _) =
            self.ask_json("/api/v1/query_cost", form, request, deadline).await?;
        Ok(Counted::whole(answer.data.estimate.series_touched, Exact, bytes))
    }
}

/// The result of one kind's probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) series: u64,
    pub(super) class: Confidence,
    /// The number is a lower bound.
    pub(super) truncated: bool,
    pub(super) bytes: u64,
    /// Of the series that were listed.
    pub(super) labels: Option<LabelSize>,
}

impl Listed {
    /// A list that was cut below its limit is no count; one that was cut at it says that there are more.
    fn classed(self, whole: Confidence) -> Result<Counted, ProbeError> {
        if self.incomplete && !self.truncated {
            return Err(ProbeError::Incomplete);
        }
        let class = if self.truncated { whole.max(Learned) } else { whole };
        let (truncated, labels) = (self.truncated, self.labels);
        Ok(Counted { truncated, labels, ..Counted::whole(self.series, class, self.bytes) })
    }
}

impl Counted {
    const fn whole(series: u64, class: Confidence, bytes: u64) -> Self {
        Self { series, class, truncated: false, bytes, labels: None }
    }
}

#[derive(Deserialize)]
pub(super) struct Answer<T> {
    pub(super) data: T,
}

#[derive(Deserialize)]
struct BuildInfo {
    version: String,
}

#[derive(Deserialize)]
pub(super) struct Vector {
    pub(super) result: Vec<Sample>,
}

#[derive(Deserialize)]
pub(super) struct Sample {
    pub(super) value: (serde::de::IgnoredAny, String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TsdbTotal {
    total_series: u64,
}

#[derive(Deserialize)]
struct Cardinality {
    labels: Vec<LabelCardinality>,
}

#[derive(Deserialize)]
struct LabelCardinality {
    label_name: String,
    series_count: u64,
}

#[derive(Deserialize)]
struct QueryCost {
    estimate: CostEstimate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CostEstimate {
    series_touched: u64,
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The UTC day of a moment as `YYYY-MM-DD`; 1970 for moments outside the calendar.
fn date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%d")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_dates() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-02-29"),
            (1_709_251_199_999, "2024-02-29"),
            (1_709_251_200_000, "2024-03-01"),
            (1_767_225_599_000, "2025-12-31"),
        ];
        for (ms, expected) in cases {
            assert_eq!(date(ms), expected);
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(major_minor("2.42.0+ds"), Some((2, 42)));
        assert!(major_minor("v3.1.0-rc.0").unwrap() > SERIES_LIMIT_SINCE);
        assert!(major_minor("2.9.1").unwrap() < SERIES_LIMIT_SINCE);
        assert_eq!(major_minor("weird"), None);
    }
}
