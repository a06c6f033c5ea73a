//! The body that a metered answer streams through.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Actual, AnswerMeter, CutOff, EndRecord, Outcome, Progress};
use crate::limit::LimitName;

/// Most bytes held back by [`MeteredBody::peek`]; at least one frame is, whatever its size.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// The same for a list, which is judged whole as far as that goes: some 5,000 label sets.
const HELD_LIST_BYTES_MAX: usize = 1 << 20;

/// Why a metered answer broke off. Hyper closes the connection on it, so that no client takes a part for the whole.
#[derive(Debug)]
pub enum BodyError<E> {
    /// The backend's body failed.
    Upstream(E),
    /// A limit was hit after the first byte was sent.
    CutOff(CutOff),
}

impl<E: fmt::Display> fmt::Display for BodyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(error) => write!(f, "the backend broke off its answer: {error}"),
            Self::CutOff(cut) => cut.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for BodyError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream(error) => Some(error),
            Self::CutOff(cut) => Some(cut),
        }
    }
}

/// Why nothing of an answer was sent: there is still time for a clean error response.
pub type Unsent<E> = BodyError<E>;

type Polled<E> = Poll<Option<Result<Frame<Bytes>, BodyError<E>>>>;

/// A body that counts its frames and passes them on.
///
/// States: streaming => ended, by the last frame (`Complete`), an error (`Failed`), a limit (`CutOff`) or its own drop
/// (`Dropped`). On each of them the backend's body is dropped first, which cancels the query there, and only then is
/// the cost settled: a budget is never free while the backend still works on it.
#[derive(Debug)]
pub struct MeteredBody<B: Body> {
    /// `None` once ended.
    upstream: Option<B>,
    meter: AnswerMeter,
    /// Frames that `peek` took: counted, not yet handed on.
    held: VecDeque<Frame<Bytes>>,
    /// Taken from upstream, not yet counted to its end.
    current: Option<Bytes>,
    /// Upstream said that it ended; it is not asked again.
    upstream_ended: bool,
}

impl<B: Body> MeteredBody<B> {
    pub(super) fn new(meter: AnswerMeter, body: B) -> Self {
        Self { upstream: Some(body), meter, held: VecDeque::new(), current: None, upstream_ended: false }
    }

    fn end(&mut self, outcome: Outcome) {
        self.upstream = None;
        self.current = None;
        self.held.clear();
        if outcome == Outcome::Complete {
            self.meter.counter.finish();
        }
        self.meter.end(outcome);
    }

    /// Ends as complete when nothing is left: hyper does not poll on after the last byte of a known length.
    fn end_if_drained(&mut self) {
        if self.upstream.is_some() && self.is_drained() {
            self.end(Outcome::Complete);
        }
    }

    /// Ends when nothing is left, or notes whether the client was handed something.
    fn end_or_note(&mut self, some: bool) {
        if some {
            self.end_if_drained();
        }
        if self.upstream.is_some() {
            self.meter.progress.handed(some);
        }
    }

    fn is_drained(&self) -> bool {
        self.has_come() && self.held.is_empty()
    }

    /// Whether the backend has given all of it, and all of that was counted.
    fn has_come(&self) -> bool {
        let upstream_ended = self.upstream_ended || self.upstream.as_ref().is_none_or(B::is_end_stream);
        upstream_ended && self.current.is_none()
    }

    /// Its progress, if it is still under way.
    pub(in crate::proxy) fn to_come(&self) -> Option<&Arc<Progress>> {
        Some(&self.meter.progress).filter(|_| !self.has_come())
    }

    fn cut_off(&mut self, cut: CutOff) -> BodyError<B::Error> {
        self.end(Outcome::CutOff(cut.limit));
        BodyError::CutOff(cut)
    }
}

