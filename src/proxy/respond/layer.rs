//! Makes a response of every end of a request, panics included.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Response, header};
use pin_project_lite::pin_project;
use tower::Service;

use super::{Body, failure::Failure, preflight, readable};
use crate::{
    base::ErrorKind,
    http::Timed,
    proxy::{exchange::Rejected, identify::layer::Incoming, layer::layer, meter::Progress},
};

layer! {
    /// Puts responses around the stack: nothing behind it fails from here on.
    pub(in crate::proxy) RespondLayer => Respond
}

impl<S, B> Service<Incoming<B>> for Respond<S>
where
    S: Service<Incoming<B>, Response = Response<Body>, Error = Rejected>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RespondFuture<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Every layer is always ready: a waiting request waits in the future of its call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, incoming: Incoming<B>) -> Self::Future {
        let for_script = incoming.request.headers().contains_key(header::ORIGIN);
        let state = if incoming.request.method() == Method::OPTIONS {
            State::Preflight
        } else {
            match catch_unwind(AssertUnwindSafe(|| self.inner.call(incoming))) {
                Ok(running) => State::Running { running },
                Err(_) => State::Panicked,
            }
        };
        RespondFuture { state, for_script }
    }
}

pin_project! {
    /// The future of [`Respond`].
    pub(in crate::proxy) struct RespondFuture<F> {
        #[pin]
        state: State<F>,
        // A page of another host asks, in a browser.
        for_script: bool,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Running { #[pin] running: F },
        Preflight,
        Panicked,
    }
}

impl<F: Future<Output = Result<Response<Body>, Rejected>>> Future for RespondFuture<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = match this.state.project() {
            StateProject::Preflight => return Poll::Ready(Ok(preflight(*this.for_script))),
            StateProject::Panicked => None,
            StateProject::Running { running } => match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
                Ok(polled) => Some(ready!(polled)),
                Err(_) => None,
            },
        };
        let failure = match answered {
            // A backend names itself the origins that may read its answers.
            Some(Ok(response)) => return Poll::Ready(Ok(timed(response))),
            Some(Err(Rejected { log, failure })) => {
                if let Some(mut log) = log {
                    log.failed(&failure);
                }
                failure
            }
            // Its log was written as it unwound.
            None => Failure::new(ErrorKind::Internal, "a defect in Weir; its log says more"),
        };
        Poll::Ready(Ok(readable(failure.into_response(), *this.for_script)))
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
