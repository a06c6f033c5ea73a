//! A query before the layers of [`limit`](crate::limit): the tenants whose rate it counts towards, and its request for
//! admission.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, header};

use super::{
    exchange::{Common, Exchange, Identified, Priced, Rejected},
    meter::Progress,
    query::layer::is_constant,
    respond::failure::{Failure, fix},
    route::Endpoint,
};
use crate::{
    base::TenantId,
    limit::{
        self, Admissible, AdmissionRequest, Admitted, Charged, Mode, Permit, RateLimited, Refusal, ShadowHit,
    },
};

/// Bytes of the longest form that may hold a query that costs nothing.
const CONSTANT_FORM_MAX: u64 = 256;

/// A query that holds its permit.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) priced: Box<Priced>,
    pub(super) permit: Permit,
    /// Its wait for the permit.
    pub(super) waited: Duration,
    /// The handle on its answer for those that watch it.
    pub(super) progress: Arc<Progress>,
}

impl<B: http_body::Body> RateLimited for Exchange<Identified<B>> {
    type Refused = Rejected;

    fn payers(&self) -> &[TenantId] {
        let Common { endpoint, head, .. } = &*self.common;
        // Only a query without a body is all in its URL.
        let is_whole = self.stage.body.size_hint().exact() == Some(0);
        let is_health_check = *endpoint == Endpoint::Query && is_whole && is_constant(head.uri.query(), "");
        if is_health_check { &[] } else { self.common.counted() }
    }

    fn counted(mut self, shadowed: Vec<ShadowHit>) -> Self {
        self.common.log.shadowed(shadowed);
        self
    }

    fn over_rate(mut self, refusal: Refusal) -> Result<Self, Rejected> {
        // A health check in a form is recognised when the form is read; it is short.
        let length = self.stage.body.size_hint().upper().unwrap_or(u64::MAX);
        if self.common.endpoint != Endpoint::Query || length > CONSTANT_FORM_MAX {
            return Err(self.common.reject(Failure::over_rate(&refusal)));
        }
        self.stage.over_rate = Some(refusal);
        Ok(self)
    }
}

impl Admissible for Exchange<Box<Priced>> {
    type Admitted = Exchange<Running>;
    type Refused = Rejected;

    fn admission_request(&self) -> AdmissionRequest {
        let Priced { estimate, deadline, charged, .. } = &*self.stage;
        self.common.admission_request(estimate.cost, *deadline, *charged)
    }

    fn withdrawn(&self) -> impl Future<Output = Refusal> + Send + 'static {
        let (tenant, progress) = (self.common.caller.tenant.clone(), self.common.log.progress());
        async move {
            match progress {
                Some(progress) => _ = progress.cancellation().await,
                None => std::future::pending().await,
            }
            Refusal::killed(tenant)
        }
    }

    fn admitted(self, Admitted { permit, waited, shadowed, soft }: Admitted) -> Exchange<Running> {
        let Self { mut common, stage: mut priced } = self;
        common.log.shadowed(shadowed);
        // A query that runs again, as a whole, was counted and warned the first time.
        let is_first = priced.charged != Charged::All;
        let (tenant, cost) = (&common.caller.tenant, &priced.estimate.cost);
        let watched = limit::soft(&common.policy, tenant, Some(common.class()), cost, Mode::Shadow);
        if let Some(watched) = watched.filter(|_| is_first) {
            common.log.over_soft_limit(watched.limit, "shadow");
        }
        if soft.is_some() || common.slow {
            common.log.slow();
        }
        if let Some(soft) = soft.filter(|_| is_first) {
            common.log.over_soft_limit(soft.limit, "enforce");
            let fix = fix(soft.limit, &priced.estimate);
            common.warnings.push(format!("{} To stay below it: {fix}", soft.message()));
        }
        if !common.warnings.is_empty() {
            // Warnings are written into the answer.
            let plain = HeaderValue::from_static("identity");
            priced.outgoing.headers.insert(header::ACCEPT_ENCODING, plain);
        }
        let progress = common.log.admitted(waited, is_first);
        progress.set_deadline(priced.deadline);
        Exchange { common, stage: Running { priced, permit, waited, progress } }
    }

    fn refused(self, refusal: Refusal) -> Rejected {
        let progress = self.common.log.progress();
        let failure = match progress.as_ref().and_then(|progress| progress.cancelled()) {
            Some(why) => Failure::cancelled(why),
            None => {
                // A query that waited for its own tenant's limits had room at the backend.
                let is_crowded = refusal.waiting_for.is_some_and(|waited| !waited.reason.is_tenants());
                let holder = is_crowded.then(|| self.common.log.holder()).flatten();
                Failure::refused(&refusal, &self.stage.estimate, self.stage.fix).with(holder)
            }
        };
        self.common.reject(failure)
    }
}