impl<B: Body<Data = Bytes> + Unpin> MeteredBody<B> {
    /// Looks ahead before the first byte is sent: the announced length and the first frames, as far as
    /// they are there already. Waits for the first frame only, and of a list for all of it.
    ///
    /// # Errors
    /// A limit is hit or the backend failed: nothing was sent, and the meter has ended.
    pub async fn peek(mut self: Box<Self>) -> Result<Box<Self>, Unsent<B::Error>> {
        let announced = self.upstream.as_ref().and_then(|body| body.size_hint().exact());
        if let (Some(observed), Some(max)) = (announced, self.meter.limits.bytes)
            && observed > max.get()
        {
            let came = Actual::default();
            return Err(self.cut_off(CutOff {
                limit: LimitName::MaxResponse,
                observed,
                max: max.get(),
                came,
            }));
        }
        let waits = self.meter.before_the_first_byte;
        let max = if waits { HELD_LIST_BYTES_MAX } else { HELD_BYTES_MAX };
        let mut bytes = 0;
        while bytes < max {
            let first = self.held.is_empty();
            let next = poll_fn(|cx| match self.poll_counted(cx) {
                Poll::Pending if !first && !waits => Poll::Ready(None),
                polled => polled,
            });
            let Some(frame) = next.await.transpose()? else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            self.held.push_back(frame);
        }
        if waits {
            (self.meter.limits.series, self.meter.limits.points) = (None, None);
        }
        Ok(self)
    }

    /// Its end goes on record there; the client sees this status.
    pub(in crate::proxy) fn log_to(&mut self, log: Box<dyn EndRecord>, status: u16) {
        self.meter.log = Some((log, status));
    }

    /// The totals of the answer, if [`Self::peek`] found all of it: its cost is known before its first byte is sent.
    pub fn total_if_complete(&mut self) -> Option<Actual> {
        if !self.has_come() {
            return None;
        }
        self.meter.counter.finish();
        Some(self.meter.counter.actual(true))
    }

    /// The next frame, counted and within the limits; `None` at the end, which is not yet acted upon.
    fn poll_counted(&mut self, cx: &mut Context<'_>) -> Polled<B::Error> {
        if self.current.is_none() {
            let Some(upstream) = self.upstream.as_mut().filter(|_| !self.upstream_ended) else {
                return Poll::Ready(None);
            };
            let frame = match ready!(Pin::new(upstream).poll_frame(cx)) {
                None => {
                    self.upstream_ended = true;
                    self.meter.progress.backend_done(true);
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.end(Outcome::Failed);
                    return Poll::Ready(Some(Err(BodyError::Upstream(error))));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    self.meter.counter.load(&data);
                    self.meter.progress.came(data.len() as u64);
                    self.current = Some(data);
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        if let Some(cancelled) = self.meter.progress.cancelled() {
            let (limit, came) = (cancelled.limit(), self.meter.counter.actual(false));
            return Poll::Ready(Some(Err(self.cut_off(CutOff { limit, observed: 0, max: 0, came }))));
        }
        let used_up = self.meter.counter.turn();
        if let Some(cut) = self.meter.counter.over(&self.meter.limits) {
            return Poll::Ready(Some(Err(self.cut_off(cut))));
        }
        if !used_up {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.current.take().map(|data| Ok(Frame::data(data))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for MeteredBody<B> {
    type Data = Bytes;
    type Error = BodyError<B::Error>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(frame) = this.held.pop_front() {
            this.end_or_note(true);
            return Poll::Ready(Some(Ok(frame)));
        }
        let next = this.poll_counted(cx);
        this.end_or_note(next.is_ready());
        next
    }

    fn is_end_stream(&self) -> bool {
        self.is_drained()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.iter().filter_map(Frame::data_ref).chain(&self.current);
        let held: u64 = held.map(|data| data.len() as u64).sum();
        let left = self.upstream.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(held.saturating_add(left.lower()));
        if let Some(upper) = left.upper().and_then(|upper| upper.checked_add(held)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Body> Drop for MeteredBody<B> {
    fn drop(&mut self) {
        // An empty answer is never polled.
        self.end_if_drained();
        let progress = &self.meter.progress;
        self.end(match progress.cancelled() {
            Some(cancelled) => Outcome::CutOff(cancelled.limit()),
            None if progress.is_late() => Outcome::Late,
            None => Outcome::Dropped,
        });
    }
}
