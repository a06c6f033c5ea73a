//! Runs a query in parts of its time, one after the other, and merges their answers.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either, MapErr, TryFutureExt as _};
use tokio::time::Instant;
use tower::Service;

use super::{
    forward::{Answer, Dispatch},
    layer::layer,
    meter::Progress,
};
use crate::{
    backend::{Merged, NotMergeable, Outgoing, Parts},
    base::time::EvalTimes,
    cost::{MERGED_MAX, PARTS_COUNTED},
    limit::{Actual, End, Permitted},
    telemetry::metrics::{Metrics, SplitOutcome},
};

/// A query that goes out in parts.
#[derive(Debug)]
pub(super) struct InParts {
    /// The times of its parts.
    pub(super) times: Vec<EvalTimes>,
    pub(super) metrics: Arc<Metrics>,
    /// Counts the parts that were answered.
    pub(super) progress: Arc<Progress>,
}

/// A query whose parts cannot be merged; its permit is given back.
#[derive(Debug)]
pub(super) struct NotMerged {
    pub(super) outgoing: Box<Outgoing>,
    pub(super) why: NotMergeable,
}

layer! {
    /// Runs queries in parts where they have such, before the service that sends whole ones.
    pub(super) SplitLayer => Split
}

type Whole<F> = MapErr<F, fn(Infallible) -> NotMerged>;

impl<S> Service<Permitted<Dispatch>> for Split<S>
where
    S: Service<Permitted<Dispatch>, Response = Permitted<Answer>, Error = Infallible>,
{
    type Response = Permitted<Answer>;
    type Error = NotMerged;
    type Future = Either<Whole<S::Future>, BoxFuture<'static, Result<Permitted<Answer>, NotMerged>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotMerged>> {
        self.inner.poll_ready(cx).map_err(|never| match never {})
    }

    fn call(&mut self, dispatch: Permitted<Dispatch>) -> Self::Future {
        if dispatch.get().split.is_none() {
            return Either::Left(self.inner.call(dispatch).map_err(|never| match never {}));
        }
        Either::Right(Box::pin(in_parts(dispatch)))
    }
}

async fn in_parts(dispatch: Permitted<Dispatch>) -> Result<Permitted<Answer>, NotMerged> {
    let sent = Instant::now();
    let Dispatch { upstream, outgoing, deadline, idempotent, split } = dispatch.get();
    let parts = split.as_ref().map_or(&[][..], |split| &split.times);
    // The share that a whole query of this size would have proved by now; its end proves the rest.
    let ended = |count: usize| {
        if let Some(split) = split {
            split.progress.set_parts(count as u64);
        }
        if count < parts.len() && count.is_multiple_of(PARTS_COUNTED) {
            dispatch.permit().part_done();
        }
    };
    let plan = Parts { times: parts, max_bytes: MERGED_MAX, idempotent: *idempotent };
    let merged = upstream.backend.send_in_parts(outgoing, &plan, *deadline, ended).await;
    let outcome = match &merged {
        Ok(Merged::Answer(answer)) if answer.status().is_success() => SplitOutcome::Merged,
        Ok(Merged::Answer(_)) | Err(_) => SplitOutcome::Failed,
        Ok(Merged::No(NotMergeable::NoMemory)) => SplitOutcome::NoMemory,
        Ok(Merged::No(_)) => SplitOutcome::Whole,
    };
    if let Some(InParts { metrics, .. }) = split {
        metrics.split(upstream.backend.name(), outcome);
    }
    let result = match merged {
        Ok(Merged::Answer(answer)) => Ok(answer),
        Err(error) => Err(error),
        Ok(Merged::No(why)) => {
            // The backend is through with its parts.
            let over = Actual { end: End::Failed, ..Actual::default() };
            let Dispatch { outgoing, .. } = dispatch.settle(over);
            return Err(NotMerged { outgoing, why });
        }
    };
    Ok(dispatch.map(|_| Answer { sent, result }))
}
