//! HTTP/1 on one connection.

use std::{convert::Infallible, error::Error, pin::pin, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::stage::{Answer, Stage, Watched};

/// How long a client may leave its connection unused.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A connection on which no request begins for so long is closed.
    pub idle: Duration,
    /// A client that takes no byte of its answer for so long is given up; it holds what its answer does.
    pub stalled: Duration,
}

impl Default for Patience {
    /// Idle for longer than the 90 seconds after which Go's clients, Grafana's among them, close connections themselves.
    fn default() -> Self {
        Self { idle: Duration::from_secs(95), stalled: Duration::from_secs(30) }
    }
}

/// The head of a request is there so long after its first byte, the first one so long after the connection; half a head
/// is nobody's answer, and takes the place of one.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of a request head, and of the buffer an answer is written from.
const BUFFER: usize = 64 << 10;

/// Answers on a connection until its client is done, or patience with it is over; after `ending` only what was asked
/// before.
///
/// A connection that breaks is its client's affair; what was in flight on it settles by being dropped.
pub async fn carry<I, B, F>(
    io: I,
    patience: Patience,
    ending: CancellationToken,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    I: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<B>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let stage = Stage::new();
    let mut io = TimeoutStream::new(Watched::new(io, stage.clone(), HEAD_TIME));
    io.set_write_timeout(Some(patience.stalled));
    let watched = stage.clone();
    let service = service_fn(move |request| {
        watched.asked();
        let (answering, stage) = (answer(request), watched.clone());
        async move { Ok::<_, Infallible>(answering.await.map(|body| Answer::new(body, stage))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.idle)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(Box::pin(io)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // In this order: what has come already is asked before.
        biased;
        _ = connection.as_mut() => return,
        () = ending.cancelled() => {}
    }
    if stage.answering() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
