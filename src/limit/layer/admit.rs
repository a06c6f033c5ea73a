//! Waits until admission lets a request run, then hands it on with its permit.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::limit::{Admission, AdmissionRequest, Admitted, Refusal, admission::Attempt};

/// A request that admission can decide on.
pub trait Admissible: Sized {
    /// The same request when it may run. It owns its permit: the budget is free again when that is dropped.
    type Admitted;
    /// A request that may not run; the error of the service behind the layer is made of it.
    type Refused;

    /// Its owner, its cost and its deadline.
    fn admission_request(&self) -> AdmissionRequest;

    /// Ends, with the reason, when the request is not to run any more: it leaves the queue then and is refused.
    fn withdrawn(&self) -> impl Future<Output = Refusal> + Send + 'static {
        std::future::pending()
    }

    /// The request with its permit: it may run.
    fn admitted(self, admitted: Admitted) -> Self::Admitted;

    /// The error for a request that may not run.
    fn refused(self, refusal: Refusal) -> Self::Refused;
}

/// Puts an [`Admission`] before a service.
#[derive(Clone, Debug)]
pub struct AdmitLayer {
    admission: Arc<Admission>,
}

impl AdmitLayer {
    /// A layer that asks this admission. Several layers may share one: they then share its budgets.
    pub const fn new(admission: Arc<Admission>) -> Self {
        Self { admission }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, admission: Arc::clone(&self.admission) }
    }
}

/// A service that only admitted requests reach; made by [`AdmitLayer`].
#[derive(Clone, Debug)]
pub struct Admit<S> {
    inner: S,
    admission: Arc<Admission>,
}

impl<S, R> Service<R> for Admit<S>
where
    R: Admissible,
    S: Service<R::Admitted> + Clone,
    S::Error: From<R::Refused>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AdmitFuture<S, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The service behind is asked once the request may run: a place kept while waiting would be lost to others.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let asked = request.admission_request();
        let state = match self.admission.try_admit(&asked) {
            Ok(Attempt::Admitted(admitted)) => State::Starting { admitted: Some(request.admitted(admitted)) },
            Ok(Attempt::Queued(queued)) => {
                let withdrawn = request.withdrawn();
                let waiting: WaitFuture = Box::pin(async move {
                    tokio::select! {
                        biased;
                        answer = queued.turn(&asked) => answer,
                        refusal = withdrawn => Err(refusal),
                    }
                });
                State::Waiting { waiting, request: Some(request) }
            }
            Err(refusal) => State::Refused { refused: Some(request.refused(refusal)) },
        };
        AdmitFuture { inner: self.inner.clone(), state }
    }
}

type WaitFuture = Pin<Box<dyn Future<Output = Result<Admitted, Refusal>> + Send>>;

pin_project! {
    /// The future of [`Admit`], which asked when it was made. States: waiting => (refused | starting => running).
    ///
    /// Dropped while waiting it leaves the queue; dropped later it drops the request with its permit.
    #[must_use = "futures do nothing unless polled"]
    pub struct AdmitFuture<S, R>
    where
        R: Admissible,
        S: Service<R::Admitted>,
    {
        inner: S,
        #[pin]
        state: State<R, R::Admitted, R::Refused, S::Future>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<R, A, E, F> {
        /// In the queue. The request is taken when that ends.
        Waiting { waiting: WaitFuture, request: Option<R> },
        /// It may not run; taken when that is said.
        Refused { refused: Option<E> },
        /// Admitted; the service behind is not ready yet.
        Starting { admitted: Option<A> },
        /// The service behind has it.
        Running { #[pin] running: F },
    }
}

impl<S, R> Future for AdmitFuture<S, R>
where
    R: Admissible,
    S: Service<R::Admitted>,
    S::Error: From<R::Refused>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProject::Waiting { waiting, request } => {
                    let answer = ready!(waiting.as_mut().poll(cx));
                    let request = request.take().expect(POLLED_AGAIN);
                    match answer {
                        Ok(admitted) => State::Starting { admitted: Some(request.admitted(admitted)) },
                        Err(refusal) => return Poll::Ready(Err(request.refused(refusal).into())),
                    }
                }
                StateProject::Refused { refused } => {
                    return Poll::Ready(Err(refused.take().expect(POLLED_AGAIN).into()));
                }
                StateProject::Starting { admitted } => {
                    ready!(this.inner.poll_ready(cx))?;
                    let admitted = admitted.take().expect(POLLED_AGAIN);
                    State::Running { running: this.inner.call(admitted) }
                }
                StateProject::Running { running } => return running.poll(cx),
            };
            this.state.set(next);
        }
    }
}

/// The request is taken only where the state changes next, or the future is over.
const POLLED_AGAIN: &str = "polled after it was ready";

impl<S, R> fmt::Debug for AdmitFuture<S, R>
where
    R: Admissible,
    S: Service<R::Admitted>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Waiting { .. } => "waiting",
            State::Refused { .. } => "refused",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
        };
        f.debug_tuple("AdmitFuture").field(&state).finish()
    }
}
