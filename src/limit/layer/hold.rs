//! A value with the permit that it needs, and the layer that keeps a permit with the response to its request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::limit::{Actual, Permit};

/// A value that may exist only while its permit does: a request that may run, or the response to one.
///
/// Admission alone makes permits, so a service that takes `Permitted<R>` is reached through it or not at all. Dropping
/// the value gives back its share of the budgets.
#[derive(Debug)]
pub struct Permitted<T> {
    value: T,
    permit: Permit,
}

impl<T> Permitted<T> {
    /// A value under this permit.
    pub const fn new(value: T, permit: Permit) -> Self {
        Self { value, permit }
    }

    /// The value.
    pub const fn get(&self) -> &T {
        &self.value
    }

    /// The permit.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Another value under the same permit.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Permitted<U> {
        Permitted { value: f(self.value), permit: self.permit }
    }

    /// The value and its permit, to be kept together by the caller.
    pub fn into_parts(self) -> (T, Permit) {
        (self.value, self.permit)
    }

    /// Ends it with its real cost and gives the value back; by a mere drop, the estimate stands.
    pub fn settle(self, actual: Actual) -> T {
        self.permit.settle(actual);
        self.value
    }
}

/// Puts a service that knows nothing of permits behind [`Admit`](super::Admit): it gets the request alone, and its
/// response comes with the permit, which is given back when the response is dropped, or the future before that.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldLayer;

impl<S> Layer<S> for HoldLayer {
    type Service = Hold<S>;

    fn layer(&self, inner: S) -> Hold<S> {
        Hold { inner }
    }
}

/// A service whose responses hold the permits of their requests; made by [`HoldLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Hold<S> {
    inner: S,
}

impl<S: Service<R>, R> Service<Permitted<R>> for Hold<S> {
    type Response = Permitted<S::Response>;
    type Error = S::Error;
    type Future = HoldFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Permitted<R>) -> Self::Future {
        let (request, permit) = request.into_parts();
        HoldFuture { running: self.inner.call(request), permit: Some(permit) }
    }
}

pin_project! {
    /// The future of [`Hold`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct HoldFuture<F> {
        #[pin]
        running: F,
        permit: Option<Permit>,
    }
}

impl<F, T, E> Future for HoldFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Permitted<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.running.poll(cx));
        let permit = this.permit.take().expect("polled after it was ready");
        Poll::Ready(response.map(|value| Permitted { value, permit }))
    }
}
