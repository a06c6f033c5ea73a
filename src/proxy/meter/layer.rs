//! Sends an admitted query and watches its answer: the permit moves into the answer's body and is settled at its end.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Response;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt as _};

use super::{
    Meter as AnswerMeter, MeterLimits,
    settlement::{Settlement, Settler, observe, reported_series, tells_series},
};
use crate::{
    base::ErrorKind,
    cost::Estimated,
    limit::{self, Permit, Permitted},
    proxy::{
        admit::Running,
        exchange::{Common, Exchange, Priced},
        forward::{self, Answer, Dispatch, Received},
        query::ParsedQuery,
        replan::Halted,
        respond::{
            Body, SERVER_TIMING, WEIR_COST, WEIR_ESTIMATE,
            failure::{Failure, cost_header, estimate_header, timing_header},
            header_text,
        },
        route::Endpoint,
        split::NotMerged,
    },
};

/// Puts the meter around the service that sends admitted queries.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct MeterLayer(pub Arc<Settler>);

impl<S> Layer<S> for MeterLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, settler: Arc::clone(&self.0) }
    }
}

/// Made by [`MeterLayer`].
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Metered<S> {
    inner: S,
    settler: Arc<Settler>,
}

impl<S> Service<Exchange<Running>> for Metered<S>
where
    S: Service<Permitted<Dispatch>, Response = Permitted<Answer>, Error = NotMerged> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Halted;
    type Future = BoxFuture<'static, Result<Response<Body>, Halted>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Halted>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<Running>) -> Self::Future {
        let (settler, inner) = (Arc::clone(&self.settler), self.inner.clone());
        Box::pin(run(exchange, inner, settler))
    }
}

/// A query that was sent.
struct Sent {
    query: ParsedQuery,
    estimate: Estimated,
    time: Duration,
    deadline: Instant,
    waited: Duration,
}

async fn run<S>(
    exchange: Exchange<Running>,
    inner: S,
    settler: Arc<Settler>,
) -> Result<Response<Body>, Halted>
where
    S: Service<Permitted<Dispatch>, Response = Permitted<Answer>, Error = NotMerged>,
{
    let Exchange { common, stage: Running { priced, permit, waited, progress } } = exchange;
    let Priced { query, estimate, outgoing, time, deadline, light, charged } = priced;
    let is_light = estimate.cost.memory.value <= light;
    if !is_light {
        common.log.dispatched();
    }
    let split = query.division.as_ref().filter(|_| estimate.parts > 1);
    let parts = split.map(|split| split.times(estimate.parts)).unwrap_or_default();
    let upstream = Arc::clone(&common.upstream);
    let dispatch = Dispatch { upstream, outgoing, deadline, idempotent: is_light, parts };
    let answered = tokio::select! {
        biased;
        answered = inner.oneshot(Permitted::new(dispatch, permit)) => answered,
        () = progress.cancelled() => return Err(common.reject(Failure::cancelled()).into()),
    };
    match answered {
        Ok(answered) => {
            let (answer, permit) = answered.into_parts();
            let sent = Sent { query, estimate, time, deadline, waited };
            answer_client(common, sent, answer, permit, &progress, settler).await
        }
        Err(NotMerged { outgoing, why }) => {
            let stage = Priced { query, estimate, outgoing, time, deadline, light, charged };
            Err(Halted::NotMerged(Box::new(Exchange { common, stage }), why))
        }
    }
}

/// From the head of the backend's answer to the response that its client gets.
async fn answer_client(
    mut common: Box<Common>,
    sent: Sent,
    Answer { sent: at, result }: Answer,
    permit: Permit,
    progress: &Arc<super::Progress>,
    settler: Arc<Settler>,
) -> Result<Response<Body>, Halted> {
    let Sent { query, estimate, time, deadline, waited } = sent;
    let backend = Arc::clone(common.upstream.backend.shared_name());
    let status = result.as_ref().ok().map(|response| response.status().as_u16());
    settler.metrics.upstream(&backend, status, at.elapsed());
    observe(&common, &result, &query);
    // The head of a part speaks of that part alone.
    let whole = result.as_ref().ok().filter(|_| estimate.parts == 1);
    let reported = whole.and_then(|response| reported_series(&common.upstream, response.headers()));
    let answer_tells = tells_series(&query.shape);
    let estimate_text = estimate_header(&estimate);
    let history_key = common.upstream.history_key(&query.scope, &query, (settler.clock)());
    let answer_is_whole = query.answer_is_whole;
    let handed_down = common.upstream.push_down.then(|| estimate.clone());
    let settlement = Settlement {
        backend: Arc::clone(&backend),
        estimate,
        history_key,
        answer_tells,
        answer_is_whole,
        reported,
        status,
        is_late: result.as_ref().is_err_and(|error| error.kind() == ErrorKind::UpstreamTimeout),
    };
    progress.under(permit.handle());
    let meter = AnswerMeter::new(meter_limits(&common), settlement.on_end(settler, permit));
    let mut meter = meter.telling(Arc::clone(progress));
    if common.endpoint.is_listing() {
        meter = meter.judging_before_the_first_byte();
    }
    let received = match result {
        Ok(response) => {
            let received = forward::receive(response, common.endpoint, &backend).await;
            received.map_err(|failure| match &handed_down {
                Some(estimate) => forward::refused_below(&common, failure, estimate),
                None => failure,
            })
        }
        Err(error) => Err(Failure::late(&error, Instant::now() >= deadline, time)),
    };
    let Received { response, error } = match received {
        Ok(received) => received,
        Err(failure) => {
            meter.fail();
            return Err(common.reject(failure).into());
        }
    };
    if let Some(text) = error {
        common.log.backend_error(&text);
    }
    let (mut head, body) = response.into_parts();
    let metered = meter.wrap(&head.headers, body);
    let peeked = tokio::select! {
        biased;
        peeked = metered.peek() => peeked.map_err(|error| Failure::unsent(&error)),
        () = progress.cancelled() => Err(Failure::cancelled()),
    };
    let mut peeked = match peeked {
        Ok(peeked) => peeked,
        Err(failure) => return Err(common.reject(failure).into()),
    };
    common.log.answered();
    head.headers.insert(WEIR_ESTIMATE, header_text(&estimate_text));
    if let Some(actual) = peeked.total_if_complete().filter(|actual| actual.counted) {
        let touched = reported.or(answer_tells.then_some(actual.series)).filter(|_| head.status.is_success());
        head.headers.insert(WEIR_COST, header_text(&cost_header(touched, &actual)));
    }
    let timing = timing_header(waited, at.elapsed());
    head.headers.append(SERVER_TIMING, header_text(&timing));
    // From here on its end is the body's.
    peeked.log_to(common.log, head.status.as_u16());
    Ok(Response::from_parts(head, Body::from(peeked)))
}

/// What the answer of a query may hold.
fn meter_limits(common: &Common) -> MeterLimits {
    let limits = common.limits();
    let max = |limit: limit::Limit| limit.enforced().and_then(std::num::NonZeroU64::new);
    // Names and values of labels are no series.
    let names = matches!(common.endpoint, Endpoint::Labels | Endpoint::LabelValues);
    MeterLimits {
        bytes: max(limits.response_bytes),
        series: max(limits.series).filter(|_| !names),
        points: max(limits.points),
    }
}
