//! The admit and forward stages: a query waits for its permit, goes out as it came or in pieces, and its answer begins.

use std::{sync::Arc, time::Duration};

use http::Response;
use moka::sync::Cache;
use tokio::{sync::Semaphore, time::Instant};

use super::{asking::Asking, call::Call, failure::Failure, live::Proxy, meter::Progress, record::Record};
use crate::{
    backend::{self, BackendError, Joined, Outgoing},
    cost::{Division, Estimate, JOINED_MAX, PIECES_COUNTED},
    limit::{Admitted, Permit, ShadowHit},
};

/// A query expected to hold this much is written down before it goes out, and what may have brought one replica down is
/// not tried on the next.
const DEAR_BYTES: u64 = 64 << 20;
/// Answers that are put together at a time; with their largest size, 64 MiB.
const JOINED_AT_ONCE: usize = 16;
/// Queries remembered whose answers were too long to be put together,
const LONG_QUERIES: u64 = 1_024;
/// and for how long.
const LONG_FOR: Duration = Duration::from_secs(600);

/// A query that holds its permit.
pub(super) struct Running {
    pub(super) permit: Permit,
    /// How long it waited for it.
    pub(super) waited: Duration,
    pub(super) progress: Arc<Progress>,
}

/// A query that went out.
pub(super) struct Sent {
    pub(super) running: Running,
    /// When it went out.
    pub(super) at: Instant,
    /// The head of its answer.
    pub(super) answered: Result<Response<backend::Body>, BackendError>,
}

/// What bounds the putting together of answers.
#[derive(Debug)]
pub(super) struct Joins {
    places: Semaphore,
    /// Fingerprints of queries whose answers are too long for it.
    long: Cache<u64, ()>,
}

impl Joins {
    pub(super) fn new() -> Self {
        let long = Cache::builder().max_capacity(LONG_QUERIES).time_to_live(LONG_FOR).build();
        Self { places: Semaphore::new(JOINED_AT_ONCE), long }
    }

    /// How a query may be divided, unless its answer was too long lately.
    pub(super) fn division<'c>(&self, call: &'c Call) -> Option<&'c Division> {
        call.division.as_ref().filter(|_| !self.long.contains_key(&call.fingerprint))
    }
}

impl Proxy {
    /// Admits and sends. What cannot be put together from pieces is sent as a whole, with a permit for the whole;
    /// `estimate` says then what that takes.
    pub(super) async fn send(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        call: &Call,
        estimate: &mut Estimate,
        request: Outgoing,
        deadline: Instant,
        record: &mut Record,
    ) -> Result<Sent, Failure> {
        let backend = &asking.upstream.backend;
        if let Some(division) = call.division.as_ref().filter(|_| estimate.demand.pieces > 1) {
            let running = self.admit(asking, estimate, deadline, record).await?;
            let at = Instant::now();
            let pieces = division.times(estimate.demand.pieces);
            let again = estimate.demand.memory.value < DEAR_BYTES;
            // As much as a whole query of this weight would have proved in the same time; its end proves the rest.
            let ended = |count: usize| {
                if count < pieces.len() && count.is_multiple_of(PIECES_COUNTED) {
                    running.permit.prove();
                }
            };
            let joining = async {
                // Never closed; whoever comes too late finds the deadline passed.
                let _place = tokio::time::timeout_at(deadline, self.joins.places.acquire()).await;
                backend.send_in_pieces(&request, &pieces, deadline, again, JOINED_MAX, ended).await
            };
            let joined = tokio::select! {
                biased;
                joined = joining => joined,
                () = running.progress.recalled() => return Err(self.recalled(asking)),
            };
            let answered = match joined {
                Ok(Joined::Answer(answer)) => Some(Ok(answer)),
                Err(error) => Some(Err(error)),
                Ok(Joined::No) => None,
            };
            self.metrics.divided(backend.name(), answered.is_some());
            if let Some(answered) = answered {
                return Ok(Sent { running, at, answered });
            }
            self.joins.long.insert(call.fingerprint, ());
            estimate.undivide();
            record.estimated(estimate.demand);
        }
        let running = self.admit(asking, estimate, deadline, record).await?;
        let at = Instant::now();
        let again = estimate.demand.memory.value < DEAR_BYTES;
        let answered = tokio::select! {
            biased;
            answered = backend.send(request, deadline, again) => answered,
            () = running.progress.recalled() => return Err(self.recalled(asking)),
        };
        Ok(Sent { running, at, answered })
    }

    /// The admit stage.
    async fn admit(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        estimate: &Estimate,
        deadline: Instant,
        record: &mut Record,
    ) -> Result<Running, Failure> {
        record.asks();
        let ask = asking.ask(estimate.demand, deadline);
        let admitted = self.admission.admit(ask).await.map_err(|refusal| {
            self.metrics.refused(&asking.who.tenant, refusal.id(), "enforce", refusal.kind);
            Failure::refused(&refusal, estimate)
        });
        let Admitted { permit, waited, shadow } = admitted?;
        let progress = record.admitted(waited);
        progress.must_end(deadline);
        self.count_shadow(asking, &shadow, record);
        self.metrics.admitted(&asking.who.tenant, &asking.live.class_name(asking.who.class), waited);
        if estimate.demand.memory.value >= DEAR_BYTES {
            record.dispatch();
        }
        Ok(Running { permit, waited, progress })
    }

    /// The backend gave no answer yet, and shall give none.
    pub(super) fn recalled(&self, asking: &Asking<'_>) -> Failure {
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
}
