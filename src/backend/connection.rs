//! One connection to a replica, driven by whoever waits for its answer.
//!
//! It has no task of its own: a request and its answer pass between client and backend without a switch of tasks, and a
//! connection that is dropped closes at once, which is how a query is cancelled. The price: nobody notices that an
//! idle connection was closed before it is looked at.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
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
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::base::WorkerId;

type Outgoing = Request<Full<Bytes>>;
/// In a box, since it is two kilobytes and moves with every request.
type Driver = Box<http1::Connection<TokioIo<Stream>, Full<Bytes>>>;

/// The bytes below HTTP.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// An open connection that speaks HTTP/1.
pub(super) struct Connection {
    requests: http1::SendRequest<Full<Bytes>>,
    /// What reads and writes; `None` once it has ended.
    driver: Option<Driver>,
    /// The thread whose runtime says when there is something to read.
    pub(super) worker: WorkerId,
}

impl Connection {
    /// Begins HTTP on an open stream.
    pub(super) async fn begin(stream: Stream) -> hyper::Result<Self> {
        let (requests, driver) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        Ok(Self { requests, driver: Some(Box::new(driver)), worker: WorkerId::current() })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn exchange(
        &mut self,
        request: Outgoing,
    ) -> Result<Response<Incoming>, TrySendError<Outgoing>> {
        let mut answer = pin!(self.requests.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            drive(driver, cx);
            // Only the driver can make it ready, and that is asked again whenever there is something to do.
            answer.as_mut().poll(&mut unwoken())
        })
        .await
    }

    /// The next frame of the answer, which `incoming` is the body of.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Asked first, since the driver reads for a body only that somebody wants.
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

/// Reads and writes as far as that goes now; `cx` is woken when it goes on.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(open) = driver
        && Pin::new(open).poll(cx).is_ready()
    {
        // How it ended reaches whoever waits for an answer, and nobody else.
        *driver = None;
    }
}

/// For what is asked again anyway.
fn unwoken() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
