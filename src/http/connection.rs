//! HTTP/1 on one connection.

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::{Instant, Sleep, sleep_until, timeout},
};
use tower::{Service, ServiceExt as _, util::Oneshot};

use super::{
    activity::{Activity, signal},
    client_certificate::ClientCertificate,
    connections::Place,
    deadline::Timed,
    escape_request_line::EscapeRequestLine,
    io::ClientIo,
    reject::{HEAD_BYTES_MAX, Rejection, check_host},
    timeouts::Timeouts,
};

/// Paths that are answered even on a spare place: a health check says that the process lives, however busy it is.
const HEALTH_PATHS: [&str; 2] = ["/-/healthy", "/-/ready"];
/// The rest of a refused request is read for this long: a connection closed with unread bytes is reset, and the refusal
/// may never be seen.
const LINGER: Duration = Duration::from_secs(1);
/// The most bytes of that rest.
const LINGER_BYTES: usize = 2 << 20;

/// Answers on a connection until its client is done, a timeout or a deadline is over, or the connection has to end and
/// no answer is under way. Requests carry the client's certificate, if it showed one. When a connection breaks, its requests
/// in flight are dropped.
pub(super) async fn serve_connection<I, S, B>(
    io: I,
    service: S,
    place: &Place,
    timeouts: Timeouts,
    certificate: Option<Arc<ClientCertificate>>,
) where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let activity = &place.activity;
    let io = ClientIo::new(EscapeRequestLine::new(io), Arc::clone(activity));
    // Never borrowed for longer than a call.
    let service = RefCell::new(service);
    let answer = move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(Arc::clone(certificate));
        }
        activity.asked();
        let answer = match check(&request, place) {
            Ok(()) => Answer::called(&mut *service.borrow_mut(), request),
            Err(rejection) => Answer::Rejected { rejection },
        };
        Answering { answer, activity: Arc::clone(activity) }
    };
    let mut connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service_fn(answer));
    let mut watch = Watch::new(activity, timeouts, place.idle);
    let mut ends = false;
    let is_done = poll_fn(|cx| {
        activity.register(cx);
        loop {
            if Pin::new(&mut connection).poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            if watch.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            if ends || !activity.is_signalled(signal::END) {
                return Poll::Pending;
            }
            if !activity.is_answering() {
                return Poll::Ready(false);
            }
            ends = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    });
    if is_done.await
        && let Some(io) = connection.into_parts().io.into_inner().rejected()
    {
        let ended = poll_fn(|cx| activity.poll_end(cx));
        tokio::select! {
            () = linger(io) => {}
            () = ended => {}
        }
    }
}

fn check(request: &Request<Incoming>, place: &Place) -> Result<(), Rejection> {
    check_host(request)?;
    if HEALTH_PATHS.contains(&request.uri().path()) || place.is_full() {
        return Ok(());
    }
    Err(Rejection::NoConnection(
        "all connections, or all of this client's share, are in use (max and per_client of `connections` in the configuration)",
    ))
}

async fn linger(mut io: impl AsyncRead + Unpin) {
    let reading = async {
        let (mut bytes, mut read) = ([0; 4 << 10], 0);
        while let Ok(more @ 1..) = io.read(&mut bytes).await
            && read < LINGER_BYTES
        {
            read += more;
        }
    };
    // Over in time or not, the connection ends.
    let _ = timeout(LINGER, Box::pin(reading)).await;
}

/// Ends a connection whose client is too slow, or whose response is over its deadline. One timer, which is set anew when
/// it fires or fires too late: a request that is answered at once never touches it.
struct Watch<'a> {
    activity: &'a Activity,
    timeouts: Timeouts,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    deadline: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<'a> Watch<'a> {
    fn new(activity: &'a Activity, timeouts: Timeouts, idle: Duration) -> Self {
        let timer = Box::pin(sleep_until(Instant::now() + timeouts.head));
        Self { activity, timeouts, idle, timer, deadline: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Timed(deadline)) = self.activity.take_deadline() {
            self.deadline = Some(Box::pin(async move { (*deadline).as_ref().expired().await }));
        }
        if !self.activity.is_answering() {
            self.deadline = None;
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        loop {
            let due = self.activity.due(&self.timeouts, self.idle);
            if let Some(due) = due.filter(|due| *due < self.timer.deadline()) {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            match due {
                Some(due) if due <= Instant::now() => return Poll::Ready(()),
                // A later event is due later than this.
                due => {
                    let next = Instant::now() + self.idle.max(self.timeouts.stalled);
                    self.timer.as_mut().reset(due.unwrap_or(next));
                }
            }
        }
    }
}

pin_project! {
    /// The answer to one request, on its way.
    struct Answering<S, R> where S: Service<R> {
        #[pin]
        answer: Answer<S, R>,
        activity: Arc<Activity>,
    }
}

pin_project! {
    #[project = AnswerState]
    enum Answer<S, R> where S: Service<R> {
        Rejected { rejection: Rejection },
        Running { #[pin] future: S::Future },
        Waiting { #[pin] future: Oneshot<S, R> },
    }
}

impl<S: Service<R> + Clone, R> Answer<S, R> {
    /// A service that is ready, as nearly all are at any time, is called itself: a copy costs reference counts that all
    /// threads write to.
    fn called(service: &mut S, request: R) -> Self {
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Running { future: service.call(request) },
            _ => Self::Waiting { future: service.clone().oneshot(request) },
        }
    }
}

impl<S, R, B> Future for Answering<S, R>
where
    S: Service<R, Response = Response<B>, Error = Infallible>,
{
    type Output = Result<Response<AnswerBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.answer.project() {
            AnswerState::Rejected { rejection } => Err(*rejection),
            AnswerState::Running { future } => Ok(future.poll(cx)),
            AnswerState::Waiting { future } => Ok(future.poll(cx)),
        };
        let rejection = match polled {
            Err(rejection) => rejection,
            Ok(Poll::Ready(Ok(mut response))) => {
                if let Some(deadline) = response.extensions_mut().remove::<Timed>() {
                    this.activity.set_deadline(deadline);
                }
                let body = |body| AnswerBody::new(Either::Left(body), this.activity);
                return Poll::Ready(Ok(response.map(body)));
            }
            Ok(Poll::Pending) if this.activity.is_signalled(signal::GRACE_OVER) => Rejection::GraceOver,
            Ok(Poll::Pending) => return Poll::Pending,
        };
        let body = |body| AnswerBody::new(Either::Right(body), this.activity);
        Poll::Ready(Ok(rejection.response().map(body)))
    }
}

pin_project! {
    /// The body of an answer; the answer's last bytes are under way when it is dropped.
    struct AnswerBody<B> {
        #[pin]
        body: Either<B, Full<Bytes>>,
        end: NoteEnd,
    }
}

struct NoteEnd(Arc<Activity>);

impl Drop for NoteEnd {
    fn drop(&mut self) {
        self.0.answered();
    }
}

impl<B> AnswerBody<B> {
    fn new(body: Either<B, Full<Bytes>>, activity: &Arc<Activity>) -> Self {
        Self { body, end: NoteEnd(Arc::clone(activity)) }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
