//! The way of a request: route, identify, parse, estimate, admit, forward, meter. Each stage takes what the one before
//! made, and any of them may end it with a [`Failure`].

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, request::Parts};
use tokio::{sync::oneshot, time::Instant};

use super::{
    body,
    call::{Call, Reading},
    failure::{Failure, cost_header, estimate_header, timing_header},
    forward::{self, Forward},
    identify::Identity,
    live::{Live, Proxy},
    meter::{BodyError, Meter, MeterLimits},
    record::{Owner, Record},
    respond::{self, Body, SERVER_TIMING, WEIR_COST, WEIR_ESTIMATE, header_text},
    route::{Endpoint, Routed, route},
    settle::{self, Account},
    upstream::Upstream,
    weigh::{Stand, Weighed, Weighing},
};
use crate::{
    backend::{
        BackendError, Kind, feedback,
        headers::{Ceilings, m3_push_down, strip_hop_by_hop},
        pressure::{Answer, Outcome},
    },
    base::{Demand, ErrorKind, params::Params},
    cost::{Estimate, LearnKey, explain},
    limit::{self, Admitted, Ask, BackendId, PerQuery, ShadowHit, TenantPolicy},
    telemetry::metrics::Dimension,
};

/// A query expected to hold this much is written down before it goes out.
const DEAR_BYTES: u64 = 64 << 20;
/// The time that a request has when no limit says less.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// The time that something light has.
const LIGHT_TIME: Duration = Duration::from_secs(30);

/// A request past the first stages.
struct Asking<'a> {
    live: &'a Live,
    who: &'a Identity,
    upstream: &'a Arc<Upstream>,
    routed: Routed<'a>,
    parts: &'a Parts,
    policy: Arc<TenantPolicy>,
    /// Which of the policy's budgets it draws on.
    budget: usize,
    /// The largest share of the budgets that one query takes, bytes.
    memory_max: u64,
    began: Instant,
}

