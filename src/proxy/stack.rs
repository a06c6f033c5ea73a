//! The life of a query, from top to bottom. Read this first.
//!
//! Each layer hands its own type to the one below it, so that a wrong order does not compile: a backend takes a
//! [`Permitted`](crate::limit::Permitted) request, and only admission makes one. A step that owns a resource to the end
//! of a query, refuses, waits or retries is a layer; a step that maps one value to another is a function.
//! `XLayer` makes the service `X`, which is a verb: the values that they hand on have names of their own.
//!
//! Only the response comes back up, or a [`Rejected`](super::exchange::Rejected) query with its log. The statuses of
//! the errors that each layer makes:
//!
//! | layer | status | because |
//! |---|---|---|
//! | respond | 500 | a panic below it |
//! | identify | 301 404 405 403 | the endpoint: elsewhere, unknown, another method, closed |
//! | | 400 401 403 503 | the caller: named twice, unknown, not allowed, keys of its issuer not fetched yet; a shutdown |
//! | rate | 429 | its tenant's rate of queries |
//! | parse | 400 408 413 503 | the body and the parameters; too many large bodies at a time |
//! | | 422 429 403 | the parser's limits; a rate, where only the form shows a query; labels that cannot be enforced |
//! | rules | 400 422 | a rule; a cut that cannot be read |
//! | estimate | 400 422 502 503 504 | a header that cannot go on; stopped by an operator; a count that the database could not give |
//! | replan | 503 | no memory to merge the answers to its parts |
//! | admit | 422 429 503 | the limits on a query, rates and quotas, the queue; stopped |
//! | meter | 422 502 503 504 | a limit on the answer, or stopped; an error of split and forward, which hand it up as a value |
//!
//! A query that costs nothing is forwarded by parse, and ends as under meter. An error of the database keeps its status.

use std::sync::Arc;

use tower::ServiceBuilder;

use super::{
    estimate::{EstimateCost, EstimateCostLayer},
    forward::Forward,
    identify::layer::{Identify, IdentifyLayer},
    meter::layer::{Meter, MeterLayer},
    query::layer::{Parse, ParseLayer},
    replan::{Replan, ReplanLayer},
    respond::layer::{Respond, RespondLayer},
    rules::layer::{CheckRules, CheckRulesLayer},
    shared::Shared,
    split::{Split, SplitLayer},
};
use crate::limit::{Admit, AdmitLayer, CheckRateLayer, layer::CheckRate};

/// The stack as a type: a [`tower::Service`] of [`Incoming`](super::identify::layer::Incoming) requests that never fails.
pub(super) type Stack =
    Respond<Identify<CheckRate<Parse<CheckRules<EstimateCost<Replan<Admit<Meter<Split<Forward>>>>>>>>>>;

pub(super) fn stack(shared: &Arc<Shared>) -> Stack {
    let admission = &shared.pricing.admission;
    ServiceBuilder::new()
        // Request -> Response, after any failure below: one log line, one place that makes errors.
        .layer(RespondLayer)
        // Request -> Exchange<Identified>: endpoint, tenant, class, backend.
        .layer(IdentifyLayer(Arc::clone(shared)))
        // A flood over its tenant's rate is refused before its bodies are read.
        .layer(CheckRateLayer::new(Arc::clone(admission)))
        // -> Exchange<Parsed>: body, parameters, syntax tree. A free query is forwarded from here.
        .layer(ParseLayer)
        // An operator's rules against single queries refuse, cut, or send to the slow lane.
        .layer(CheckRulesLayer)
        // -> Exchange<Priced>: the cost, from the cheapest source that leaves no doubt. Explains are answered here.
        .layer(EstimateCostLayer)
        // A query whose parts cannot be merged comes back up to here, and runs as a whole under another permit.
        .layer(ReplanLayer)
        // -> Exchange<Running>: waits for its turn, and owns a permit from here on.
        .layer(AdmitLayer::new(Arc::clone(admission)))
        // -> Permitted<Dispatch>; then the permit moves into the answer's body and is settled at its end.
        .layer(MeterLayer)
        // A query that is too large to run at once runs in parts of its time, merged into one answer.
        .layer(SplitLayer)
        // Permitted<Dispatch> -> the head of the backend's answer.
        .service(Forward)
}
