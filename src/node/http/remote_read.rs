//! Remote read: whole series with their samples, for a Prometheus that keeps none of its own.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};

use super::{
    Node,
    error::Failure,
    read_limiter::Turn,
    read_quota::{Counted, explained},
    request::{FORM_BYTES_MAX, peer_of, read_form},
};
use crate::{
    base::ErrorKind,
    node::{
        chunk::bytes::put_varint,
        db::Db,
        engine::{EvalError, Limits, Pools, ReadObserver as _, ReadVolume},
        ingest::{self, ReadQuery},
        pool::{Claim, Loan, PoolExhausted},
        storage::Storage as _,
    },
    series::{Label, Labels, Samples},
};

/// The largest answer before it is packed, bytes: it is made in one piece, as the protocol has it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub(super) async fn read(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    let counted = node.counted(request.headers(), peer_of(&request))?;
    let (packed, _lent) = read_form(&node, request).await?;
    let queries = ingest::read_request(&ingest::unpack(&packed, FORM_BYTES_MAX)?)?;
    let (db, pools, limits) = (Arc::clone(&node.db), node.pools.engine.clone(), node.settings().limits);
    let run = move |turn: Turn<'_>| {
        let (pools, counted) = (pools.clone(), counted.clone());
        answer(&db, &queries, &Means { limits, pools, counted, turn })
    };
    let (found, place) = node.reads.run(node.settings().timeout, run).await?;
    let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
    let mut response =
        (headers, Body::from_stream(pieces(found.packed, (found.loan, place)))).into_response();
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

/// The limits of a request, and its source.
struct Means<'a> {
    limits: Limits,
    pools: Pools,
    counted: Option<Arc<Counted>>,
    turn: Turn<'a>,
}

impl Means<'_> {
    /// Asks a pool.
    fn granted<T>(&self, ask: impl FnOnce(Claim<'_>) -> Result<T, PoolExhausted>) -> Result<T, EvalError> {
        let gone = || self.turn.is_over();
        ask(self.turn.claim(&gone)).map_err(EvalError::Exhausted)
    }
}

/// The volume read so far, over all queries of a request.
#[derive(Default)]
struct Used {
    series: u64,
    samples: u64,
}

/// The answer while it is written; its memory is lent before it grows.
struct Output {
    bytes: Vec<u8>,
    loan: Loan,
}

impl Output {
    fn reserve(&mut self, more: usize, means: &Means<'_>) -> Result<(), Failure> {
        let needed = self.bytes.len().saturating_add(more);
        if needed > ANSWER_BYTES_MAX {
            let message =
                format!("the answer is larger than {ANSWER_BYTES_MAX} bytes; ask for less at a time");
            return Err(Failure::new(ErrorKind::LimitExceeded, message));
        }
        if needed > self.bytes.capacity() {
            let capacity = needed.max(2 * self.bytes.capacity()).min(ANSWER_BYTES_MAX);
            // While the bytes move there are both.
            means.granted(|claim| self.loan.grow(capacity as u64, claim))?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
            self.loan.keep_only(capacity as u64);
        }
        Ok(())
    }

    /// Writes the output of `write` as a field that holds a message, whose length is known only afterwards.
    fn message(
        &mut self,
        means: &Means<'_>,
        write: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let start = self.bytes.len();
        self.reserve(HEAD_BYTES, means)?;
        self.bytes.resize(start + HEAD_BYTES, 0);
        write(self)?;
        let mut head = vec![1 << 3 | 2];
        put_varint((self.bytes.len() - start - HEAD_BYTES) as u64, &mut head);
        let end = self.bytes.len();
        self.bytes.copy_within(start + HEAD_BYTES..end, start + head.len());
        self.bytes.truncate(end - HEAD_BYTES + head.len());
        if let Some(place) = self.bytes.get_mut(start..start + head.len()) {
            place.copy_from_slice(&head);
        }
        Ok(())
    }
}

/// Bytes of a field's number and the length of a message, at most.
const HEAD_BYTES: usize = 6;

