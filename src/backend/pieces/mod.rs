//! A range query asked for in pieces of its time, one after the other, and answered as one.

mod matrix;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, uri::PathAndQuery};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::matrix::Matrix;
use super::{
    Backend, BackendError, Body, Outgoing,
    error::Cause,
    fetch::{ReadError, read_at_most},
};
use crate::base::time::{EvalTimes, seconds};

/// Bytes of JSON that all answers of a backend hold which are being put together or sent on; up to three times as much in
/// memory, while one of many short series is written.
const TOGETHER: usize = 32 << 20;
/// What that is counted in.
const UNIT: usize = 1 << 10;

/// What became of a query that was asked for in pieces.
#[derive(Debug)]
pub enum Joined {
    /// The answer to the whole; or, as it came, the first that was none: an error of the backend.
    Answer(Box<Response<Body>>),
    /// There is no answer to the whole yet.
    No(Unjoined),
}

/// Why pieces were not put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjoined {
    /// They are too long, or too many series: it has to be asked for as a whole.
    TooLong,
    /// One is not of a form that can be put together: it has to be asked for as a whole.
    Odd,
    /// Others hold all that such answers may.
    NoRoom,
}

impl fmt::Display for Unjoined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the answer is too long to be put together",
            Self::Odd => "an answer is not of a form that can be put together",
            Self::NoRoom => "other answers hold all that those in pieces may",
        })
    }
}

/// Room for the answers of one backend.
pub(super) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(TOGETHER / UNIT))
}

impl Backend {
    /// Asks for the same range query, piece by piece, and puts the answers together, of at most `max` bytes in all.
    /// Otherwise as [`send`](Self::send); the pieces share the deadline, and `ended` hears how many there were so far.
    pub async fn send_in_pieces(
        &self,
        whole: &Outgoing,
        pieces: &[EvalTimes],
        deadline: Instant,
        idempotent: bool,
        max: usize,
        ended: impl Fn(usize),
    ) -> Result<Joined, BackendError> {
        let (mut matrix, mut first) = (Matrix::default(), None);
        for (n, times) in pieces.iter().enumerate() {
            let piece = piece(whole, *times).map_err(|why| self.error(None, Cause::Request(why)))?;
            let answer = self.send(piece, deadline, idempotent).await?;
            if answer.status().is_client_error() || answer.status().is_server_error() {
                return Ok(Joined::Answer(Box::new(answer)));
            }
            if answer.status() != StatusCode::OK {
                return Ok(Joined::No(Unjoined::Odd));
            }
            let (head, body) = answer.into_parts();
            let bytes = match read_at_most(body, max.saturating_sub(matrix.bytes())).await {
                Ok(bytes) => bytes,
                Err(ReadError::Backend(error)) => return Err(error),
                Err(ReadError::TooLong) => return Ok(Joined::No(Unjoined::TooLong)),
            };
            // The others will be as long as the first: better to find out now.
            if n == 0 && bytes.len().saturating_mul(pieces.len()) > max {
                return Ok(Joined::No(Unjoined::TooLong));
            }
            let Some(share) = self.share(bytes.len()) else { return Ok(Joined::No(Unjoined::NoRoom)) };
            if let Err(why) = matrix.append(&bytes, *times) {
                return Ok(Joined::No(why));
            }
            match &mut first {
                None => first = Some((head, share)),
                Some((_, held)) => held.merge(share),
            }
            ended(n + 1);
        }
        let (Some((mut head, share)), Some(bytes)) = (first, matrix.into_json()) else {
            return Ok(Joined::No(Unjoined::Odd));
        };
        for of_one_piece in [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED] {
            head.headers.remove(of_one_piece);
        }
        let whole = Response::from_parts(head, Body::joined(Bytes::from(bytes), share));
        Ok(Joined::Answer(Box::new(whole)))
    }

    /// Room for so many bytes more, if there is any now: to wait for it while holding some would be to wait for each other.
    fn share(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        Arc::clone(&self.joins).try_acquire_many_owned(units).ok()
    }
}

/// The same request for a part of the time, on the same grid to the millisecond. The first value of a parameter counts,
/// and the form's before the URL's; there is a form in a POST only.
fn piece(whole: &Outgoing, times: EvalTimes) -> Result<Outgoing, String> {
    let EvalTimes { start, end, step } = times;
    let times = format!("start={}&end={}&step={step}ms", seconds(start), seconds(end));
    let mut piece = whole.clone();
    // What comes compressed could be read only in full.
    piece.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if whole.method == Method::POST && !whole.body.is_empty() {
        piece.body = [times.as_bytes(), b"&", &whole.body].concat().into();
        return Ok(piece);
    }
    let (path, query) = (whole.path_and_query.path(), whole.path_and_query.query());
    let target = match query {
        Some(query) => format!("{path}?{times}&{query}"),
        None => format!("{path}?{times}"),
    };
    piece.path_and_query = PathAndQuery::try_from(target).map_err(|error| error.to_string())?;
    piece.body = Bytes::new();
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn target(method: Method, target: &str, body: &'static str) -> (String, String) {
        let whole = Outgoing {
            method,
            path_and_query: target.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let piece = piece(&whole, EvalTimes { start: -1_500, end: 60_000, step: 4_099 }).unwrap();
        (piece.path_and_query.to_string(), String::from_utf8(piece.body.to_vec()).unwrap())
    }

    #[test]
    fn a_piece_has_its_own_times_before_those_of_the_whole() {
        let times = "start=-1.500&end=60.000&step=4099ms";
        let url = (format!("/q?{times}&query=up&start=0&end=9"), String::new());
        assert_eq!(target(Method::GET, "/q?query=up&start=0&end=9", ""), url);
        // A database reads no form in a GET.
        assert_eq!(target(Method::GET, "/q?query=up&start=0&end=9", "query=up"), url);
        assert_eq!(
            target(Method::POST, "/q?x=1", "query=up&start=0"),
            ("/q?x=1".to_owned(), format!("{times}&query=up&start=0"))
        );
    }
}
