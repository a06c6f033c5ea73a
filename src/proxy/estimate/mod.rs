//! Prices a query, or explains its price.

mod estimation;
mod fix;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either};
use http::{Response, header};
use tokio::task::yield_now;
use tower::Service;

pub(super) use estimation::cost_limits;
use estimation::{Estimation, EstimationResult};
pub(super) use fix::FIX_SEARCHES_MAX;

use super::{
    exchange::{Common, Exchange, Parsed, Priced, Rejected},
    forward,
    layer::layer,
    meter::Progress,
    query::ParsedQuery,
    respond::{Body, Fix, failure::Failure},
    shared::Pricing,
};
use crate::{
    base::{Confidence, ErrorKind, QueryCost, TenantId},
    cost::{self, Verdict, explain},
    journal::{Basis, SplitMode},
    limit::{self, Charged, LimitName, MemoryThresholds, Mode, Refusal, TenantPolicy},
    promql,
    rules::Action,
    telemetry::metrics::Dimension,
};

/// Longest wait for the turns of a query's probes, where neither its own time nor the queue's ends before.
const PROBING_MAX: Duration = Duration::from_secs(60);

impl Pricing {
    /// Prices a query that came, and counts that.
    async fn price(
        &self,
        common: &Common,
        query: &ParsedQuery,
        thresholds: &MemoryThresholds,
    ) -> EstimationResult {
        let result = self.estimate(common, query, thresholds).await;
        let cost = &result.estimate.cost;
        self.metrics.estimated(Dimension::Series, cost.series.value);
        self.metrics.estimated(Dimension::Samples, cost.samples.value);
        self.metrics.estimated(Dimension::Memory, cost.memory.value);
        result
    }

    async fn estimate(
        &self,
        common: &Common,
        query: &ParsedQuery,
        thresholds: &MemoryThresholds,
    ) -> EstimationResult {
        let deadline = common.log.began() + common.time(query).min(PROBING_MAX);
        let estimation = Estimation {
            query,
            tenant: &common.caller.tenant,
            upstream: &common.upstream,
            history: &self.history,
            counts: self.counts.as_deref(),
            now_ms: common.log.came_ms(),
            limits: common.limits(),
            memory_max: thresholds.query,
            split: self.long_answers.split(query, common.upstream.backend.shared_name()),
            split_above: thresholds.split,
            enforced: common.enforced.as_deref(),
            scope: &query.scope,
            deadline,
            metrics: &self.metrics,
        };
        let (tenant, class) = (&common.caller.tenant, Some(common.class()));
        let verdict = |cost: &QueryCost| verdict(&common.policy, tenant, class, thresholds, cost);
        estimation.run(verdict).await
    }

    /// The limit on one query that refuses it, on an idle database too.
    fn refusal(&self, common: &Common, cost: &QueryCost) -> Option<Refusal> {
        let request = common.admission_request(*cost, common.log.began(), Charged::All);
        let refusal = self.admission.dry_run(&request).err()?;
        (refusal.kind == ErrorKind::LimitExceeded).then_some(refusal)
    }

    /// The inputs of a query's price, for a replay of it.
    fn basis(&self, common: &Common, query: &ParsedQuery, thresholds: &MemoryThresholds) -> Basis {
        let split = self.long_answers.split(query, common.upstream.backend.shared_name());
        Basis {
            model: common.upstream.model.clone(),
            split_above: thresholds.split,
            split_mode: match split {
                None => SplitMode::No,
                Some(split) if split.asks_for_all_replicas() => SplitMode::AllReplicas,
                Some(_) => SplitMode::Yes,
            },
            lookback_ms: query.lookback_ms,
        }
    }

    /// A query of which the size could not be found out, since the backend could not be asked, is not let through. A limit
    /// that refuses it for any size comes first.
    fn unasked(common: &Common, result: &EstimationResult, thresholds: &MemoryThresholds) -> Option<Failure> {
        let error = result.unanswered.as_ref().filter(|error| error.is_unasked())?;
        let (tenant, class, cost) = (&common.caller.tenant, Some(common.class()), &result.estimate.cost);
        let is_refused = verdict(&common.policy, tenant, class, thresholds, cost) == Verdict::Exceeded;
        (!is_refused).then(|| Failure::from(error))
    }

