//! The service behind every guard: a request passes its check, or the check answers it.

use std::task::{Context, Poll};

use axum::{
    body::Body,
    http::{Request, Response},
};
use futures_util::future::{Either, Ready, ready};
use tower::Service;

/// A check of requests by their heads.
pub trait Check {
    /// The answer to a request that does not pass; one that passes may get extensions for the service behind.
    fn refuse<B>(&self, request: &mut Request<B>) -> Option<Response<Body>>;
}

/// A service behind a [`Check`].
#[derive(Clone, Debug)]
pub struct Guarded<S, C> {
    inner: S,
    check: C,
}

impl<S, C> Guarded<S, C> {
    pub(super) const fn new(inner: S, check: C) -> Self {
        Self { inner, check }
    }
}

impl<S, C, B> Service<Request<B>> for Guarded<S, C>
where
    S: Service<Request<B>, Response = Response<Body>>,
    C: Check,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.check.refuse(&mut request) {
            None => Either::Left(self.inner.call(request)),
            Some(answer) => Either::Right(ready(Ok(answer))),
        }
    }
}