fn answer(db: &Db, queries: &[ReadQuery], means: &Means<'_>) -> Result<Found, Failure> {
    let mut used = Used::default();
    let mut out = Output { bytes: Vec::new(), loan: means.pools.working.loan() };
    for query in queries {
        out.message(means, |out| result_of(db, query, means, &mut used, out))?;
    }
    let Output { bytes, mut loan } = out;
    let largest = snap::raw::max_compress_len(bytes.len());
    means.granted(|claim| loan.grow(largest as u64, claim))?;
    let mut packed = snap::raw::Encoder::new()
        .compress_vec(&bytes)
        .map_err(|error| Failure::new(ErrorKind::Internal, format!("packing the answer: {error}")))?;
    drop(bytes);
    packed.shrink_to_fit();
    loan.keep_only(packed.capacity() as u64);
    Ok(Found { packed, loan, warnings: db.warnings(queries.iter().map(|query| query.window)) })
}

/// The series of a `QueryResult`, sorted by their labels.
fn result_of(
    db: &Db,
    query: &ReadQuery,
    means: &Means<'_>,
    used: &mut Used,
    out: &mut Output,
) -> Result<(), Failure> {
    if query.matchers.is_empty() {
        // As in Prometheus: a read without matchers gets nothing, not everything.
        return Ok(());
    }
    let selection = db.select(&query.matchers, query.window).map_err(EvalError::from)?;
    // The selection, and the order of its series.
    let mut lists = means.pools.working.loan();
    means.granted(|claim| lists.grow((2 * selection.series() * size_of::<usize>()) as u64, claim))?;
    let mut order: Vec<usize> = (0..selection.series()).collect();
    order.sort_unstable_by(|a, b| selection.labels(*a).cmp(&selection.labels(*b)));
    let mut samples = means.granted(|claim| means.pools.samples.get_unless(0, claim))?;
    for number in order {
        if means.turn.is_over() {
            return Err(EvalError::Canceled.into());
        }
        let expected = selection.expected(number);
        means.granted(|claim| samples.reserve_charge(expected, claim))?;
        samples.clear();
        samples.times.reserve_exact(expected);
        samples.values.reserve_exact(expected);
        let Some(labels) = selection.read(number, &mut samples).map_err(EvalError::from)? else { continue };
        means.granted(|claim| samples.settle(claim))?;
        used.series += 1;
        used.samples += samples.len() as u64;
        if let Some(counted) = &means.counted {
            let (samples, bytes) = (samples.len() as u64, selection.stored_bytes(number));
            let heard = counted.read(ReadVolume { series: 1, samples, bytes });
            heard.map_err(|text| explained(EvalError::Stopped(text), Some(counted)))?;
        }
        let counts =
            [("series", used.series, means.limits.series), ("samples", used.samples, means.limits.samples)];
        if let Some((name, _, max)) = counts.into_iter().find(|(_, count, max)| count > max) {
            return Err(EvalError::Limit { name, max }.into());
        }
        out.reserve(HEAD_BYTES + length_of(labels, &samples), means)?;
        out.message(means, |out| {
            series_into(labels, &samples, &mut out.bytes);
            Ok(())
        })?;
    }
    Ok(())
}

/// At least the bytes of a `TimeSeries`.
fn length_of(labels: &Labels, samples: &Samples) -> usize {
    // A value takes 9 bytes, a time up to 11, and a field around each part up to [`HEAD_BYTES`].
    let sample = 9 + 11 + 2;
    let label = |label: &Label| 3 * HEAD_BYTES + label.name.len() + label.value.len();
    labels.iter().map(label).sum::<usize>() + samples.len() * sample
}

/// Writes a `TimeSeries`.
fn series_into(labels: &Labels, samples: &Samples, out: &mut Vec<u8>) {
    let mut part = Vec::new();
    for label in labels {
        part.clear();
        field(1, label.name.as_bytes(), &mut part);
        field(2, label.value.as_bytes(), &mut part);
        field(1, &part, out);
    }
    for (time, value) in samples.times.iter().zip(&samples.values) {
        part.clear();
        // Field 1, eight bytes; field 2, a number.
        part.push(1 << 3 | 1);
        part.extend_from_slice(&value.to_le_bytes());
        part.push(2 << 3);
        put_varint(*time as u64, &mut part);
        field(2, &part, out);
    }
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
    use crate::node::{
        http::{Settings, read_limiter::ReadLimiter},
        pool::{Cap, Mode},
    };

    #[tokio::test]
    async fn the_place_is_held_until_the_answer_is_taken() {
        let settings = Settings::default();
        let reads = ReadLimiter::new(&settings, Arc::new(Cap::new(Mode::Unbounded)));
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
