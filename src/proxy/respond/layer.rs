//! Makes a response of every end of a request, panics included.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either, Ready, ready},
};
use http::{Method, Response, header};
use tower::{Layer, Service};

use super::{Body, failure::Failure, preflight, readable};
use crate::{
    base::ErrorKind,
    http::Timed,
    proxy::{exchange::Rejected, front::Incoming, meter::Progress},
};

/// Puts responses around the stack: nothing behind it fails from here on.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct RespondLayer;

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner }
    }
}

/// Made by [`RespondLayer`].
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Respond<S> {
    inner: S,
}

impl<S, B> Service<Incoming<B>> for Respond<S>
where
    S: Service<Incoming<B>, Response = Response<Body>, Error = Rejected>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Self::Response, Infallible>>,
        BoxFuture<'static, Result<Self::Response, Infallible>>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Every layer is always ready: who waits, waits in the future of its call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, incoming: Incoming<B>) -> Self::Future {
        let for_script = incoming.request.headers().contains_key(header::ORIGIN);
        if incoming.request.method() == Method::OPTIONS {
            return Either::Left(ready(Ok(preflight(for_script))));
        }
        let started = catch_unwind(AssertUnwindSafe(|| self.inner.call(incoming)));
        // One box around all that follows: it is some kilobytes, and what awaits it would move it.
        Either::Right(Box::pin(async move {
            let answered = match started {
                Ok(running) => AssertUnwindSafe(running).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            let failure = match answered {
                // A backend says itself who may read its answers.
                Ok(Ok(response)) => return Ok(timed(response)),
                Ok(Err(Rejected { log, failure })) => {
                    if let Some(mut log) = log {
                        log.failed(&failure);
                    }
                    failure
                }
                // Its log was written as it unwound.
                Err(_) => Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more"),
            };
            Ok(readable(failure.into_response(), for_script))
        }))
    }
}

/// With the deadline of a body that is still to come: its connection is cut when that is over.
fn timed(mut response: Response<Body>) -> Response<Body> {
    if let Some(progress) = response.body().to_come() {
        let deadline = Timed(Arc::<Progress>::clone(progress));
        response.extensions_mut().insert(deadline);
    }
    response
}
