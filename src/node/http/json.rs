//! Answers as Prometheus writes them, made piece by piece while they are sent.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::task::{JoinError, spawn_blocking};

use super::{
    number::point,
    number::time,
    pools::Pools,
    read_limiter::{Place, Turn},
};
use crate::{
    base::json::string,
    node::{
        engine::{Answer, Point, Row, Value},
        head::Description,
        index::Count,
        pool::{Lease, Loan, PoolExhausted},
    },
    series::Labels,
};

/// Bytes of the buffer of a piece.
const PIECE: usize = 64 << 10;
/// Bytes at which a piece is sent: the item that passes them has room, so that the buffer does not grow beyond its lease.
const FULL: usize = PIECE - (16 << 10);
/// Pieces of one answer that there are at the same time: one that is being written, one that is being sent.
const PIECES: usize = 2;
/// Bytes for compressing an answer: the tables of deflate, its input and its output.
const COMPRESSION_BYTES: u64 = 400 << 10;

/// The memory for sending one answer, lent before the answer is worked out: one that is under way is the last thing to
/// stop.
#[derive(Clone, Debug)]
pub(super) struct Buffers(Arc<Mutex<Lent>>);

#[derive(Debug)]
struct Lent {
    free: SmallVec<[Lease<Vec<u8>>; PIECES]>,
    _compression: Loan,
}

impl Buffers {
    /// Waits as the pools do, until the read is canceled.
    pub(super) fn lend(pools: &Pools, compressed: bool, turn: Turn<'_>) -> Result<Self, PoolExhausted> {
        let gone = || turn.is_over();
        let claim = turn.claim(&gone);
        let mut compression = pools.engine.working.loan();
        if compressed {
            compression.grow(COMPRESSION_BYTES, claim)?;
        }
        let lease = |_| pools.bytes.get_unless(PIECE, claim);
        let free = (0..PIECES).map(lease).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Mutex::new(Lent { free, _compression: compression }))))
    }

    /// A buffer for the next piece; memory of its own where the connection still holds all of them.
    fn piece(&self) -> Piece {
        let lease = self.0.lock().free.pop();
        Piece {
            own: if lease.is_none() { Vec::with_capacity(PIECE) } else { Vec::new() },
            lease,
            home: self.clone(),
        }
    }
}

/// A piece of an answer, whose buffer goes back for the next one.
struct Piece {
    lease: Option<Lease<Vec<u8>>>,
    own: Vec<u8>,
    home: Buffers,
}

impl Piece {
    fn buffer(&mut self) -> &mut Vec<u8> {
        match &mut self.lease {
            Some(lease) => lease,
            None => &mut self.own,
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.lease.as_deref().unwrap_or(&self.own)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            lease.clear();
            self.home.0.lock().free.push(lease);
        }
    }
}

/// Whether an answer will be compressed, which takes memory of its own.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    accepted.filter_map(|value| value.to_str().ok()).any(|value| value.to_ascii_lowercase().contains("gzip"))
}

/// The resources of an answer while it is sent: the place of its read, buffers, and its memory.
pub(super) struct Sending {
    buffers: Buffers,
    /// The memory goes back before the place.
    _held: (Option<Loan>, Place),
}

impl Sending {
    pub(super) fn new(buffers: Buffers, place: Place, loan: Option<Loan>) -> Self {
        Self { buffers, _held: (loan, place) }
    }
}

/// The part of an answer between its head and its tail.
trait Source: Send + 'static {
    /// Writes until the text is as long as a piece; whether that was all.
    fn fill(&mut self, out: &mut String) -> bool;
}

/// A head, the text between, and a tail.
struct Pieces<S> {
    head: Option<String>,
    source: S,
    tail: Option<String>,
    /// Held to the last byte.
    sending: Sending,
}

impl<S: Source> Iterator for Pieces<S> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let mut piece = self.sending.buffers.piece();
        // An empty buffer is valid text.
        let mut out = String::from_utf8(std::mem::take(piece.buffer())).unwrap_or_default();
        out.push_str(&self.head.take().unwrap_or_default());
        if self.source.fill(&mut out) {
            out.push_str(&self.tail.take().unwrap_or_default());
        }
        *piece.buffer() = out.into_bytes();
        Some(Bytes::from_owner(piece))
    }
}

