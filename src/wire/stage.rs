//! How far a connection is: whether anybody would miss it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// No request yet, or part of its head.
const HEAD: u8 = 0;
/// A request is being answered.
const ANSWER: u8 = 1;
/// The last of an answer waits to be sent.
const REST: u8 = 2;
/// Between two requests.
const IDLE: u8 = 3;

/// The stage of one connection.
#[derive(Clone, Debug)]
pub(super) struct Stage(Arc<AtomicU8>);

impl Stage {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(HEAD)))
    }

    /// Whether a request came whose answer is not sent to the end.
    pub(super) fn answering(&self) -> bool {
        matches!(self.0.load(Relaxed), ANSWER | REST)
    }

    /// A request is there.
    pub(super) fn asked(&self) {
        self.0.store(ANSWER, Relaxed);
    }

    /// All of a connection is done by one task at a time, so that this is not a race.
    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }
}

/// What is read and written, with an eye on the stage. A head that takes too long is an error.
#[derive(Debug)]
pub(super) struct Watched<I> {
    io: I,
    stage: Stage,
    head_time: Duration,
    late: Pin<Box<Sleep>>,
    /// Whether `late` belongs to the head that is being read.
    timed: bool,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, stage: Stage, head_time: Duration) -> Self {
        Self { io, stage, head_time, late: Box::pin(sleep(head_time)), timed: true }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buffer) {
            if this.stage.step(IDLE, HEAD) {
                this.timed = false;
            }
            return Poll::Ready(read);
        }
        if this.stage.0.load(Relaxed) == HEAD {
            // Only a head that comes in parts costs a timer.
            if !std::mem::replace(&mut this.timed, true) {
                this.late.as_mut().reset(Instant::now() + this.head_time);
            }
            ready!(this.late.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head of a request is late",
            )));
        }
        Poll::Pending
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Asked for when nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.stage.step(REST, IDLE);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

pin_project! {
    /// The body of an answer; the answer's last bytes are under way when it is dropped.
    pub(super) struct Answer<B> {
        #[pin]
        body: B,
        ends: Ends,
    }
}

struct Ends(Stage);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.step(ANSWER, REST);
    }
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, stage: Stage) -> Self {
        Self { body, ends: Ends(stage) }
    }
}

impl<B: http_body::Body> http_body::Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
