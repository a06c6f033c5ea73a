//! Refuses requests that come too often, before anything of them is read.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    base::TenantId,
    limit::{Admission, Refusal, ShadowHit},
};

/// A request that counts towards a tenant's rate of queries.
pub trait RateLimited: Sized {
    /// A request over its rate; the error of the service behind the layer is made of it.
    type Refused;

    /// The tenants whose rates it counts towards, each for all of it; none for a request that is not counted.
    fn payers(&self) -> &[TenantId];

    /// It was counted. `shadowed` are the rates in shadow mode that it passed.
    #[must_use]
    fn counted(self, shadowed: Vec<ShadowHit>) -> Self;

    /// It comes too early: refused, unless it may turn out to be one that is not counted.
    ///
    /// # Errors
    /// The refusal.
    fn over_rate(self, refusal: Refusal) -> Result<Self, Self::Refused>;
}

/// Puts the rates of an [`Admission`]'s tenants before a service.
#[derive(Clone, Debug)]
pub struct CheckRateLayer {
    admission: Arc<Admission>,
}

impl CheckRateLayer {
    /// A layer that counts in this admission's accounts.
    pub const fn new(admission: Arc<Admission>) -> Self {
        Self { admission }
    }
}

impl<S> Layer<S> for CheckRateLayer {
    type Service = CheckRate<S>;

    fn layer(&self, inner: S) -> CheckRate<S> {
        CheckRate { inner, admission: Arc::clone(&self.admission) }
    }
}

/// A service that requests reach at their tenants' rates only; made by [`CheckRateLayer`].
#[derive(Clone, Debug)]
pub struct CheckRate<S> {
    inner: S,
    admission: Arc<Admission>,
}

impl<S, R> Service<R> for CheckRate<S>
where
    R: RateLimited,
    S: Service<R>,
    S::Error: From<R::Refused>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = CheckRateFuture<S::Future, R::Refused>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let state = match self.admission.check_rate(request.payers()) {
            Ok(shadowed) => State::Running { running: self.inner.call(request.counted(shadowed)) },
            Err(refusal) => match request.over_rate(refusal) {
                Ok(request) => State::Running { running: self.inner.call(request) },
                Err(refused) => State::Refused { refused: Some(refused) },
            },
        };
        CheckRateFuture { state }
    }
}

pin_project! {
    /// The future of [`CheckRate`].
    #[must_use = "futures do nothing unless polled"]
    pub struct CheckRateFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F, E> {
        /// The service behind has the request.
        Running { #[pin] running: F },
        /// The request came too early; taken when that is said.
        Refused { refused: Option<E> },
    }
}

impl<F, T, E, R> Future for CheckRateFuture<F, R>
where
    F: Future<Output = Result<T, E>>,
    E: From<R>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Running { running } => running.poll(cx),
            StateProject::Refused { refused } => {
                Poll::Ready(Err(refused.take().expect("polled after it was ready").into()))
            }
        }
    }
}

impl<F, E> fmt::Debug for CheckRateFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused { .. });
        f.debug_struct("CheckRateFuture").field("refused", &refused).finish()
    }
}
