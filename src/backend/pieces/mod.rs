//! A range query asked for in pieces of its time, one after the other, and answered as one.

mod matrix;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, uri::PathAndQuery};
use tokio::time::Instant;

use self::matrix::Matrix;
use super::{
    Backend, BackendError, Body, Outgoing,
    error::Cause,
    fetch::{ReadError, read_at_most},
};
use crate::base::time::EvalTimes;

/// What became of a query that was asked for in pieces.
#[derive(Debug)]
pub enum Joined {
    /// The answer to the whole; or, as it came, the first that was none: an error of the backend.
    Answer(Response<Body>),
    /// Its pieces are too long to be put together, or not of a form that can be: it has to be asked for as a whole.
    No,
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
        let (mut matrix, mut head) = (Matrix::default(), None);
        for (n, times) in pieces.iter().enumerate() {
            let piece = piece(whole, *times).map_err(|why| self.error(None, Cause::Request(why)))?;
            let answer = self.send(piece, deadline, idempotent).await?;
            if answer.status() != StatusCode::OK {
                return Ok(Joined::Answer(answer));
            }
            let (parts, body) = answer.into_parts();
            let bytes = match read_at_most(body, max.saturating_sub(matrix.bytes())).await {
                Ok(bytes) => bytes,
                Err(ReadError::Backend(error)) => return Err(error),
                Err(ReadError::TooLong) => return Ok(Joined::No),
            };
            // The others will be as long as the first: better to find out now.
            let will_fit = n > 0 || bytes.len().saturating_mul(pieces.len()) <= max;
            if !will_fit || matrix.append(&bytes).is_none() {
                return Ok(Joined::No);
            }
            head.get_or_insert(parts);
            ended(n + 1);
        }
        let (Some(mut head), Some(bytes)) = (head, matrix.into_json()) else { return Ok(Joined::No) };
        for of_one_piece in [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED] {
            head.headers.remove(of_one_piece);
        }
        Ok(Joined::Answer(Response::from_parts(head, Body::joined(Bytes::from(bytes)))))
    }
}

/// The same request for a part of the time. The first value of a parameter counts, and the form's before the URL's.
fn piece(whole: &Outgoing, times: EvalTimes) -> Result<Outgoing, String> {
    let times = format!("start={}&end={}", seconds(times.start), seconds(times.end));
    let mut piece = whole.clone();
    // What comes compressed could be read only in full.
    piece.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if whole.body.is_empty() {
        let (path, query) = (whole.path_and_query.path(), whole.path_and_query.query());
        let target = match query {
            Some(query) => format!("{path}?{times}&{query}"),
            None => format!("{path}?{times}"),
        };
        piece.path_and_query = PathAndQuery::try_from(target).map_err(|error| error.to_string())?;
    } else {
        piece.body = [times.as_bytes(), b"&", &whole.body].concat().into();
    }
    Ok(piece)
}

/// Milliseconds as Prometheus reads them.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    fn target(target: &str, body: &'static str) -> (String, String) {
        let whole = Outgoing {
            method: Method::GET,
            path_and_query: target.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let piece = piece(&whole, EvalTimes { start: -1_500, end: 60_000, step: 5 }).unwrap();
        (piece.path_and_query.to_string(), String::from_utf8(piece.body.to_vec()).unwrap())
    }

    #[test]
    fn a_piece_has_its_own_times_before_those_of_the_whole() {
        assert_eq!(
            target("/q?query=up&start=0&end=9", ""),
            ("/q?start=-1.500&end=60.000&query=up&start=0&end=9".to_owned(), String::new())
        );
        assert_eq!(
            target("/q?x=1", "query=up&start=0"),
            ("/q?x=1".to_owned(), "start=-1.500&end=60.000&query=up&start=0".to_owned())
        );
    }
}
