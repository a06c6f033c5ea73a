//! A request past the first stages: who asks, where it goes, under which limits; what the later stages need of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use tokio::time::Instant;

use super::{
    config::Live,
    forward::{self, Forward},
    identify::Identity,
    log::record::Record,
    meter::MeterLimits,
    meter::settlement::{self, Account},
    query::Call,
    respond::Body,
    respond::failure::Failure,
    route::{Endpoint, Routed},
    upstream::Upstream,
};
use crate::{
    backend::{
        BackendError, Kind, Outgoing, feedback,
        headers::{Ceilings, m3_push_down},
        pressure::{Answer, Outcome},
    },
    base::{QueryCost, params::Params},
    cost::{Estimated, Verdict},
    limit::{self, Ask, BackendId, PerQuery, TenantPolicy},
};

/// The time that a request has when no limit says less.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// The time that something light has.
const LIGHT_TIME: Duration = Duration::from_secs(30);

/// A request past the first stages.
pub(super) struct Asking<'a> {
    pub(super) live: &'a Live,
    pub(super) who: &'a Identity,
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) routed: Routed<'a>,
    pub(super) parts: &'a Parts,
    pub(super) policy: Arc<TenantPolicy>,
    /// Which of the policy's budgets it draws on.
    pub(super) budget: usize,
    /// The largest share of the budgets that one query takes, bytes.
    pub(super) memory_max: u64,
    /// Bytes beyond which a range query is asked for in pieces.
    pub(super) piece_max: Option<u64>,
    pub(super) began: Instant,
}

impl Asking<'_> {
    pub(super) fn limits(&self) -> &PerQuery {
        self.policy.per_query(self.live.class_id(self.who.class))
    }

    /// Whether a limit stands in the way.
    pub(super) fn verdict(&self, cost: &QueryCost) -> Verdict {
        let class = self.live.class_id(self.who.class);
        match limit::judge(&self.policy, &self.who.tenant, class, cost) {
            Err(_) => Verdict::Exceeded,
            Ok(shadow) if shadow.is_empty() && cost.memory.value <= self.memory_max => Verdict::Within,
            Ok(_) => Verdict::NearLimit,
        }
    }

    pub(super) fn ask(&self, cost: QueryCost, deadline: Instant, again: bool) -> Ask {
        Ask {
            tenant: self.who.tenant.clone(),
            actor: Arc::clone(&self.who.actor),
            class: self.live.class_id(self.who.class),
            backend: BackendId(self.budget),
            cost,
            deadline,
            again,
        }
    }

    /// The time from now to the last byte: the client's, if it is willing to wait less than it may.
    pub(super) fn time(&self, call: &Call) -> Duration {
        let limit = self.limits().timeout_ms.enforced().map(Duration::from_millis);
        [call.timeout, limit].into_iter().flatten().min().unwrap_or(TIME_MAX).min(TIME_MAX)
    }

    pub(super) fn meter_limits(&self) -> MeterLimits {
        let limits = self.limits();
        let max = |limit: limit::Limit| limit.enforced().and_then(std::num::NonZeroU64::new);
        MeterLimits {
            bytes: max(limits.response_bytes),
            // A limit of series is not one of names and values.
            series: max(limits.series)
                .filter(|_| !matches!(self.routed.endpoint, Endpoint::Labels | Endpoint::LabelValues)),
            samples: max(limits.points),
        }
    }

    /// The client's headers as they go on to the backend.
    pub(super) fn headers(&self) -> HeaderMap {
        self.live.rules.forwarded(&self.parts.headers, self.who, self.upstream.backend.tenancy())
    }

    pub(super) fn forwarded(&self, call: &Call, body: Bytes) -> Result<Outgoing, Failure> {
        let limit = self.limits().timeout_ms.enforced().map(Duration::from_millis);
        let ceiling = forward::ceiling(self.routed.endpoint, call.timeout, limit);
        let mut headers = self.headers();
        if self.upstream.backend.kind() == Kind::M3 {
            self.push_down(&mut headers, call, &body, limit);
        }
        Forward { parts: self.parts, routed: self.routed, body, ceiling }.outgoing(headers)
    }

    /// Hands the limits down to a backend that takes them; the client's own may only be lower.
    pub(super) fn push_down(
        &self,
        headers: &mut HeaderMap,
        call: &Call,
        body: &Bytes,
        timeout: Option<Duration>,
    ) {
        let limits = self.limits();
        let ceilings = Ceilings {
            series: limits.series.enforced(),
            docs: limits.blocks.enforced(),
            range: limits.range_seconds.enforced().map(Duration::from_secs),
            returned_datapoints: limits.points.enforced(),
            timeout: call.timeout.into_iter().chain(timeout).min(),
            ..Ceilings::default()
        };
        // Both were read before.
        let form = std::str::from_utf8(body).unwrap_or_default();
        let params = Params::parse(self.parts.uri.query().unwrap_or_default(), form).unwrap_or_default();
        m3_push_down(headers, |name| params.first(name), &ceilings);
    }

    /// Forwards what costs nothing: not counted, not limited but in time.
    pub(super) async fn pass(&self, body: Bytes, record: &mut Record) -> Result<Response<Body>, Failure> {
        record.free();
        let forward = Forward { parts: self.parts, routed: self.routed, body, ceiling: None };
        let request = forward.outgoing(self.headers())?;
        let backend = &self.upstream.backend;
        let response = backend.send_light(request, self.began + LIGHT_TIME).await;
        let response = response.map_err(|error| Failure::from(&error))?;
        let response = forward::receive(response, self.routed.endpoint, backend.name()).await?;
        record.passed(response.status());
        Ok(response.map(|body| Body::passed(body, self.began + LIGHT_TIME)))
    }

    /// What the answer says about the backend's distress.
    pub(super) fn observe(
        &self,
        answered: &Result<Response<crate::backend::Body>, BackendError>,
        call: &Call,
        cost: &QueryCost,
        sent: Instant,
    ) {
        let response = answered.as_ref().ok();
        let status = answered.as_ref().map(|response| response.status().as_u16()).map_err(BackendError::kind);
        let impatient = call.timeout.is_some_and(|timeout| self.began.elapsed() >= timeout.mul_f64(0.9));
        // Only where reading samples is what takes the time.
        let reads = matches!(self.routed.endpoint, Endpoint::Query | Endpoint::QueryRange);
        let kind = self.upstream.backend.kind();
        let answer = Answer {
            outcome: Outcome::of(status, impatient),
            took: sent.elapsed(),
            cost: reads.then_some(if cost.points.value > cost.samples.value {
                cost.points
            } else {
                cost.samples
            }),
            waited: response.is_some_and(|response| feedback::from_headers(response.headers(), kind).waited),
        };
        self.upstream.monitor().answered(&answer, Instant::now());
    }

    /// The series that a backend says it touched, unless it stopped at a limit.
    pub(super) fn told(&self, headers: &HeaderMap) -> Option<u64> {
        let told = feedback::from_headers(headers, self.upstream.backend.kind());
        told.series.filter(|_| !told.limited)
    }

    pub(super) fn account(&self, call: &Call, estimate: Estimated, now_ms: i64) -> Account {
        Account {
            backend: self.upstream.backend.name().to_owned(),
            history_key: self.upstream.history_key(self.who.tenant.as_str(), call, now_ms),
            answer_is_whole: call.answer_is_whole,
            answer_tells: settlement::tells_series(&call.shape),
            estimate,
        }
    }
}
