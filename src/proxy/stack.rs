//! The life of a query, from top to bottom. Read this first.
//!
//! Each layer hands its own type to the one below it, so that a wrong order does not compile: a backend takes a
//! [`Permitted`](crate::limit::Permitted) request, and only admission makes one. A step that owns a resource to the end
//! of a query, refuses, waits or retries is a layer; a step that maps one value to another is a function.
//! `XLayer` makes the service `X`, which is a verb: the values that they hand on have names of their own.
//!
//! Only the response comes back up, or a [`Rejected`](super::exchange::Rejected) query with its log.

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
        // Request -> Response, whatever happens below: one log line, one place that makes errors. Panics are 500.
        .layer(RespondLayer)
        // Request -> Exchange<Identified>: endpoint, tenant, class, backend.                            404 405 401 403
        .layer(IdentifyLayer(Arc::clone(shared)))
        // A flood over its tenant's rate is refused before its bodies are read.                         429
        .layer(CheckRateLayer::new(Arc::clone(admission)))
        // -> Exchange<Parsed>: body, parameters, syntax tree. A free query is forwarded from here. 400 408 413
        .layer(ParseLayer)
        // An operator's rules against single queries refuse, cut, or send to the slow lane.             422
        .layer(CheckRulesLayer)
        // -> Exchange<Priced>: the cost, from the cheapest source that leaves no doubt. Explains are answered here.
        .layer(EstimateCostLayer)
        // A query whose parts cannot be merged comes back up to here, and runs as a whole under another permit.
        .layer(ReplanLayer)
        // -> Exchange<Running>: waits for its turn, and owns a permit from here on.                     422 429 503
        .layer(AdmitLayer::new(Arc::clone(admission)))
        // -> Permitted<Dispatch>; then the permit moves into the answer's body and is settled at its end.
        .layer(MeterLayer)
        // A query that is too large to run at once runs in parts of its time, merged into one answer.
        .layer(SplitLayer)
        // Permitted<Dispatch> -> the head of the backend's answer.                                      502 504
        .service(Forward)
}
