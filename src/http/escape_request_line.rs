//! Takes URLs as people type them: `curl -g 'http://host/api/v1/query?query=up{job="x"}'`.
//!
//! The preface of HTTP/2 gets another version: the parser refuses that with an answer, and the preface without one.
//!
//! Quotes and angle brackets are no part of a URL, and the HTTP parser refuses them; Prometheus does not. They are escaped
//! here, in the first line of a connection only: programs, which ask more than once, escape by themselves.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at a time until the first line has ended.
const PIECE: usize = 4 << 10;

/// How HTTP/2 begins, up to the number of its version.
const PREFACE: &[u8] = b"PRI * HTTP/";

/// A stream whose first line is made fit for a parser of URLs.
#[derive(Debug)]
pub(super) struct EscapeRequestLine<S> {
    inner: S,
    /// The first line has not ended yet.
    first: bool,
    /// Bytes of [`PREFACE`] that it began with.
    preface: usize,
    /// Read and not yet given on.
    escaped: Vec<u8>,
}

impl<S> EscapeRequestLine<S> {
    pub(super) const fn new(inner: S) -> Self {
        Self { inner, first: true, preface: 0, escaped: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.escaped.clear();
        for &byte in bytes {
            self.first &= byte != b'\n';
            let is_version = self.preface == PREFACE.len();
            // A preface that differs once stays different.
            self.preface = match PREFACE.get(self.preface) {
                Some(next) if *next == byte => self.preface + 1,
                _ => usize::MAX,
            };
            match byte {
                b'2' if is_version => self.escaped.push(b'9'),
                b'"' if self.first => self.escaped.extend(b"%22"),
                b'<' if self.first => self.escaped.extend(b"%3C"),
                b'>' if self.first => self.escaped.extend(b"%3E"),
                byte => self.escaped.push(byte),
            }
        }
    }

    fn give(&mut self, to: &mut ReadBuf<'_>) {
        let length = self.escaped.len().min(to.remaining());
        to.put_slice(&self.escaped[..length]);
        self.escaped.drain(..length);
        if self.escaped.is_empty() && !self.first {
            self.escaped = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for EscapeRequestLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.escaped.is_empty() {
            if !this.first {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
            this.take(piece.filled());
        }
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EscapeRequestLine<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_first_line_is_escaped_and_nothing_else() {
        let text = "GET /q?query=up{a=\"b\"}>0<1 HTTP/1.1\r\nA: \"<\"\r\n\r\nGET /\"";
        let expected = "GET /q?query=up{a=%22b%22}%3E0%3C1 HTTP/1.1\r\nA: \"<\"\r\n\r\nGET /\"";
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let cases = [(text, expected), (preface, "PRI * HTTP/9.0\r\n\r\nSM\r\n\r\n")];
        for (piece, (text, expected)) in
            [1, 7, 1_000].into_iter().flat_map(|piece| cases.map(|case| (piece, case)))
        {
            for room in [1, 5, 10_000] {
                let (mut client, server) = tokio::io::duplex(16);
                let mut server = EscapeRequestLine::new(server);
                let write = async {
                    for part in text.as_bytes().chunks(piece) {
                        client.write_all(part).await.unwrap();
                    }
                    drop(client);
                };
                let read = async {
                    let (mut all, mut some) = (Vec::new(), vec![0; room]);
                    loop {
                        match server.read(&mut some).await.unwrap() {
                            0 => return String::from_utf8(all).unwrap(),
                            n => all.extend(&some[..n]),
                        }
                    }
                };
                assert_eq!(tokio::join!(write, read).1, expected, "{piece} {room}");
            }
        }
    }
}
