//! The way of a request: route, identify, parse, estimate, admit, forward, meter. Each stage takes what the one before
//! made, and any of them may end it with a [`Failure`].

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, header, request::Parts};
use tokio::{sync::oneshot, time::Instant};

use super::{
    asking::Asking,
    config::{Live, Proxy},
    dispatch::{Running, Sent},
    forward,
    identify::Identity,
    log::record::{Owner, Record},
    meter::{BodyError, Meter},
    query::body,
    query::{Call, Reading},
    respond::failure::{Failure, cost_header, estimate_header, timing_header},
    respond::{self, Body, SERVER_TIMING, WEIR_COST, WEIR_ESTIMATE, header_text},
    route::{Endpoint, Routed, route},
    upstream::Upstream,
    weigh::{Weighed, Weighing},
};
use crate::{
    backend::{BackendError, headers::strip_hop_by_hop},
    base::{ErrorKind, params::Params},
    cost::explain,
    promql,
    telemetry::metrics::Dimension,
};

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
        let routed = route(&parts.method, parts.uri.path()).map_err(|error| error.with(parts.uri.query()))?;
        if matches!(routed.endpoint, Endpoint::Healthy | Endpoint::Ready) {
            return self.health(routed.endpoint);
        }
        let mut record =
            Record::new(routed.endpoint, began, Arc::clone(&self.board), Arc::clone(&self.metrics));
        record.trace(self.trace(routed.endpoint, &mut parts.headers));
        let carried = self.stages(&parts, routed, body, peer, &mut record).await;
        if let Err(failure) = &carried {
            record.failed(failure);
        }
        carried
    }

    /// The answer to `/-/healthy` and `/-/ready`, which load balancers ask on the address that they send queries to.
    fn health(&self, endpoint: Endpoint) -> Result<Response<Body>, Failure> {
        if endpoint == Endpoint::Ready && self.stopping() {
            return Err(Failure::new(ErrorKind::ShuttingDown, "Weir is shutting down"));
        }
        let text = if endpoint == Endpoint::Ready { "Weir is ready.\n" } else { "Weir is healthy.\n" };
        let mut response = Response::new(Body::full(text.to_owned()));
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
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
        let mut who = live.rules.identify(&parts.headers, peer)?;
        let nowhere = || Failure::new(ErrorKind::Internal, "no backend is configured");
        let upstream = live.upstream_of(&mut who)?.ok_or_else(nowhere)?;
        let routed = routed.at(upstream.backend.kind());
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
        record.estimated(weighed.estimate.cost);
        if explained {
            record.explained();
            return Ok(self.explain(&asking, &call, &weighed));
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
        let several = policy.strictest(&who.payers);
        let policy = several.unwrap_or_else(|| Arc::clone(policy.tenant(&who.tenant)));
        let own = policy.per_query(live.class_id(who.class)).memory.enforced();
        // Half of a backend's budget at most, so that what other classes reserve stays theirs.
        let largest = [whole.map(|bytes| bytes / 2), policy.in_flight.memory.enforced(), own];
        let memory_max = largest.into_iter().flatten().min().unwrap_or(u64::MAX);
        let split = whole.zip(upstream.split_percent);
        let piece_max =
            split.map(|(bytes, percent)| (bytes / 100).saturating_mul(percent.into()).min(memory_max));
        Asking { live, who, upstream, routed, parts, policy, budget, memory_max, piece_max, began }
    }

    /// The parse stage. What cannot be read is on record as it came.
    fn read(&self, asking: &Asking<'_>, body: &Bytes, record: &mut Record) -> Result<Call, Failure> {
        if asking.routed.endpoint == Endpoint::RemoteRead {
            return Ok(Call::remote_read(body, &self.cache)?);
        }
        let form = body::form(&asking.parts.headers, asking.routed.endpoint, body)?;
        let params = Params::parse(asking.parts.uri.query().unwrap_or(""), form)?;
        let (dialect, on_unparsable) = (asking.upstream.dialect(), asking.upstream.on_unparsable);
        let reading = Reading { now_ms: (self.clock)(), dialect, on_unparsable, cache: &self.cache };
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
            history: &self.history,
            now_ms: (self.clock)(),
            limits,
            memory_max: asking.memory_max,
            division: self.long_answers.division(call, asking.upstream.index),
            piece_max: asking.piece_max,
            headers: &headers,
            metrics: &self.metrics,
        };
        let weighed = weighing.weigh(|cost| asking.verdict(cost)).await;
        let decided = asking.began.elapsed().saturating_sub(weighed.probing);
        self.metrics.decided(decided);
        let cost = &weighed.estimate.cost;
        self.metrics.estimated(Dimension::Series, cost.series.value);
        self.metrics.estimated(Dimension::Samples, cost.samples.value);
        self.metrics.estimated(Dimension::Memory, cost.memory.value);
        weighed
    }

    /// Admit, forward and meter.
    async fn run(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        mut call: Call,
        weighed: Weighed,
        body: Bytes,
        record: &mut Record,
    ) -> Result<Response<Body>, Failure> {
        let body = call.body.take().unwrap_or(body);
        let time = asking.time(&call);
        let deadline = asking.began + time;
        let request = asking.forwarded(&call, body)?;
        let mut estimate = weighed.estimate;
        let Sent { running, at: sent, answered } =
            self.send(asking, &call, &mut estimate, request, deadline, record).await?;
        let Running { permit, waited, progress } = running;
        let account = asking.account(&call, estimate, (self.clock)());
        let (estimate, answer_tells) = (estimate_header(&account.estimate), account.answer_tells);
        let status = answered.as_ref().ok().map(|response| response.status().as_u16());
        self.metrics.upstream(asking.upstream.backend.name(), status, sent.elapsed());
        asking.observe(&answered, &call, &account.estimate.cost, sent);
        // The head of a piece tells of that piece alone.
        let whole = answered.as_ref().ok().filter(|_| account.estimate.cost.pieces == 1);
        let told = whole.and_then(|response| asking.told(response.headers()));
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

    /// Nothing of the answer was sent: there is time for a clean refusal.
    fn unsent(&self, asking: &Asking<'_>, error: &BodyError<BackendError>) -> Failure {
        let failure = Failure::unsent(error);
        if let Some(id) = failure.limit {
            self.metrics.refused(&asking.who.tenant, id, "enforce", failure.kind);
        }
        failure
    }

    /// The answer of `query_cost`: what it would cost, and what would become of it.
    fn explain(&self, asking: &Asking<'_>, call: &Call, weighed: &Weighed) -> Response<Body> {
        let estimate = &weighed.estimate;
        let mut json = explain::json(estimate);
        let assumed = weighed.unanswered.as_ref().map(|why| {
            format!("the backend did not say how many series there are, so some are assumed: {why}")
        });
        let unknown = call.shape.functions.contains(&promql::function::UNKNOWN.name).then(|| {
            "a function in it is not known to Weir; it is weighed as the most expensive one would be"
                .to_owned()
        });
        let warnings: Vec<_> = [assumed, unknown].into_iter().flatten().collect();
        if !warnings.is_empty() {
            json["warnings"] = serde_json::json!(warnings);
        }
        let verdict = self.admission.foresee(&asking.ask(estimate.cost, asking.began, false));
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
