//! Holds queries against the rules before anything is priced.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{Response, Uri, uri::PathAndQuery};
use tower::Service;

use crate::{
    backend::Outgoing,
    base::{
        duration,
        time::{EvalTimes, seconds},
    },
    limit::Refusal,
    proxy::{
        exchange::{Common, Exchange, Parsed, Rejected},
        layer::layer,
        query::ParsedQuery,
        respond::{Body, failure::Failure},
        route::Endpoint,
        shared::QueryReader,
    },
    rules::{Action, Clamp, Rule, Subject},
};

layer! {
    /// Holds queries against the rules before the service that prices them.
    pub(in crate::proxy) CheckRulesLayer => CheckRules
}

impl<S> Service<Exchange<Parsed>> for CheckRules<S>
where
    S: Service<Exchange<Parsed>, Response = Response<Body>, Error = Rejected>,
{
    type Response = Response<Body>;
    type Error = Rejected;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Rejected>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut exchange: Exchange<Parsed>) -> Self::Future {
        match apply(&mut exchange) {
            Ok(()) => Either::Left(self.inner.call(exchange)),
            Err(failure) => {
                // A dashboard that is blocked does not use up the rate of its tenant's others.
                let common = exchange.common;
                common.shared.pricing.admission.give_rate_back(common.counted());
                Either::Right(ready(Err(common.reject(failure))))
            }
        }
    }
}

fn apply(exchange: &mut Exchange<Parsed>) -> Result<(), Failure> {
    let Exchange { common, stage } = exchange;
    if common.shared.rules.set.load().is_empty() {
        return Ok(());
    }
    let shared = Arc::clone(&common.shared);
    let rules = &shared.rules;
    let set = rules.set.load();
    let Some(rule) = set.find(&subject(common, &stage.query), (rules.clock)()) else { return Ok(()) };
    if common.endpoint.is_explained() {
        common.rule = Some(Arc::clone(rule));
        return Ok(());
    }
    rules.metrics.rule_hit(rule.name(), rule.action.as_str());
    match rule.action {
        Action::Refuse => return Err(Failure::blocked(rule, "")),
        Action::Shadow => common.log.shadowed(vec![Refusal::blocked(rule.name().into())]),
        Action::Slow => {
            common.slow = true;
            common.warnings.push(format!("this query runs in the slow lane by {}", rule.sentence()));
        }
        Action::Clamp(to) => clamp(common, stage, to, rule)?,
    }
    Ok(())
}

/// Whether a rule refuses a query that did not come.
pub(in crate::proxy) fn refuses(common: &Common, query: &ParsedQuery) -> bool {
    let rules = &common.shared.rules;
    let set = rules.set.load();
    let found = set.find(&subject(common, query), (rules.clock)());
    found.is_some_and(|rule| rule.action == Action::Refuse)
}

/// Cuts a query, and adds a warning to its answer. The window of one evaluation cannot be cut.
fn clamp(common: &mut Common, parsed: &mut Parsed, clamp: Clamp, rule: &Rule) -> Result<(), Failure> {
    let (set, cut) = changes(common.endpoint, &parsed.query, clamp);
    if !set.is_empty() {
        let body = parsed.query.body.take().unwrap_or_else(|| parsed.body.clone());
        let mut path_and_query = common.head.uri.path_and_query().cloned();
        if let Some(kept) = parsed.query.url_query.take() {
            path_and_query = Some(format!("{}?{kept}", common.head.uri.path()).parse()?);
        }
        let mut outgoing = Outgoing {
            method: common.head.method.clone(),
            path_and_query: path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: common.head.headers.clone(),
            body,
        };
        let pairs: Vec<(&str, &str)> = set.iter().map(|(name, value)| (*name, value.as_str())).collect();
        outgoing.set_params(&pairs)?;
        common.head.uri = Uri::from(outgoing.path_and_query);
        parsed.body = outgoing.body;
        parsed.query = QueryReader::parse(common, &parsed.body)?;
        common.log.clamped();
        common.warnings.push(format!("{} by {}", cut.join(", "), rule.sentence()));
    }
    let range_ms = subject(common, &parsed.query).range_ms();
    if clamp.still_spans_more(range_ms.unwrap_or_default()) {
        return Err(Failure::blocked(
            rule,
            "one evaluation of it reaches further back than the rule allows: ",
        ));
    }
    Ok(())
}

/// The parameters that cut a query, and their effect in words.
fn changes(
    endpoint: Endpoint,
    query: &ParsedQuery,
    clamp: Clamp,
) -> (Vec<(&'static str, String)>, Vec<String>) {
    let (mut set, mut cut) = (Vec::new(), Vec::new());
    let text = |ms: u64| duration::text(std::time::Duration::from_millis(ms));
    let has_range =
        endpoint == Endpoint::QueryRange || endpoint.is_listing() || endpoint == Endpoint::QueryExemplars;
    if let Some(times) = query.times.filter(|_| has_range) {
        let shorter = clamp.cut(times, endpoint == Endpoint::QueryRange);
        if shorter.start != times.start {
            let spans = |of: EvalTimes| text(of.end.abs_diff(of.start));
            set.push(("start", seconds(shorter.start)));
            cut.push(format!("the time was cut from {} to its last {}", spans(times), spans(shorter)));
        }
        if shorter.step != times.step {
            set.push(("step", seconds(i64::try_from(shorter.step).unwrap_or(i64::MAX))));
            cut.push(format!("the step was raised from {} to {}", text(times.step), text(shorter.step)));
        }
    }
    let takes_limit = has_range || endpoint == Endpoint::Query;
    if let Some(limit) =
        clamp.limit.filter(|limit| takes_limit && query.limit.is_none_or(|asked| asked > *limit))
    {
        set.push(("limit", limit.to_string()));
        cut.push(format!("the answer was limited to {limit}"));
    }
    (set, cut)
}

/// A query as rules see it; an explained one as the query that it explains.
fn subject<'a>(common: &'a Common, query: &'a ParsedQuery) -> Subject<'a> {
    let origin = common.log.owner().map(|owner| &owner.origin);
    let endpoint = match common.endpoint {
        Endpoint::QueryCost => Endpoint::Query,
        Endpoint::QueryRangeCost => Endpoint::QueryRange,
        other => other,
    };
    Subject {
        tenants: common.caller.payers(),
        class: common.class(),
        endpoint: endpoint.as_str(),
        dashboard: origin.and_then(|origin| origin.dashboard.as_deref()),
        panel: origin.and_then(|origin| origin.panel.as_deref()),
        user: origin.and_then(|origin| origin.user.as_deref()),
        user_agent: origin.and_then(|origin| origin.user_agent.as_deref()),
        fingerprint: Some(query.fingerprint),
        text: Some(&query.text),
        shape: Some(&query.shape),
        listing: query.listing,
        times: query.times,
    }
}
