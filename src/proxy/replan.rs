//! Runs a query as a whole after all, where the answers to its parts cannot be merged.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tower::Service;

use super::{
    exchange::{Exchange, Priced, Rejected},
    layer::layer,
    respond::{Body, failure::Failure},
};
use crate::{backend::NotMergeable, base::ErrorKind, limit::Charged};

/// How the service behind ends a query without an answer.
#[derive(Debug)]
pub(super) enum Halted {
    /// For good.
    Rejected(Rejected),
    /// Its parts were answered, and cannot be merged. Its permit is given back.
    NotMerged(Exchange<Box<Priced>>, NotMergeable),
}

impl From<Rejected> for Halted {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

layer! {
    /// Puts a second try as a whole before the service that runs queries in parts.
    pub(super) ReplanLayer => Replan
}

impl<S> Service<Exchange<Box<Priced>>> for Replan<S>
where
    S: Service<Exchange<Box<Priced>>, Response = Response<Body>, Error = Halted> + Clone,
{
    type Response = Response<Body>;
    type Error = Rejected;
    type Future = ReplanFuture<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        self.inner.poll_ready(cx).map_err(|halted| match halted {
            Halted::Rejected(rejected) => rejected,
            Halted::NotMerged(exchange, _) => exchange.common.reject(merge_memory_is_full()),
        })
    }

    fn call(&mut self, mut exchange: Exchange<Box<Priced>>) -> Self::Future {
        exchange.common.log.queued();
        // Only a query in parts may come back.
        let again = (exchange.stage.estimate.parts > 1).then(|| self.clone());
        ReplanFuture { running: self.inner.call(exchange), again }
    }
}

pin_project! {
    /// The future of [`Replan`].
    pub(super) struct ReplanFuture<S, F> {
        #[pin]
        running: F,
        again: Option<Replan<S>>,
    }
}

impl<S> Future for ReplanFuture<S, S::Future>
where
    S: Service<Exchange<Box<Priced>>, Response = Response<Body>, Error = Halted>,
{
    type Output = Result<Response<Body>, Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (mut exchange, why) = match ready!(this.running.as_mut().poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response)),
                Err(Halted::Rejected(rejected)) => return Poll::Ready(Err(rejected)),
                Err(Halted::NotMerged(exchange, why)) => (exchange, why),
            };
            let Some(mut again) = this.again.take().filter(|_| why != NotMergeable::NoMemory) else {
                return Poll::Ready(Err(exchange.common.reject(merge_memory_is_full())));
            };
            let backend = exchange.common.upstream.backend.shared_name();
            tracing::info!(
                target: "weir::pieces", backend = &**backend, parts = exchange.stage.estimate.parts,
                query = exchange.common.log.query(), "runs as a whole after all: {why}"
            );
            if why == NotMergeable::TooLong {
                exchange.common.shared.pricing.long_answers.remember(&exchange.stage.query, backend);
            }
            exchange.stage.charged = Charged::All;
            exchange.stage.estimate.make_whole();
            exchange.common.log.estimated(&exchange.stage.estimate);
            exchange.common.log.queued();
            let whole = again.inner.call(exchange);
            this.running.set(whole);
        }
    }
}

fn merge_memory_is_full() -> Failure {
    Failure::new(ErrorKind::QueueFull, format!("{}: ask again", NotMergeable::NoMemory))
}
