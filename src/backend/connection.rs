//! One connection to a replica, driven by the request that waits for its answer.
//!
//! It has no task of its own: a request and its answer pass between client and backend without a switch of tasks, and a
//! connection that is dropped closes at once, which is how a query is cancelled. The price: nobody notices that an
//! idle connection was closed before it is looked at.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::base::WorkerId;

type Outgoing = Request<Full<Bytes>>;
/// The head of an answer, or the request where it was not written.
type Exchanged = Result<Response<Incoming>, TrySendError<Outgoing>>;
/// In a box, since it is two kilobytes and moves with every request.
type Driver = Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>;

/// The bytes below HTTP.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// An open connection that speaks HTTP/1.
pub(super) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    /// The driver of the connection; `None` once it has ended.
    driver: Option<Driver>,
    /// The thread whose runtime says when there is something to read.
    pub(super) worker: WorkerId,
    /// Rings at the latest when the request under way has to be answered. It stays set from request to request: to ring
    /// in vain once a minute costs less than to set and remove a timer each time.
    alarm: Pin<Box<Sleep>>,
}

impl Connection {
    /// Begins HTTP on an open stream.
    pub(super) async fn begin(stream: Stream) -> hyper::Result<Self> {
        let (requests, driver) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let alarm = Box::pin(sleep_until(Instant::now()));
        Ok(Self { requests, driver: Some(Box::new(driver)), worker: WorkerId::current(), alarm })
    }

    /// Sends a request and waits for the head of the answer; `None` if it is late.
    pub(super) async fn exchange(&mut self, request: Box<Outgoing>, deadline: Instant) -> Option<Exchanged> {
        let Self { requests, driver, worker, alarm } = self;
        if *worker != WorkerId::current() {
            // A timer of another thread's runtime ends with that.
            *alarm = Box::pin(sleep_until(deadline));
        }
        let mut answer = pin!(requests.try_send_request(*request));
        poll_fn(|cx| {
            drive(driver, cx);
            // Only the driver can make it ready, and that is asked again whenever there is something to do.
            match answer.as_mut().poll(&mut unwoken()) {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending => ring(alarm.as_mut(), deadline, cx).map(|()| None),
            }
        })
        .await
    }

    /// The next frame of the answer, which `incoming` is the body of.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Polled first, since the driver reads only for a body that is polled.
        let mut next = Pin::new(&mut *incoming).poll_frame(&mut unwoken());
        if next.is_pending() {
            drive(&mut self.driver, cx);
            next = Pin::new(incoming).poll_frame(&mut unwoken());
        }
        next
    }

    /// Whether it takes a request: the last answer is read to its end, and the other side keeps it open as far as is
    /// known.
    pub(super) fn is_free(&mut self) -> bool {
        drive(&mut self.driver, &mut unwoken());
        self.driver.is_some() && self.requests.is_ready()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

/// Ready at the deadline.
fn ring(mut alarm: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if deadline < alarm.deadline() {
        alarm.as_mut().reset(deadline);
    }
    loop {
        ready!(alarm.as_mut().poll(cx));
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        // It was set for an earlier request.
        alarm.as_mut().reset(deadline);
    }
}

/// Reads and writes as far as that goes now; `cx` is woken when it goes on.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(open) = driver
        && Pin::new(open).poll(cx).is_ready()
    {
        // Its error reaches the request that waits for an answer, and no other.
        *driver = None;
    }
}

/// For requests that are repeated anyway.
fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
