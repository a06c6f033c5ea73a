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
    condition::Failure,
    error::{BackendError, Cause},
    places::PlaceHandle,
    pool::innermost,
    replicas::Lease,
};
use crate::http::ByteShare;

/// Bytes of an answer that was put together which are handed out at a time.
const PART: usize = 64 << 10;

/// The bytes of an answer. Dropping it before its end closes the connection, and so cancels the query.
#[derive(Debug)]
pub struct Body(Source);

#[derive(Debug)]
enum Source {
    /// As they arrive.
    Arriving(Arriving),
    /// There already: merged from several answers, with its share of the memory for those, or a short one.
    Whole { bytes: Bytes, _share: Option<ByteShare> },
}

#[derive(Debug)]
struct Arriving {
    incoming: Incoming,
    lease: Option<Lease>,
    deadline: Instant,
    /// Made only when the backend keeps the reader waiting: most answers arrive whole.
    alarm: Option<Pin<Box<Sleep>>>,
    backend: Arc<str>,
}

impl Body {
    pub(super) fn new(incoming: Incoming, lease: Lease, deadline: Instant, backend: Arc<str>) -> Self {
        let mut arriving = Arriving { incoming, lease: Some(lease), deadline, alarm: None, backend };
        arriving.finish_if_ended();
        Self(Source::Arriving(arriving))
    }

    pub(super) const fn merged(bytes: Bytes, share: ByteShare) -> Self {
        Self(Source::Whole { bytes, _share: Some(share) })
    }

    /// A handle on the place of a light request, whose answer is still to come.
    pub fn light_place(&self) -> Option<PlaceHandle> {
        match &self.0 {
            Source::Arriving(arriving) => arriving.lease.as_ref()?.light_place(),
            Source::Whole { .. } => None,
        }
    }

    /// A short answer that was read.
    pub const fn whole(bytes: Bytes) -> Self {
        Self(Source::Whole { bytes, _share: None })
    }
}

impl Arriving {
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
            replica.failed(Failure::Unanswered, cause.to_string());
        }
        BackendError::new(&self.backend, replica.map(|r| r.pool.url().as_str()), cause)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BackendError>>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        match lease.poll_frame(&mut self.incoming, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.finish_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(self.fail(Cause::BrokenBody(innermost(&error))))))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
                match alarm.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(self.fail(Cause::LateBody)))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BackendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BackendError>>> {
        match &mut self.0 {
            Source::Arriving(arriving) => arriving.poll(cx),
            Source::Whole { bytes, .. } if bytes.is_empty() => Poll::Ready(None),
            // In parts, so that it is the client's reading that brings it to its end.
            Source::Whole { bytes, .. } => {
                let part = bytes.split_to(bytes.len().min(PART));
                Poll::Ready(Some(Ok(Frame::data(part))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Arriving(arriving) => arriving.lease.is_none(),
            Source::Whole { bytes, .. } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Arriving(arriving) => arriving.incoming.size_hint(),
            Source::Whole { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