/// Sends an answer; in one piece, with a length, if it is short.
fn send(head: String, source: impl Source, tail: String, sending: Sending) -> Response {
    let mut pieces = Pieces { head: Some(head), source, tail: Some(tail), sending };
    let first = pieces.next().unwrap_or_default();
    let body = if pieces.tail.is_none() {
        Body::from(first)
    } else {
        Body::from_stream(stream::iter([Ok(first)]).chain(stream::try_unfold(pieces, next_piece)))
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The next piece, written on a thread for blocking work: while millions of numbers were written among the tasks that
/// serve connections, light queries waited for hundreds of milliseconds.
async fn next_piece<S: Source>(mut pieces: Pieces<S>) -> Result<Option<(Bytes, Pieces<S>)>, JoinError> {
    if pieces.tail.is_none() {
        return Ok(None);
    }
    // A panic breaks the answer off.
    let (piece, pieces) = spawn_blocking(move || (pieces.next(), pieces)).await?;
    Ok(piece.map(|piece| (piece, pieces)))
}

/// Items that are short, one after the other.
struct Each<I, W> {
    left: I,
    write: W,
}

impl<I, W> Source for Each<I, W>
where
    I: Iterator + Send + 'static,
    W: FnMut(&mut String, I::Item) + Send + 'static,
{
    fn fill(&mut self, out: &mut String) -> bool {
        while out.len() < FULL {
            let Some(item) = self.left.next() else { return true };
            (self.write)(out, item);
        }
        false
    }
}

/// The same with commas between them.
fn items<I>(items: I, mut write: impl FnMut(&mut String, I::Item) + Send + 'static) -> impl Source
where
    I: IntoIterator<IntoIter: Send + 'static, Item: 'static>,
{
    let mut first = true;
    let write = move |out: &mut String, item| {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write(out, item);
    };
    Each { left: items.into_iter(), write }
}

/// JSON that is there already.
struct Text {
    json: String,
    sent: usize,
}

impl Source for Text {
    fn fill(&mut self, out: &mut String) -> bool {
        let room = FULL.saturating_sub(out.len());
        let end = self.json.floor_char_boundary(self.sent.saturating_add(room));
        out.push_str(self.json.get(self.sent..end).unwrap_or_default());
        self.sent = end;
        end == self.json.len()
    }
}

/// The rows of a matrix, each of which may be longer than a piece.
struct Rows {
    left: std::vec::IntoIter<Row>,
    /// The row that is being written, and the place of its next sample.
    row: Option<(Row, usize)>,
    first: bool,
}

impl Source for Rows {
    fn fill(&mut self, out: &mut String) -> bool {
        while out.len() < FULL {
            let (row, from) = match self.row.take() {
                Some(begun) => begun,
                None => {
                    let Some(row) = self.left.next() else { return true };
                    out.push_str(if std::mem::take(&mut self.first) {
                        r#"{"metric":"#
                    } else {
                        r#",{"metric":"#
                    });
                    labels(out, &row.labels);
                    out.push_str(r#","values":["#);
                    (row, 0)
                }
            };
            self.row = points(out, row, from);
        }
        false
    }
}

/// Writes the samples of a row from a place on; the row and the next place if there is more.
fn points(out: &mut String, row: Row, from: usize) -> Option<(Row, usize)> {
    let places = row.points.places();
    for place in from..places {
        if out.len() >= FULL && place > from {
            return Some((row, place));
        }
        if let Some((time_ms, value)) = row.points.at(place) {
            if !out.ends_with('[') {
                out.push(',');
            }
            point(out, time_ms, value);
        }
    }
    out.push_str("]}");
    None
}

/// The answer of a query evaluated at `time_ms`, or over a range; with its statistics if it is said how long it took.
pub(super) fn answer(answer: Answer, time_ms: i64, took: Option<Duration>, sending: Sending) -> Response {
    let head = |kind: &str| format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":"#);
    let mut tail = String::new();
    if let Some(took) = took {
        let (seconds, used) = (took.as_secs_f64(), answer.usage);
        // The engine evaluates in one pass; its parts are not timed apart. Writing to a string does not fail.
        let _ = write!(
            tail,
            r#","stats":{{"timings":{{"evalTotalTime":{seconds},"resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":{seconds},"execQueueTime":0,"execTotalTime":{seconds}}},"samples":{{"totalQueryableSamples":{},"peakSamples":{}}},"seriesFetched":"{}"}}"#,
            used.queryable, used.peak_points, used.series
        );
    }
    tail.push('}');
    annotations(&mut tail, &answer.warnings, &answer.infos);
    tail.push('}');
    match answer.value {
        Value::Scalar(value) => {
            let source = items([value], move |out: &mut String, value| point(out, time_ms, value));
            send(head("scalar"), source, tail, sending)
        }
        Value::String(text) => {
            let source = items([text], move |out: &mut String, text: Box<str>| {
                out.push('[');
                time(out, time_ms);
                out.push(',');
                string(out, &text);
                out.push(']');
            });
            send(head("string"), source, tail, sending)
        }
        Value::Vector(points) => {
            let source = items(points, move |out: &mut String, p: Point| {
                out.push_str(r#"{"metric":"#);
                labels(out, &p.labels);
                out.push_str(r#","value":"#);
                point(out, time_ms, p.value);
                out.push('}');
            });
            send(head("vector") + "[", source, format!("]{tail}"), sending)
        }
        Value::Matrix(rows) => {
            let source = Rows { left: rows.into_iter(), row: None, first: true };
            send(head("matrix") + "[", source, format!("]{tail}"), sending)
        }
    }
}

/// A list of label sets.
pub(super) fn series(listed: Vec<Labels>, warnings: &[String], sending: Sending) -> Response {
    list(items(listed, |out: &mut String, set: Labels| labels(out, &set)), warnings, sending)
}

/// A list of names or values.
pub(super) fn texts(listed: Vec<Arc<str>>, warnings: &[String], sending: Sending) -> Response {
    list(items(listed, |out: &mut String, text: Arc<str>| string(out, &text)), warnings, sending)
}

/// Data that are JSON already, whose memory is lent.
pub(super) fn data(json: String, warnings: &[String], sending: Sending) -> Response {
    let mut tail = String::new();
    annotations(&mut tail, warnings, &[]);
    tail.push('}');
    send(r#"{"status":"success","data":"#.to_owned(), Text { json, sent: 0 }, tail, sending)
}

/// An object of metrics with a description each.
pub(super) fn descriptions(
    listed: impl Iterator<Item = (String, Description)> + Send + 'static,
    sending: Sending,
) -> Response {
    let source = items(listed, |out: &mut String, (metric, description): (String, Description)| {
        string(out, &metric);
        for (before, text) in [
            (r#":[{"help":"#, &description.help),
            (r#","type":"#, &description.kind),
            (r#","unit":"#, &description.unit),
        ] {
            out.push_str(before);
            string(out, text);
        }
        out.push_str("}]");
    });
    send(r#"{"status":"success","data":{"#.to_owned(), source, "}}".to_owned(), sending)
}

/// The tables of `status/tsdb`, behind the text before them.
pub(super) fn tables(head: String, tables: [(&'static str, Vec<Count>); 4], sending: Sending) -> Response {
    let lines = tables.into_iter().flat_map(|(name, counts)| {
        let counts = counts.into_iter().enumerate().map(|(i, count)| Line::Count(i == 0, count));
        std::iter::once(Line::Begin(name)).chain(counts).chain(std::iter::once(Line::End))
    });
    let write = |out: &mut String, line| match line {
        Line::Begin(name) => {
            out.push(',');
            string(out, name);
            out.push_str(":[");
        }
        Line::Count(first, Count { count, key }) => {
            out.push_str(if first { r#"{"name":"# } else { r#",{"name":"# });
            string(out, &key.to_string());
            // Writing to a string does not fail.
            let _ = write!(out, r#","value":{count}}}"#);
        }
        Line::End => out.push(']'),
    };
    send(head, Each { left: lines, write }, "}}".to_owned(), sending)
}

/// A part of a table.
enum Line {
    Begin(&'static str),
    /// Whether it is the first one, and the entry.
    Count(bool, Count),
    End,
}

fn list(source: impl Source, warnings: &[String], sending: Sending) -> Response {
    let mut tail = "]".to_owned();
    annotations(&mut tail, warnings, &[]);
    tail.push('}');
    send(r#"{"status":"success","data":["#.to_owned(), source, tail, sending)
}

fn annotations(out: &mut String, warnings: &[String], infos: &[String]) {
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        for (i, text) in texts.iter().enumerate() {
            if i == 0 {
                let _ = write!(out, r#","{name}":["#);
            } else {
                out.push(',');
            }
            string(out, text);
        }
        if !texts.is_empty() {
            out.push(']');
        }
    }
}

fn labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        string(out, &label.name);
        out.push(':');
        string(out, &label.value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_piece_does_not_grow() {
        let mut values = items(0..100_000, |out: &mut String, number: i64| point(out, number, 0.1));
        let mut whole = Text { json: "1".repeat(3 * PIECE), sent: 0 };
        let mut done = false;
        while !done {
            for source in [&mut values as &mut dyn Source, &mut whole] {
                let mut out = String::with_capacity(PIECE);
                done = source.fill(&mut out);
                assert_eq!(out.capacity(), PIECE);
            }
        }
    }
}
