//! Remote read: whole series with their samples, for a Prometheus that keeps none of its own.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};

use super::{
    FORM_BYTES_MAX, Node,
    error::Failure,
    peer_of, read_form,
    recent::{Counted, explained},
};
use crate::{
    base::ErrorKind,
    node::{
        chunk::bytes::put_varint,
        db::Db,
        engine::{EvalError, Limits, Pools, Touched, Witness as _},
        ingest::{self, ReadQuery},
        pool::{Gone, Loan, PoolExhausted},
        storage::Storage as _,
    },
    series::{Labels, Samples},
};

/// The largest answer before it is packed, bytes: it is made in one piece, as the protocol has it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) async fn read(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    let counted = node.counted(request.headers(), peer_of(&request))?;
    let packed = read_form(request.into_body()).await?;
    let queries = ingest::read_request(&ingest::unpack(&packed, FORM_BYTES_MAX)?)?;
    let (db, pools, limits) = (Arc::clone(&node.db), node.pools.engine.clone(), node.settings.limits);
    let run = move |cancel: &AtomicBool| answer(&db, &queries, &Means { limits, pools, counted, cancel });
    let (found, place) = node.reads.run(node.settings.timeout, run).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
    let mut response =
        (headers, Body::from_stream(pieces(found.packed, (place, found.loan)))).into_response();
    // The protocol has no place for warnings.
    if let Ok(value) = HeaderValue::try_from(found.warnings.join("; "))
        && !value.is_empty()
    {
        response.headers_mut().insert(WARNINGS, value);
    }
    Ok(response)
}

/// Says which times a damaged block leaves out.
const WARNINGS: HeaderName = HeaderName::from_static("weir-warnings");
/// Bytes that are handed over at a time.
const PIECE: usize = 64 << 10;

/// A packed answer.
struct Found {
    packed: Vec<u8>,
    loan: Loan,
    warnings: Vec<String>,
}

/// The answer piece by piece, so that its place is held until all but the last piece is sent.
fn pieces<H>(packed: Vec<u8>, held: H) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let left = (Bytes::from(packed), held);
    stream::unfold(left, async |(mut left, held)| {
        let piece = left.split_to(left.len().min(PIECE));
        (!piece.is_empty()).then_some((Ok(piece), (left, held)))
    })
}

/// What a request may take, and from where.
struct Means<'a> {
    limits: Limits,
    pools: Pools,
    counted: Option<Arc<Counted>>,
    cancel: &'a AtomicBool,
}

impl Means<'_> {
    fn gone(&self) -> bool {
        self.cancel.load(Relaxed)
    }

    /// Asks a pool.
    fn granted<T>(&self, ask: impl FnOnce(Gone<'_>) -> Result<T, PoolExhausted>) -> Result<T, EvalError> {
        ask(&|| self.gone()).map_err(EvalError::Exhausted)
    }
}

/// An answer is held as series, then as their list, then as the whole, and packed: at most so often at once.
const COPIES: u64 = 3;

/// What has been read so far, over all queries of a request.
struct Used {
    series: u64,
    samples: u64,
    bytes: usize,
    loan: Loan,
}

fn answer(db: &Db, queries: &[ReadQuery], means: &Means<'_>) -> Result<Found, Failure> {
    let mut used = Used { series: 0, samples: 0, bytes: 0, loan: means.pools.working.loan() };
    let mut out = Vec::new();
    for query in queries {
        let result = result_of(db, query, means, &mut used)?;
        field(1, &result, &mut out);
    }
    let packed = snap::raw::Encoder::new()
        .compress_vec(&out)
        .map_err(|error| Failure::new(ErrorKind::Internal, format!("packing the answer: {error}")))?;
    drop(out);
    used.loan.keep_only(packed.len() as u64);
    Ok(Found { packed, loan: used.loan, warnings: db.warnings(queries.iter().map(|query| query.window)) })
}

/// A `QueryResult`, its series sorted by their labels.
fn result_of(db: &Db, query: &ReadQuery, means: &Means<'_>, used: &mut Used) -> Result<Vec<u8>, Failure> {
    if query.matchers.is_empty() {
        // As in Prometheus: who names nothing gets nothing, not everything.
        return Ok(Vec::new());
    }
    let selection = db.select(&query.matchers, query.window).map_err(EvalError::from)?;
    let expected = selection.expected(0);
    let mut samples = means.granted(|gone| means.pools.samples.get_unless(expected, gone))?;
    let mut found: Vec<(Labels, Vec<u8>)> = Vec::new();
    for number in 0..selection.series() {
        if means.gone() {
            return Err(EvalError::Canceled.into());
        }
        let Some(labels) = selection.read(number, &mut samples).map_err(EvalError::from)? else { continue };
        means.granted(|gone| samples.settle(gone))?;
        used.series += 1;
        used.samples += samples.len() as u64;
        if let Some(counted) = &means.counted {
            let (samples, bytes) = (samples.len() as u64, selection.stored_bytes(number));
            let heard = counted.read(Touched { series: 1, samples, bytes });
            heard.map_err(|text| explained(EvalError::Stopped(text), Some(counted)))?;
        }
        let counts =
            [("series", used.series, means.limits.series), ("samples", used.samples, means.limits.samples)];
        if let Some((name, _, max)) = counts.into_iter().find(|(_, count, max)| count > max) {
            return Err(EvalError::Limit { name, max }.into());
        }
        let series = series_of(labels, &samples);
        used.bytes += series.len();
        if used.bytes > ANSWER_BYTES_MAX {
            let message =
                format!("the answer is larger than {ANSWER_BYTES_MAX} bytes; ask for less at a time");
            return Err(Failure::new(ErrorKind::LimitExceeded, message));
        }
        means.granted(|gone| used.loan.grow(COPIES * series.len() as u64, gone))?;
        found.push((labels.clone(), series));
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut out = Vec::new();
    for (_, series) in found {
        field(1, &series, &mut out);
    }
    Ok(out)
}

/// A `TimeSeries`.
fn series_of(labels: &Labels, samples: &Samples) -> Vec<u8> {
    let mut out = Vec::new();
    let mut part = Vec::new();
    for label in labels {
        part.clear();
        field(1, label.name.as_bytes(), &mut part);
        field(2, label.value.as_bytes(), &mut part);
        field(1, &part, &mut out);
    }
    for (time, value) in samples.times.iter().zip(&samples.values) {
        part.clear();
        // Field 1, eight bytes; field 2, a number.
        part.push(1 << 3 | 1);
        part.extend_from_slice(&value.to_le_bytes());
        part.push(2 << 3);
        put_varint(*time as u64, &mut part);
        field(2, &part, &mut out);
    }
    out
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;
    use crate::node::http::{Settings, reads::Reads};

    #[tokio::test]
    async fn the_place_is_held_until_the_answer_is_taken() {
        let settings = Settings::default();
        let reads = Reads::new(&settings);
        let ((), place) = reads.run(settings.timeout, |_| Ok(())).await.unwrap();
        let mut body = std::pin::pin!(pieces(vec![7; 2 * PIECE + 1], place));
        for length in [PIECE, PIECE, 1] {
            assert_eq!(reads.outstanding(), 1);
            assert_eq!(body.next().await.unwrap().unwrap(), vec![7; length]);
        }
        assert!(body.next().await.is_none());
        assert_eq!(reads.outstanding(), 0);
    }
}