    /// The answer of `query_cost`: the price of the query, and whether it would be admitted.
    fn explain(
        &self,
        common: &Common,
        query: &ParsedQuery,
        result: &EstimationResult,
        fix: Option<&Fix>,
        light: u64,
    ) -> Response<Body> {
        let estimate = &result.estimate;
        let mut json = explain::json(estimate, estimate.cost.memory.value <= light);
        // The table's counts are of all series, which one that is confined is not to learn.
        let table = common.upstream.table();
        let table = table.as_deref().filter(|_| common.enforced.is_none());
        let nodes = cost::tree(&query.shape, estimate, table, &common.upstream.model);
        json["data"]["tree"] = explain::tree_json(&nodes);
        let sick = common.upstream.backend.sick() && estimate.cost.series.confidence == Confidence::Assumed;
        let why = result.unanswered.as_ref().map(ToString::to_string);
        let assumed = why.or_else(|| sick.then(|| "no replica answers".to_owned())).map(|why| {
            format!("the backend did not say how many series there are, so some are assumed: {why}")
        });
        let unknown = query.shape.functions.contains(&promql::function::UNKNOWN.name).then(|| {
            "a function in it is not known to Weir; it is priced as the most expensive one".to_owned()
        });
        let warnings: Vec<_> = [assumed, unknown].into_iter().flatten().collect();
        if !warnings.is_empty() {
            json["warnings"] = serde_json::json!(warnings);
        }
        let request = common.admission_request(estimate.cost, common.log.began(), Charged::All);
        let soft = self.admission.soft(&request).map(|soft| soft.message());
        let by_rule = common.rule.as_ref();
        let slow = soft.is_some() || by_rule.is_some_and(|rule| rule.action == Action::Slow);
        let refuses = by_rule.filter(|rule| rule.action == Action::Refuse);
        if let Some(rule) = by_rule {
            json["data"]["rule"] = serde_json::json!({"name": rule.name(), "action": rule.action.as_str(), "message": rule.sentence()});
        }
        json["data"]["verdict"] = match self.admission.dry_run(&request) {
            _ if let Some(rule) = refuses => serde_json::json!({
                "admitted": false,
                "limit": LimitName::Blocked.id(),
                "message": Failure::blocked(rule, "").message,
            }),
            Ok(_) if slow => serde_json::json!({"admitted": true, "slow": true, "message": soft}),
            Ok(_) => serde_json::json!({"admitted": true}),
            Err(refusal) => serde_json::json!({
                "admitted": false,
                "limit": refusal.id(),
                "message": Failure::refused(&refusal, estimate, None).message,
                "fix": fix,
            }),
        };
        let mut response = Response::new(Body::full(json.to_string()));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// Whether a limit stands in the way of a query of this cost.
pub(super) fn verdict(
    policy: &TenantPolicy,
    tenant: &TenantId,
    class: Option<&str>,
    thresholds: &MemoryThresholds,
    cost: &QueryCost,
) -> Verdict {
    match limit::check_per_query(policy, tenant, class, cost) {
        Err(_) => Verdict::Exceeded,
        Ok(shadow)
            if shadow.is_empty()
                && cost.memory.value <= thresholds.query
                && limit::soft(policy, tenant, class, cost, Mode::Enforce).is_none() =>
        {
            Verdict::Within
        }
        Ok(_) => Verdict::NearLimit,
    }
}

layer! {
    /// Prices queries before the service that takes them. Explained ones are answered here.
    pub(super) EstimateCostLayer => EstimateCost
}

impl<S> Service<Exchange<Parsed>> for EstimateCost<S>
where
    S: Service<Exchange<Box<Priced>>, Response = Response<Body>, Error = Rejected> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Rejected;
    type Future = BoxFuture<'static, Result<Response<Body>, Rejected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange<Parsed>) -> Self::Future {
        let mut inner = self.inner.clone();
        Box::pin(async move {
            match priced(exchange).await? {
                Either::Left(exchange) => inner.call(exchange).await,
                Either::Right(explained) => Ok(explained),
            }
        })
    }
}

/// Does a part of the pricing. A query that an operator stops meanwhile gives up its probes with it.
async fn unless_stopped<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        // First: most queries are priced by the first poll.
        done = work => Ok(done),
        why = progress.cancellation() => Err(Failure::cancelled(why)),
    }
}

/// The query with its price, or the answer of one that asks for that alone. A function of its own, so that its variables
/// take no room while the query runs.
async fn priced(
    exchange: Exchange<Parsed>,
) -> Result<Either<Exchange<Box<Priced>>, Response<Body>>, Rejected> {
    let Exchange { mut common, stage: Parsed { mut query, body } } = exchange;
    let thresholds = common.memory_thresholds(&common.shared.pricing.admission.policy());
    let progress = common.log.probing();
    // In a box: it is over before the query runs.
    let pricing = Box::pin(common.shared.pricing.price(&common, &query, &thresholds));
    let result = match unless_stopped(&progress, pricing).await {
        Ok(result) => result,
        Err(stopped) => return Err(common.reject(stopped)),
    };
    let took = common.log.estimated(&result.estimate);
    common.shared.pricing.metrics.decided(took.saturating_sub(result.probing));
    let is_explained = common.endpoint.is_explained();
    let mut fix = None;
    if is_explained || common.config.suggests_fix(common.caller.class) {
        let pricing = &common.shared.pricing;
        if let Some(refusal) = pricing.refusal(&common, &result.estimate.cost) {
            let search = Box::pin(pricing.fix(&common, &body, &query, &refusal, &thresholds));
            fix = match unless_stopped(&progress, search).await {
                Ok(fix) => fix,
                Err(stopped) => return Err(common.reject(stopped)),
            };
        }
    }
    if is_explained {
        // A turn of its own for the explanation: other connections of this worker wait for the longest one alone.
        yield_now().await;
        common.log.explained();
        let (pricing, fix) = (&common.shared.pricing, fix.as_deref());
        return Ok(Either::Right(pricing.explain(&common, &query, &result, fix, thresholds.light)));
    }
    let basis = common.shared.pricing.basis(&common, &query, &thresholds);
    common.log.price(&result.estimate, basis);
    if let Some(failure) = Pricing::unasked(&common, &result, &thresholds) {
        return Err(common.reject(failure));
    }
    let time = common.time(&query);
    let deadline = common.log.began() + time;
    let body = query.body.take().unwrap_or(body);
    let outgoing = match forward::outgoing(&mut common, &query, body) {
        Ok(outgoing) => outgoing,
        Err(failure) => return Err(common.reject(failure)),
    };
    let estimate = result.estimate;
    let light = thresholds.light;
    let stage = Priced { query, estimate, fix, outgoing, time, deadline, light, charged: Charged::Query };
    Ok(Either::Left(Exchange { common, stage: Box::new(stage) }))
}
