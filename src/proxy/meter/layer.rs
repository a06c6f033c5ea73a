//! Sends an admitted query and watches its answer: the permit moves into the answer's body and is settled at its end.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either, Ready, ready};
use http::{Response, header, response};
use tokio::time::Instant;
use tower::Service;

use super::{
    AnswerMeter, MeterLimits, MeteredBody,
    settlement::{Settlement, reads_raw_samples, reported_series, tells_series},
};
use crate::{
    backend::{self, BackendError},
    base::ErrorKind,
    cost::Estimated,
    limit::{self, Permitted},
    proxy::{
        admit::Running,
        exchange::{Common, Exchange, Priced},
        forward::{self, Answer, Dispatch, Received},
        layer::layer,
        query::ParsedQuery,
        replan::Halted,
        respond::{
            Body, SERVER_TIMING, WEIR_COST, WEIR_ESTIMATE, Warned,
            failure::{BackendRequest, Failure, cost_header, estimate_header, timing_header},
            header_text,
        },
        route::Endpoint,
        split::{InParts, NotMerged},
    },
};

layer! {
    /// Puts the meter around the service that sends admitted queries.
    pub(in crate::proxy) MeterLayer => Meter
}

impl<S> Service<Exchange<Running>> for Meter<S>
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
        Box::pin(run(exchange, self.inner.clone()))
    }
}

/// Sends a query, up to the response that its client gets.
async fn run<S>(exchange: Exchange<Running>, mut inner: S) -> Result<Response<Body>, Halted>
where
    S: Service<Permitted<Dispatch>, Response = Permitted<Answer>, Error = NotMerged>,
{
    let Exchange { mut common, stage: Running { priced, permit, waited, progress } } = exchange;
    let Priced { query, estimate, fix, outgoing, time, deadline, light, charged } = *priced;
    let is_light = estimate.cost.memory.value <= light;
    if !is_light {
        common.log.dispatched();
    }
    let split = query.split.as_ref().filter(|_| estimate.parts > 1);
    let split = split.map(|split| InParts {
        times: split.times(estimate.parts),
        metrics: Arc::clone(&common.shared.settler.metrics),
        progress: Arc::clone(&progress),
    });
    let upstream = Arc::clone(&common.upstream);
    let dispatch = Dispatch { upstream, outgoing, deadline, idempotent: is_light, split };
    let sending = inner.call(Permitted::new(dispatch, permit));
    let (Answer { sent, result }, permit) = match tokio::select! {
        biased;
        // First: one that was killed while it waited is never sent.
        why = progress.cancellation() => return Err(common.reject(Failure::cancelled(why)).into()),
        answered = sending => answered,
    } {
        Ok(answered) => answered.into_parts(),
        Err(NotMerged { outgoing, why }) => {
            let stage = Priced { query, estimate, fix, outgoing, time, deadline, light, charged };
            return Err(Halted::NotMerged(Exchange { common, stage: Box::new(stage) }, why));
        }
    };
    let settlement = settlement(&common, query, &estimate, sent, &result);
    let Settlement { reported, answer_tells, .. } = settlement;
    let estimate_text = estimate_header(&estimate);
    progress.under(permit.handle());
    let limits = meter_limits(&common);
    let mut meter = AnswerMeter::reporting_to(Arc::clone(&progress), limits, settlement.on_end(permit));
    if common.endpoint.is_listing() {
        meter = meter.judging_before_the_first_byte();
    }
    let received = match result {
        Ok(response) => receive(&common, response, estimate, &progress).await,
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
    let mut peeked = match peek(metered, &progress).await {
        Ok(peeked) => peeked,
        Err(failure) => return Err(common.reject(failure).into()),
    };
    common.log.answered();
    head.headers.insert(WEIR_ESTIMATE, header_text(&estimate_text));
    if let Some(actual) = peeked.total_if_complete().filter(|actual| actual.counted) {
        let touched = reported.or(answer_tells.then_some(actual.series)).filter(|_| head.status.is_success());
        head.headers.insert(WEIR_COST, header_text(&cost_header(touched, &actual)));
    }
    head.headers.append(SERVER_TIMING, header_text(&timing_header(waited, sent.elapsed())));
    // From here on its end is the body's.
    peeked.log_to(common.log, head.status.as_u16());
    Ok(warned(head, peeked, &common.warnings))
}

type AnswerBody = MeteredBody<backend::Body>;

/// Waits for the first bytes of an answer, unless its query is cancelled first.
async fn peek(metered: Box<AnswerBody>, progress: &super::Progress) -> Result<Box<AnswerBody>, Failure> {
    tokio::select! {
        biased;
        peeked = metered.peek() => peeked.map_err(|error| {
            progress.cancelled().map_or_else(|| Failure::unsent(&error), Failure::cancelled)
        }),
        why = progress.cancellation() => Err(Failure::cancelled(why)),
    }
}

/// The response with these warnings in its answer, where that can take any.
fn warned(mut head: response::Parts, body: Box<AnswerBody>, warnings: &[String]) -> Response<Body> {
    if warnings.is_empty() || !takes_warnings(&head) {
        return Response::from_parts(head, Body::from(body));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::Warned(Box::new(Warned::new(body, warnings))))
}

/// Counts the head of a backend's answer, and keeps the data that its end is settled by.
fn settlement(
    common: &Common,
    query: Box<ParsedQuery>,
    estimate: &Estimated,
    sent: Instant,
    result: &Result<Box<Response<backend::Body>>, BackendError>,
) -> Settlement {
    let now = Instant::now();
    let (shared, upstream) = (Arc::clone(&common.shared), Arc::clone(&common.upstream));
    let status = result.as_ref().ok().map(|response| response.status().as_u16());
    let took = now.saturating_duration_since(sent);
    shared.settler.metrics.upstream(upstream.backend.name(), status, took);
    // The head of a part speaks of that part alone.
    let whole = result.as_ref().ok().filter(|_| estimate.parts == 1);
    Settlement {
        expected: estimate.cost.series,
        reads_raw_samples: reads_raw_samples(estimate),
        answer_tells: tells_series(&query.shape),
        reported: whole.and_then(|response| reported_series(&upstream, response.headers())),
        status,
        is_late: result.as_ref().is_err_and(|error| error.kind() == ErrorKind::UpstreamTimeout),
        asked_ms: common.log.ms_at(now),
        shared,
        upstream,
        query,
    }
}

type Receipt = Result<Received, Failure>;

/// The backend's answer as its client may see it, unless the query is cancelled first.
fn receive<'a>(
    common: &'a Common,
    response: Box<Response<backend::Body>>,
    estimate: Estimated,
    progress: &'a super::Progress,
) -> Either<Ready<Receipt>, BoxFuture<'a, Receipt>> {
    if forward::is_readable(&response, common.endpoint) {
        return Either::Left(ready(Ok(Received::unchanged(response))));
    }
    // In a box, since nearly no answer is an error.
    Either::Right(Box::pin(async move {
        tokio::select! {
            biased;
            received = forward::receive(response, BackendRequest::of(common)) => received.map_err(|failure| {
                if common.upstream.push_down {
                    return forward::refused_below(common, failure, &estimate);
                }
                failure
            }),
            why = progress.cancellation() => Err(Failure::cancelled(why)),
        }
    }))
}

/// Whether an answer is one that warnings can be added to: a success in JSON, and not compressed.
fn takes_warnings(head: &response::Parts) -> bool {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    head.status.is_success()
        && content_type.is_some_and(forward::is_json)
        && head.headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity")
}

/// The limits of a query's answer.
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