impl Proxy {
    /// Answers a request of the query API. Never fails: every failure is a response.
    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let for_script = request.headers().contains_key(header::ORIGIN);
        if request.method() == Method::OPTIONS {
            return respond::preflight(for_script);
        }
        match self.carry(request, peer).await {
            // A backend says itself who may read its answers.
            Ok(response) => response,
            Err(failure) => respond::readable(failure.into_response(), for_script),
        }
    }

    async fn carry<B>(
        self: &Arc<Self>,
        request: Request<B>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let began = Instant::now();
        let (mut parts, body) = request.into_parts();
        // Before anybody is told apart by a header: naming one in `Connection` would lose it on the way down.
        strip_hop_by_hop(&mut parts.headers);
        let routed = route(&parts.method, parts.uri.path())?;
        let mut record =
            Record::new(routed.endpoint, began, Arc::clone(&self.board), Arc::clone(&self.metrics));
        record.trace(self.trace(routed.endpoint, &mut parts.headers));
        let carried = self.stages(&parts, routed, body, peer, &mut record).await;
        if let Err(failure) = &carried {
            record.failed(failure);
        }
        carried
    }

    /// Everything that leaves a line in the log.
    async fn stages<B>(
        self: &Arc<Self>,
        parts: &Parts,
        routed: Routed<'_>,
        body: B,
        peer: SocketAddr,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let live = self.live();
        let who = live.rules.identify(&parts.headers, peer)?;
        let nowhere = || Failure::new(ErrorKind::Internal, "no backend is configured");
        let upstream = live.upstream(&who.tenant).ok_or_else(nowhere)?;
        record.identified(Owner {
            tenant: who.tenant.clone(),
            actor: Arc::clone(&who.actor),
            class: live.class_name(who.class),
            backend: Arc::clone(upstream.backend.shared_name()),
        });
        if self.stopping() {
            return Err(Failure::new(ErrorKind::ShuttingDown, "Weir is shutting down"));
        }
        let asking = self.asking(&live, &who, upstream, routed, parts, record.began());
        let body = self.bodies.read(body, live.request_body).await?;
        if routed.endpoint == Endpoint::Light {
            return asking.pass(body, record).await;
        }
        let call = self.read(&asking, &body, record)?;
        record.parsed(&call.text, call.fingerprint);
        let explained = matches!(routed.endpoint, Endpoint::QueryCost | Endpoint::QueryRangeCost);
        if call.free && !explained {
            return asking.pass(body, record).await;
        }
        let weighed = self.weigh(&asking, &call).await;
        record.estimated(weighed.estimate.demand);
        if explained {
            record.explained();
            return Ok(self.explain(&asking, &weighed));
        }
        self.run(&asking, call, weighed, body, record).await
    }

    /// What the later stages need of the earlier ones.
    fn asking<'a>(
        &self,
        live: &'a Live,
        who: &'a Identity,
        upstream: &'a Arc<Upstream>,
        routed: Routed<'a>,
        parts: &'a Parts,
        began: Instant,
    ) -> Asking<'a> {
        let policy = self.admission.policy();
        // By name: a reload may have changed the order between the two.
        let budget = policy.backends.iter().position(|budget| *budget.name == *upstream.backend.name());
        let budget = budget.unwrap_or(upstream.index);
        let whole = policy.backends.get(budget).and_then(|budget| budget.memory.enforced());
        let policy = Arc::clone(policy.tenant(&who.tenant));
        let own = policy.per_query(live.class_id(who.class)).memory.enforced();
        // Half of a backend's budget at most, so that what other classes reserve stays theirs.
        let largest = [whole.map(|bytes| bytes / 2), policy.in_flight.memory.enforced(), own];
        let memory_max = largest.into_iter().flatten().min().unwrap_or(u64::MAX);
        Asking { live, who, upstream, routed, parts, policy, budget, memory_max, began }
    }

    /// The parse stage. What cannot be read is on record as it came.
    fn read(&self, asking: &Asking<'_>, body: &Bytes, record: &mut Record) -> Result<Call, Failure> {
        if asking.routed.endpoint == Endpoint::RemoteRead {
            return Ok(Call::remote_read(body, &self.cache)?);
        }
        let form = body::form(&asking.parts.headers, asking.routed.endpoint, body)?;
        let params = Params::parse(asking.parts.uri.query().unwrap_or(""), form)?;
        let lenient = asking.upstream.lenient();
        let on_unparsable = asking.upstream.on_unparsable;
        let reading = Reading { now_ms: (self.clock)(), lenient, on_unparsable, cache: &self.cache };
        reading.read(asking.routed.endpoint, &params).map_err(|error| {
            let text = params.first("query").or_else(|| params.first("match[]"));
            record.unreadable(text.unwrap_or_default());
            Failure::from(error)
        })
    }

    /// The estimate stage.
    async fn weigh(&self, asking: &Asking<'_>, call: &Call) -> Weighed {
        let (limits, headers) = (asking.limits(), asking.headers());
        let weighing = Weighing {
            tenant: &asking.who.tenant,
            call,
            upstream: asking.upstream,
            learned: &self.learned,
            now_ms: (self.clock)(),
            limits,
            memory_max: asking.memory_max,
            headers: &headers,
            metrics: &self.metrics,
        };
        let weighed = weighing.weigh(|demand| asking.stand(demand)).await;
        let decided = asking.began.elapsed().saturating_sub(weighed.probing);
        self.metrics.decided(decided);
        let demand = &weighed.estimate.demand;
        self.metrics.estimated(Dimension::Series, demand.series.value);
        self.metrics.estimated(Dimension::Samples, demand.samples.value);
        self.metrics.estimated(Dimension::Memory, demand.memory.value);
        weighed
    }

    /// Admit, forward and meter.
    async fn run(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        call: Call,
        weighed: Weighed,
        body: Bytes,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let time = asking.time(&call);
        let deadline = asking.began + time;
        record.asks();
        let Admitted { permit, waited, shadow } = self.admit(asking, &weighed.estimate, deadline).await?;
        let progress = record.admitted(waited);
        progress.must_end(deadline);
        self.count_shadow(asking, &shadow, record);
        self.metrics.admitted(&asking.who.tenant, &asking.live.class_name(asking.who.class), waited);
        let request = asking.forwarded(&call, body)?;
        let account = asking.account(&call, weighed.estimate);
        if account.estimate.demand.memory.value >= DEAR_BYTES {
            record.dispatch();
        }
        let (estimate, answer_tells) = (estimate_header(&account.estimate), account.answer_tells);
        let sent = Instant::now();
        // What may have brought one replica down is not tried on the next.
        let again = account.estimate.demand.memory.value < DEAR_BYTES;
        let answered = tokio::select! {
            biased;
            answered = asking.upstream.backend.send(request, deadline, again) => answered,
            () = progress.recalled() => return Err(self.recalled(asking)),
        };
        let status = answered.as_ref().ok().map(|response| response.status().as_u16());
        self.metrics.upstream(asking.upstream.backend.name(), status, sent.elapsed());
        asking.observe(&answered, &call, &account.estimate.demand, sent);
        let told = answered.as_ref().ok().and_then(|response| asking.told(response.headers()));
        // Until the first byte may go out, a failure is still the request's own, with a status that the client sees.
        let (hand_over, handed) = oneshot::channel();
        let on_end = account.on_end(Arc::clone(self), permit, status.unwrap_or(0), told, handed);
        let meter = Meter::new(asking.meter_limits(), on_end).telling(Arc::clone(&progress));
        let received = match answered {
            Ok(response) => {
                forward::receive(response, asking.routed.endpoint, asking.upstream.backend.name()).await
            }
            Err(error) => Err(Failure::late(&error, Instant::now() >= deadline, time)),
        };
        let (mut head, upstream_body) = match received {
            Ok(response) => response.into_parts(),
            Err(failure) => {
                meter.fail();
                return Err(failure);
            }
        };
        let metered = meter.wrap(&head.headers, upstream_body);
        let mut primed = tokio::select! {
            biased;
            primed = metered.prime() => primed.map_err(|error| self.unsent(asking, &error))?,
            () = progress.recalled() => return Err(self.recalled(asking)),
        };
        record.answered();
        // The body is there to take it; were it not, the record would say that the query was dropped.
        drop(hand_over.send(record.hand_over()));
        head.headers.insert(WEIR_ESTIMATE, header_text(&estimate));
        if let Some(actual) = primed.whole().filter(|actual| actual.counted) {
            let touched = told.or(answer_tells.then_some(actual.series)).filter(|_| head.status.is_success());
            head.headers.insert(WEIR_COST, header_text(&cost_header(touched, &actual)));
        }
        let timing = timing_header(waited, sent.elapsed());
        head.headers.append(SERVER_TIMING, header_text(&timing));
        Ok(Response::from_parts(head, Body::from(primed)))
    }

    /// The admit stage.
    async fn admit(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        estimate: &Estimate,
        deadline: Instant,
    ) -> Result<Admitted, Failure> {
        self.admission.admit(asking.ask(estimate.demand, deadline)).await.map_err(|refusal| {
            self.metrics.refused(&asking.who.tenant, refusal.id(), "enforce", refusal.kind);
            Failure::refused(&refusal, estimate)
        })
    }

    /// Nothing of the answer was sent: there is time for a clean refusal.
    fn unsent(&self, asking: &Asking<'_>, error: &BodyError<BackendError>) -> Failure {
        let failure = Failure::unsent(error);
        if let Some(id) = failure.limit {
            self.metrics.refused(&asking.who.tenant, id, "enforce", failure.kind);
        }
        failure
    }

    /// The backend gave no answer yet, and shall give none.
    fn recalled(&self, asking: &Asking<'_>) -> Failure {
        let failure = Failure::recalled();
        let id = failure.limit.unwrap_or_default();
        self.metrics.refused(&asking.who.tenant, id, "enforce", failure.kind);
        failure
    }

    fn count_shadow(&self, asking: &Asking<'_>, hits: &[ShadowHit], record: &Record) {
        for hit in hits {
            record.hit(hit.id(), hit.kind.status(), &hit.message());
            self.metrics.refused(&asking.who.tenant, hit.id(), "shadow", hit.kind);
            tracing::info!(
                target: "weir::shadow",
                tenant = %asking.who.tenant, limit = hit.id(), "would be refused: {hit}"
            );
        }
    }

    /// The answer of `query_cost`: what it would cost, and what would become of it.
    fn explain(&self, asking: &Asking<'_>, weighed: &Weighed) -> Response<Body> {
        let estimate = &weighed.estimate;
        let mut json = explain::json(estimate);
        if let Some(why) = &weighed.unanswered {
            let warning =
                format!("the backend did not say how many series there are, so some are assumed: {why}");
            json["warnings"] = serde_json::json!([warning]);
        }
        let verdict = self.admission.judge(&asking.ask(estimate.demand, asking.began));
        json["data"]["verdict"] = match verdict {
            Ok(_) => serde_json::json!({"admitted": true}),
            Err(refusal) => serde_json::json!({
                "admitted": false,
                "limit": refusal.id(),
                "message": Failure::refused(&refusal, estimate).message,
            }),
        };
        let mut response = Response::new(Body::full(json.to_string()));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

impl Asking<'_> {
    fn limits(&self) -> &PerQuery {
        self.policy.per_query(self.live.class_id(self.who.class))
    }

    /// Whether a limit stands in the way.
    fn stand(&self, demand: &Demand) -> Stand {
        let class = self.live.class_id(self.who.class);
        match limit::judge(&self.policy, &self.who.tenant, class, demand) {
            Err(_) => Stand::Refused,
            Ok(shadow) if shadow.is_empty() && demand.memory.value <= self.memory_max => Stand::Clear,
            Ok(_) => Stand::Doubtful,
        }
    }

    fn ask(&self, demand: Demand, deadline: Instant) -> Ask {
        Ask {
            tenant: self.who.tenant.clone(),
            actor: Arc::clone(&self.who.actor),
            class: self.live.class_id(self.who.class),
            backend: BackendId(self.budget),
            demand,
            deadline,
        }
    }

    /// The time from now to the last byte: the client's, if it is willing to wait less than it may.
    fn time(&self, call: &Call) -> Duration {
        let limit = self.limits().timeout_ms.enforced().map(Duration::from_millis);
        [call.timeout, limit].into_iter().flatten().min().unwrap_or(TIME_MAX).min(TIME_MAX)
    }

    fn meter_limits(&self) -> MeterLimits {
        let limits = self.limits();
        let max = |limit: limit::Limit| limit.enforced().and_then(std::num::NonZeroU64::new);
        MeterLimits {
            bytes: max(limits.response_bytes),
            series: max(limits.series),
            samples: max(limits.points),
        }
    }

    fn headers(&self) -> Cow<'_, HeaderMap> {
        forward::request_headers(&self.parts.headers, &self.live.rules, self.who.trusted)
    }

    fn forwarded(&self, call: &Call, body: Bytes) -> Result<crate::backend::Outgoing, Failure> {
        let limit = self.limits().timeout_ms.enforced().map(Duration::from_millis);
        let ceiling = forward::ceiling(self.routed.endpoint, call.timeout, limit);
        let mut headers = self.headers().into_owned();
        if self.upstream.backend.kind() == Kind::M3 {
            self.push_down(&mut headers, call, &body, limit);
        }
        Forward { parts: self.parts, routed: self.routed, body, ceiling }.outgoing(headers)
    }

    /// Hands the limits down to a backend that takes them; the client's own may only be lower.
    fn push_down(&self, headers: &mut HeaderMap, call: &Call, body: &Bytes, timeout: Option<Duration>) {
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
    async fn pass(&self, body: Bytes, record: &mut Record) -> Result<Response<Body>, Failure> {
        record.free();
        let forward = Forward { parts: self.parts, routed: self.routed, body, ceiling: None };
        let request = forward.outgoing(self.headers().into_owned())?;
        let backend = &self.upstream.backend;
        let response = backend.send_light(request, self.began + LIGHT_TIME).await;
        let response = response.map_err(|error| Failure::from(&error))?;
        let response = forward::receive(response, self.routed.endpoint, backend.name()).await?;
        record.passed(response.status());
        Ok(response.map(|body| Body::passed(body, self.began + LIGHT_TIME)))
    }

    /// What the answer says about the backend's distress.
    fn observe(
        &self,
        answered: &Result<Response<crate::backend::Body>, BackendError>,
        call: &Call,
        demand: &Demand,
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
            cost: reads.then_some(if demand.points.value > demand.samples.value {
                demand.points
            } else {
                demand.samples
            }),
            waited: response.is_some_and(|response| feedback::from_headers(response.headers(), kind).waited),
        };
        self.upstream.monitor().answered(&answer, Instant::now());
    }

    /// The series that a backend says it touched, unless it stopped at a limit.
    fn told(&self, headers: &HeaderMap) -> Option<u64> {
        let told = feedback::from_headers(headers, self.upstream.backend.kind());
        told.series.filter(|_| !told.limited)
    }

    fn account(&self, call: &Call, estimate: Estimate) -> Account {
        Account {
            backend: self.upstream.backend.name().to_owned(),
            learn: LearnKey::new(self.who.tenant.clone(), call.fingerprint, &call.shape),
            answer_tells: settle::tells_series(&call.shape),
            estimate,
        }
    }
}
