//! A query before the layers of [`limit`](crate::limit): the tenants whose rate it counts towards, and its request for admission.

use std::{sync::Arc, time::Duration};

use super::{
    exchange::{Common, Exchange, Identified, Priced, Rejected},
    meter::Progress,
    query::layer::is_constant,
    respond::failure::Failure,
    route::Endpoint,
};
use crate::{
    base::TenantId,
    limit::{Admissible, AdmissionRequest, Admitted, Charged, Permit, RateLimited, Refusal, ShadowHit},
};

/// Bytes of the longest form that may hold a query that costs nothing.
const CONSTANT_FORM_MAX: u64 = 256;

/// A query that holds its permit.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) priced: Box<Priced>,
    pub(super) permit: Permit,
    /// How long it waited for that.
    pub(super) waited: Duration,
    /// The handle on its answer for those that watch it.
    pub(super) progress: Arc<Progress>,
}

impl<B: http_body::Body> RateLimited for Exchange<Identified<B>> {
    type Refused = Rejected;

    fn payers(&self) -> &[TenantId] {
        let Common { endpoint, head, caller, .. } = &*self.common;
        let is_health_check = *endpoint == Endpoint::Query && is_constant(head.uri.query(), "");
        match &caller.payers[..] {
            _ if is_health_check || *endpoint == Endpoint::Light => &[],
            [] => std::slice::from_ref(&caller.tenant),
            several => several,
        }
    }

    fn counted(mut self, shadowed: Vec<ShadowHit>) -> Self {
        self.common.log.shadowed(shadowed);
        self
    }

    fn over_rate(mut self, refusal: Refusal) -> Result<Self, Rejected> {
        // Health checks in a form are seen to cost nothing when that is read; it is short.
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

    fn admitted(self, Admitted { permit, waited, shadowed }: Admitted) -> Exchange<Running> {
        let Self { mut common, stage: priced } = self;
        common.log.shadowed(shadowed);
        let progress = common.log.admitted(waited, priced.charged != Charged::All);
        progress.set_deadline(priced.deadline);
        Exchange { common, stage: Running { priced, permit, waited, progress } }
    }

    fn refused(self, refusal: Refusal) -> Rejected {
        self.common.reject(Failure::refused(&refusal, &self.stage.estimate))
    }
}
