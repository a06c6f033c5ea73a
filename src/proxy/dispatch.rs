//! The admit and forward stages: a query waits for its permit, goes out as it came or in pieces, and its answer begins.

use std::{sync::Arc, time::Duration};

use http::Response;
use moka::sync::Cache;
use tokio::time::Instant;

use super::{
    asking::Asking, config::Proxy, log::record::Record, meter::Progress, query::Call,
    respond::failure::Failure,
};
use crate::{
    backend::{self, BackendError, Joined, Outgoing, Unjoined},
    base::{ErrorKind, time::EvalTimes},
    cost::{Estimated, JOINED_MAX, PIECES_COUNTED, QuerySplit},
    limit::{Admitted, Permit, ShadowHit},
    promql::Fingerprint,
    telemetry::metrics::Divided,
};

/// A query expected to hold this much is written down before it goes out, and what may have brought one replica down is
/// not tried on the next.
const DEAR_BYTES: u64 = 64 << 20;
/// As long as no estimate has proved true, a query that needs more than what is open without proof waits for so long:
/// smaller ones of the same burst go first, and show within seconds whether estimates are to be believed.
const LET_SMALLER_FIRST: Duration = Duration::from_secs(1);
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

/// Queries whose answers were too long to be put together from pieces: backend, fingerprint and steps.
#[derive(Debug)]
pub(super) struct LongAnswers(Cache<(usize, Fingerprint, u64), ()>);

impl LongAnswers {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(LONG_QUERIES).time_to_live(LONG_FOR).build())
    }

    /// How a query may be divided, unless its answer was too long lately.
    pub(super) fn division<'c>(&self, call: &'c Call, backend: usize) -> Option<&'c QuerySplit> {
        let key = (backend, call.fingerprint, call.shape.steps);
        call.division.as_deref().filter(|_| !self.0.contains_key(&key))
    }

    fn remember(&self, call: &Call, backend: usize) {
        self.0.insert((backend, call.fingerprint, call.shape.steps), ());
    }
}

impl Proxy {
    /// Admits and sends. What cannot be put together from pieces is sent as a whole, with a permit for the whole;
    /// `estimate` says then what that takes.
    pub(super) async fn send(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        call: &Call,
        estimate: &mut Estimated,
        request: Outgoing,
        deadline: Instant,
        record: &mut Record,
    ) -> Result<Sent, Failure> {
        let backend = &asking.upstream.backend;
        let mut paid = false;
        if let Some(division) = call.division.as_ref().filter(|_| estimate.cost.pieces > 1) {
            let running = self.admit(asking, estimate, deadline, paid, record).await?;
            let at = Instant::now();
            let pieces = division.times(estimate.cost.pieces);
            match self.send_in_pieces(asking, &running, estimate, (&request, &pieces), deadline).await? {
                Ok(Joined::Answer(answer)) => return Ok(Sent { running, at, answered: Ok(*answer) }),
                Err(error) => return Ok(Sent { running, at, answered: Err(error) }),
                Ok(Joined::No(Unjoined::NoRoom)) => {
                    return Err(Failure::new(
                        ErrorKind::QueueFull,
                        format!("{}: ask again", Unjoined::NoRoom),
                    ));
                }
                Ok(Joined::No(why)) => {
                    tracing::info!(
                        target: "weir::pieces", backend = backend.name(), pieces = pieces.len(), query = %record.query,
                        "asked for as a whole after all: {why}"
                    );
                    if why == Unjoined::TooLong {
                        self.long_answers.remember(call, asking.upstream.index);
                    }
                }
            }
            paid = true;
            estimate.undivide();
            record.estimated(estimate.cost);
        }
        let running = self.admit(asking, estimate, deadline, paid, record).await?;
        let at = Instant::now();
        let again = estimate.cost.memory.value < DEAR_BYTES;
        let answered = tokio::select! {
            biased;
            answered = backend.send(request, deadline, again) => answered,
            () = running.progress.recalled() => return Err(self.recalled(asking)),
        };
        Ok(Sent { running, at, answered })
    }

    /// Sends piece after piece; fails where the query is recalled meanwhile.
    async fn send_in_pieces(
        &self,
        asking: &Asking<'_>,
        running: &Running,
        estimate: &Estimated,
        (request, pieces): (&Outgoing, &[EvalTimes]),
        deadline: Instant,
    ) -> Result<Result<Joined, BackendError>, Failure> {
        let backend = &asking.upstream.backend;
        // As much as a whole query of this weight would have proved in the same time; its end proves the rest.
        let ended = |count: usize| {
            if count < pieces.len() && count.is_multiple_of(PIECES_COUNTED) {
                running.permit.prove();
            }
        };
        let again = estimate.cost.memory.value < DEAR_BYTES;
        let joined = tokio::select! {
            biased;
            joined = backend.send_in_pieces(request, pieces, deadline, again, JOINED_MAX, ended) => joined,
            () = running.progress.recalled() => return Err(self.recalled(asking)),
        };
        let outcome = match &joined {
            Ok(Joined::Answer(answer)) if answer.status().is_success() => Divided::Joined,
            Ok(Joined::Answer(_)) | Err(_) => Divided::Failed,
            Ok(Joined::No(Unjoined::NoRoom)) => Divided::NoRoom,
            Ok(Joined::No(_)) => Divided::Whole,
        };
        self.metrics.divided(backend.name(), outcome);
        Ok(joined)
    }

    /// The admit stage; what was `paid` for before, to run in another way, is not counted again.
    async fn admit(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        estimate: &Estimated,
        deadline: Instant,
        paid: bool,
        record: &mut Record,
    ) -> Result<Running, Failure> {
        record.asks();
        let ask = asking.ask(estimate.cost, deadline, paid);
        let asked = Instant::now();
        if self.admission.lacks_proof(&ask) {
            tokio::time::sleep_until(deadline.min(asked + LET_SMALLER_FIRST)).await;
        }
        let admitted = self.admission.admit(ask).await.map_err(|refusal| {
            self.metrics.refused(&asking.who.tenant, refusal.id(), "enforce", refusal.kind);
            Failure::refused(&refusal, estimate)
        });
        let Admitted { permit, shadow, .. } = admitted?;
        let waited = asked.elapsed();
        let progress = record.admitted(waited);
        progress.set_deadline(deadline);
        self.count_shadow(asking, &shadow, record);
        if !paid {
            self.metrics.admitted(&asking.who.tenant, &asking.live.class_name(asking.who.class), waited);
        }
        if estimate.cost.memory.value >= DEAR_BYTES {
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
