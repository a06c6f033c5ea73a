//! The bodies of requests: read whole, since a query is text and small, and bounded one by one and together.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use crate::base::{ErrorKind, duration, units};
use crate::http::{ByteBudget, ByteShare};
use crate::proxy::{respond::failure::Failure, route::Endpoint};

/// Longest wait for a request's body.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// A body announced to be no longer takes nothing of the large ones' budget: the number of connections bounds it.
/// No query is longer.
const SMALL: u64 = 64 << 10;
/// Bytes that all large bodies hold together, from their first byte to the end of their request.
const LARGE_TOGETHER: usize = 64 << 20;
/// Bytes of a body that are read and dropped once it is refused: a client that is cut off while it writes may never read why.
const DROPPED_MAX: usize = 16 << 20;

/// The memory of the large bodies of all requests.
#[derive(Debug)]
pub(in crate::proxy) struct Bodies(ByteBudget);

/// A body and its share, given back when its last reader is done.
struct Held {
    bytes: Bytes,
    _share: ByteShare,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    pub(in crate::proxy) fn new() -> Self {
        Self(ByteBudget::new(LARGE_TOGETHER))
    }

    /// Bytes that large bodies may hold now, of how many.
    pub(in crate::proxy) fn taken(&self) -> (usize, usize) {
        self.0.taken()
    }

    /// The whole body of a request, of at most `max` bytes.
    pub(in crate::proxy) async fn read<B>(&self, body: B, max: usize) -> Result<Bytes, Failure>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let before = Instant::now() + BODY_WAIT;
        let announced = body.size_hint().upper();
        if announced.is_some_and(|length| length <= SMALL) {
            return Box::pin(whole(body, max, before)).await;
        }
        // One that is refused anyway holds nothing; one that says nothing of its length may become the longest.
        let most = usize::try_from(announced.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(max);
        if announced.is_some_and(|length| length > max as u64) {
            Box::pin(async move { drop_rest(pin!(body), before).await }).await;
            return Err(too_long(max));
        }
        // Where `request_body` allows one that is larger than the share, it comes alone.
        let Ok(share) = timeout_at(before, self.0.take(most)).await else {
            let together = units::bytes(LARGE_TOGETHER as u64);
            return Err(Failure::new(
                ErrorKind::QueueFull,
                format!("too many large request bodies at a time: all together hold at most {together}"),
            ));
        };
        let bytes = Box::pin(whole(body, max, before)).await?;
        Ok(Bytes::from_owner(Held { bytes, _share: share }))
    }
}

async fn whole<B>(body: B, max: usize, before: Instant) -> Result<Bytes, Failure>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(body);
    match timeout_at(before, Limited::new(body.as_mut(), max).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drop_rest(body, before).await;
            Err(too_long(max))
        }
        Ok(Err(error)) => {
            Err(Failure::new(ErrorKind::BadData, format!("the request body broke off: {error}")))
        }
        Err(_) => {
            let wait = duration::text(BODY_WAIT);
            Err(Failure::new(ErrorKind::BodyLate, format!("the request body did not arrive within {wait}")))
        }
    }
}

/// Reads and drops the rest of a body, as far as [`DROPPED_MAX`] goes.
async fn drop_rest<B: http_body::Body<Data = Bytes>>(mut body: Pin<&mut B>, before: Instant) {
    let mut left = DROPPED_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(less) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = less;
        }
    };
    // The client is answered in time, whether it still writes or not.
    let _late = timeout_at(before, reading).await;
}

fn too_long(max: usize) -> Failure {
    let max = units::bytes(max as u64);
    Failure::new(
        ErrorKind::BodyTooLarge,
        format!("the request body is longer than {max} (server.request_body)"),
    )
}

/// For a request whose parameters are in a body that no database reads.
pub(super) const NO_FORM: &str = "the parameters are missing: a body must be a form, of the content type application/x-www-form-urlencoded";

/// The body as a form, if every database reads it as one.
pub(in crate::proxy) fn form<'b>(
    headers: &HeaderMap,
    endpoint: Endpoint,
    body: &'b Bytes,
) -> Result<&'b str, Failure> {
    if body.is_empty() || endpoint == Endpoint::RemoteRead {
        return Ok("");
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media = content_type.split(';').next().unwrap_or("").trim();
    if !media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        // No database looks for parameters in JSON or text. Go's servers do in forms of several parts, and we cannot.
        let is_read_by_some = media.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
        let message = "the content type must be application/x-www-form-urlencoded, not multipart";
        return if is_read_by_some { Err(Failure::new(ErrorKind::BadData, message)) } else { Ok("") };
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Failure::new(
            ErrorKind::BadData,
            "a compressed form is not read: send it without Content-Encoding",
        ));
    }
    std::str::from_utf8(body).map_err(|_| Failure::new(ErrorKind::BadData, "the form is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::Pin, task};

    use http_body::{Frame, SizeHint};

    use super::*;

    /// A body that announces `announced` bytes and ends early.
    struct Announced {
        length: Option<u64>,
        comes: Option<Bytes>,
        ends: bool,
    }

    impl http_body::Body for Announced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.comes.take() {
                Some(bytes) => task::Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None if self.ends => task::Poll::Ready(None),
                None => task::Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    const MAX: usize = 1 << 20;

    fn body(length: Option<u64>, comes: usize, ends: bool) -> Announced {
        Announced { length, comes: Some(Bytes::from(vec![b'a'; comes])), ends }
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_share_and_small_ones_do_not_wait_for_them() {
        let bodies = Bodies::new();
        let mut held = Vec::new();
        for _ in 0..64 {
            // Of unknown length: each may become as long as any may.
            held.push(bodies.read(body(None, 10, true), MAX).await.unwrap());
        }
        assert_eq!(bodies.taken(), (LARGE_TOGETHER, LARGE_TOGETHER));
        assert_eq!(bodies.read(body(Some(SMALL), 9, true), MAX).await.unwrap().len(), 9);
        let began = Instant::now();
        let refused = bodies.read(body(None, 10, true), MAX).await.unwrap_err();
        assert_eq!((refused.kind, began.elapsed()), (ErrorKind::QueueFull, BODY_WAIT));
        held.pop();
        let slow = bodies.read(body(None, 10, false), MAX).await.unwrap_err();
        assert_eq!((slow.kind, began.elapsed()), (ErrorKind::BodyLate, 2 * BODY_WAIT));
        drop(held);
        assert_eq!(bodies.taken().0, 0);
    }

    #[tokio::test]
    async fn a_share_is_held_as_long_as_the_body() {
        let bodies = Bodies::new();
        let whole = bodies.read(body(Some(100_000), 100_000, true), MAX).await.unwrap();
        let sent_on = whole.slice(10..);
        drop(whole);
        assert_eq!(bodies.taken().0, 98 << 10);
        drop(sent_on);
        assert_eq!(bodies.taken().0, 0);
        let long = bodies.read(body(Some(2 << 20), 10, false), MAX).await.unwrap_err();
        assert_eq!((long.kind, bodies.taken().0), (ErrorKind::BodyTooLarge, 0));
        let long = bodies.read(body(None, MAX + 1, true), MAX).await.unwrap_err();
        assert_eq!((long.kind, bodies.taken().0), (ErrorKind::BodyTooLarge, 0));
    }
}
