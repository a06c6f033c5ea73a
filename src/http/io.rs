//! The bytes of one connection on their way between the socket and the HTTP parser.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{activity::Activity, reject::Rejection};

/// A stream that notes in [`Activity`] how far the connection is.
///
/// The parser answers a head that it cannot read by itself, without a body. Such an answer is the only one that is
/// written while no request is being answered; a [`Rejection`] is written in its place.
#[derive(Debug)]
pub(super) struct ClientIo<I> {
    io: I,
    activity: Arc<Activity>,
    /// The rest of the answer that replaces the parser's.
    rejection: Option<Vec<u8>>,
}

impl<I> ClientIo<I> {
    pub(super) const fn new(io: I, activity: Arc<Activity>) -> Self {
        Self { io, activity, rejection: None }
    }

    /// The stream, if the parser refused its bytes.
    pub(super) fn rejected(self) -> Option<I> {
        self.rejection.is_some().then_some(self.io)
    }

    /// Whether these bytes are the parser's own answer, which is not sent.
    fn rejects(&mut self, bytes: &[u8]) -> bool {
        if self.rejection.is_none() && !self.activity.is_answering() {
            self.rejection = Rejection::of_parser(bytes).map(Rejection::bytes);
        }
        self.rejection.is_some()
    }
}

impl<I: AsyncWrite + Unpin> ClientIo<I> {
    fn poll_rejection(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.rejection.as_mut().filter(|left| !left.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            left.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ClientIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        self.activity.read();
        Poll::Ready(read)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ClientIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.rejects(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.activity.writes(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.first().is_some_and(|first| self.rejects(first)) {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        self.activity.writes(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Asked for when nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rejection(cx))?;
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.activity.writes(flushed.is_ready());
        ready!(flushed)?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rejection(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
