//! The body of an answer, which holds its connection until it ends.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    error::{BackendError, Cause},
    pool::innermost,
    replicas::{Failure, Lease},
};

/// The bytes of an answer as they arrive. Dropping it before its end closes the connection, and so cancels the query.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
    deadline: Instant,
    /// Made only when the backend keeps the reader waiting: most answers arrive whole.
    alarm: Option<Pin<Box<Sleep>>>,
    backend: Arc<str>,
}

impl Body {
    pub(super) fn new(incoming: Incoming, lease: Lease, deadline: Instant, backend: Arc<str>) -> Self {
        let mut body = Self { incoming, lease: Some(lease), deadline, alarm: None, backend };
        body.finish_if_ended();
        body
    }

    fn finish_if_ended(&mut self) {
        if http_body::Body::is_end_stream(&self.incoming) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn fail(&mut self, cause: Cause) -> BackendError {
        let lease = self.lease.take();
        let replica = lease.as_ref().map(Lease::replica);
        // The deadline of a query says nothing of the replica; an answer that breaks off does.
        if let (Some(replica), Cause::BrokenBody(_)) = (replica, &cause) {
            replica.failed(Failure::Unanswered);
        }
        BackendError::new(&self.backend, replica.map(|r| r.pool.url().as_str()), cause)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BackendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BackendError>>> {
        let this = &mut *self;
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        match lease.poll_frame(&mut this.incoming, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(this.fail(Cause::BrokenBody(innermost(&error))))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
                match alarm.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(this.fail(Cause::LateBody)))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
