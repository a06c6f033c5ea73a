//! A range query asked in parts of its time, one after the other, and answered as one.

mod merge;

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;

pub use self::merge::NotMergeable;
pub(super) use self::merge::merge_budget;

use self::merge::Matrix;
use super::{
    Backend, BackendError, Body, Outgoing,
    error::Cause,
    fetch::{ReadError, read_at_most},
};
use crate::base::time::{EvalTimes, seconds};

/// A shorter answer is not worth compressing, bytes.
const COMPRESSED_MIN: usize = 1 << 10;

/// How a query is split.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The times of each part, one after the other on the grid of the whole.
    pub times: &'a [EvalTimes],
    /// Most bytes of all answers together.
    pub max_bytes: usize,
    /// A part may be tried twice.
    pub idempotent: bool,
}

/// The end of a query that ran in parts.
#[derive(Debug)]
pub enum Merged {
    /// The answer to the whole; or, as it came, the first error of the backend.
    Answer(Box<Response<Body>>),
    /// There is no answer to the whole yet.
    No(NotMergeable),
}

impl Backend {
    /// Sends the same range query part by part and merges the answers. Otherwise as [`send`](Self::send); the parts
    /// share the deadline, and `ended` is called with the number of those that are answered.
    pub async fn send_in_parts(
        &self,
        whole: &Outgoing,
        parts: &Parts<'_>,
        deadline: Instant,
        ended: impl Fn(usize),
    ) -> Result<Merged, BackendError> {
        let Parts { times, max_bytes, idempotent } = *parts;
        let (mut matrix, mut first) = (Matrix::new(self.kind()), None);
        for (n, times_of_part) in times.iter().enumerate() {
            let part = part(whole, *times_of_part).map_err(|why| self.error(None, Cause::Request(why)))?;
            let answer = self.send(part, deadline, idempotent).await?;
            if answer.status().is_client_error() || answer.status().is_server_error() {
                return Ok(Merged::Answer(Box::new(answer)));
            }
            if answer.status() != StatusCode::OK {
                return Ok(Merged::No(NotMergeable::Odd));
            }
            let (head, body) = answer.into_parts();
            let bytes = match read_at_most(body, max_bytes.saturating_sub(matrix.bytes())).await {
                Ok(bytes) => bytes,
                Err(ReadError::Backend(error)) => return Err(error),
                Err(ReadError::TooLong) => return Ok(Merged::No(NotMergeable::TooLong)),
            };
            // The others will be as long as the first: better to find out now.
            if n == 0 && bytes.len().saturating_mul(times.len()) > max_bytes {
                return Ok(Merged::No(NotMergeable::TooLong));
            }
            let Some(share) = self.merges.try_take(bytes.len()) else {
                return Ok(Merged::No(NotMergeable::NoMemory));
            };
            if let Err(why) = matrix.append(&bytes, *times_of_part) {
                return Ok(Merged::No(why));
            }
            match &mut first {
                None => first = Some((head, share)),
                Some((_, held)) => held.merge(share),
            }
            ended(n + 1);
        }
        let Some((mut head, share)) = first else { return Ok(Merged::No(NotMergeable::Odd)) };
        let compress = accepts_gzip(&whole.headers);
        // Megabytes take tens of milliseconds.
        let written = tokio::task::spawn_blocking(move || write(matrix, compress)).await;
        let Ok(Some((bytes, compressed))) = written else { return Ok(Merged::No(NotMergeable::Odd)) };
        for of_one_part in [header::CONTENT_LENGTH, header::ETAG, header::LAST_MODIFIED] {
            head.headers.remove(of_one_part);
        }
        if compressed {
            head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let whole = Response::from_parts(head, Body::merged(bytes, share));
        Ok(Merged::Answer(Box::new(whole)))
    }
}

/// The merged answer, and whether it is compressed.
fn write(matrix: Matrix, compress: bool) -> Option<(Bytes, bool)> {
    let json = matrix.into_json()?;
    if !compress || json.len() < COMPRESSED_MIN {
        return Some((json.into(), false));
    }
    let mut gzip = GzEncoder::new(Vec::with_capacity(json.len() / 4), Compression::fast());
    gzip.write_all(json.as_bytes()).ok()?;
    Some((gzip.finish().ok()?.into(), true))
}

/// Whether a client takes gzip: named, or covered by `*`, and not with a weight of 0 (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weights = codings.flat_map(|list| list.split(',')).filter_map(|coding| {
        let (name, params) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = params.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f64>().ok())?;
        Some((name.trim().to_ascii_lowercase(), weight))
    });
    let weights: Vec<_> = weights.collect();
    let of = |name: &str| weights.iter().find(|(known, _)| known == name).map(|(_, weight)| *weight);
    of("gzip").or_else(|| of("*")).is_some_and(|weight| weight > 0.0)
}

/// The same request for a part of the time, on the same grid to the millisecond.
fn part(whole: &Outgoing, times: EvalTimes) -> Result<Outgoing, String> {
    let EvalTimes { start, end, step } = times;
    let mut part = whole.clone();
    // A compressed answer could be read only in full.
    part.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let (start, end, step) = (seconds(start), seconds(end), format!("{step}ms"));
    let set = part.set_params(&[("start", &start), ("end", &end), ("step", &step)]);
    set.map(|()| part).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_its_own_times_in_place_of_those_of_the_whole() {
        let whole = Outgoing {
            method: http::Method::GET,
            path_and_query: "/q?query=up&start=0&end=9&step=5".parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let part = part(&whole, EvalTimes { start: -1_500, end: 60_000, step: 4_099 }).unwrap();
        assert_eq!(part.path_and_query, "/q?start=-1.500&end=60.000&step=4099ms&query=up");
    }

    #[test]
    fn gzip_is_taken_where_a_client_says_so() {
        for (text, want) in [
            ("", false),
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0, *", false),
            ("*", true),
            ("identity", false),
        ] {
            let headers = [(header::ACCEPT_ENCODING, text.parse().unwrap())].into_iter().collect();
            assert_eq!(accepts_gzip(&headers), want, "{text}");
        }
    }
}
