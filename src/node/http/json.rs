//! Answers as Prometheus writes them, made piece by piece while they are sent.

use std::{fmt::Write as _, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use tokio::task::{JoinError, spawn_blocking};

use super::{number::point, number::time, reads::Place};
use crate::{
    node::{
        engine::{Answer, Value},
        pool::{BytesPool, Loan},
    },
    series::Labels,
};

/// Bytes of a piece, about.
const PIECE: usize = 64 << 10;
/// Answers of so few items are expected to fit [`SMALL`].
const FEW: usize = 16;
/// Bytes of a small answer, about.
const SMALL: usize = 4 << 10;

/// What an answer needs while it is sent: the place of its read, and buffers.
pub(super) type Sending = (Place, BytesPool);
/// The same, and the memory of what is sent.
pub(super) type Held = (Sending, Option<Loan>);

/// Items written one after the other between a head and a tail.
struct Pieces<I> {
    head: Option<String>,
    items: I,
    tail: Option<String>,
    pool: BytesPool,
    /// Held to the last byte: the read's place, and memory of what is sent.
    _held: (Place, Option<Loan>),
}

impl<I: Iterator<Item = W>, W: FnOnce(&mut String)> Iterator for Pieces<I> {
    type Item = Bytes;

    /// Each piece takes less than the items in it give back, so that it does not ask the cap: an answer under way is
    /// the last thing to stop.
    fn next(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let few = self.items.size_hint().1.is_some_and(|left| left <= FEW);
        let mut lease = self.pool.get_over(if few { SMALL } else { PIECE });
        // An empty buffer is valid text.
        let mut out = String::from_utf8(std::mem::take(&mut *lease)).unwrap_or_default();
        let head = self.head.take();
        let mut first = head.is_some();
        out.push_str(&head.unwrap_or_default());
        while out.len() < PIECE {
            let Some(write) = self.items.next() else {
                out.push_str(&self.tail.take().unwrap_or_default());
                break;
            };
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write(&mut out);
        }
        *lease = out.into_bytes();
        lease.settle_over();
        Some(Bytes::from_owner(lease))
    }
}

/// Sends items between a head and a tail; in one piece, with a length, if they are few.
fn send<W: FnOnce(&mut String) + 'static>(
    head: String,
    items: impl Iterator<Item = W> + Send + 'static,
    tail: String,
    ((place, pool), loan): Held,
) -> Response {
    let mut pieces = Pieces { head: Some(head), items, tail: Some(tail), pool, _held: (place, loan) };
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
async fn next_piece<I, W>(mut pieces: Pieces<I>) -> Result<Option<(Bytes, Pieces<I>)>, JoinError>
where
    I: Iterator<Item = W> + Send + 'static,
    W: FnOnce(&mut String),
{
    if pieces.tail.is_none() {
        return Ok(None);
    }
    // A panic breaks the answer off.
    let (piece, pieces) = spawn_blocking(move || (pieces.next(), pieces)).await?;
    Ok(piece.map(|piece| (piece, pieces)))
}

/// The answer of a query evaluated at `time_ms`, or over a range; with its statistics if it is said how long it took.
pub(super) fn answer(mut answer: Answer, time_ms: i64, took: Option<Duration>, sending: Sending) -> Response {
    let held = (sending, answer.loan.take());
    let head = |kind: &str| format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":"#);
    let mut tail = String::new();
    if let Some(took) = took {
        let (seconds, used) = (took.as_secs_f64(), answer.usage);
        // The engine evaluates in one pass; its parts are not timed apart. Writing to a string does not fail.
        let _ = write!(
            tail,
            r#","stats":{{"timings":{{"evalTotalTime":{seconds},"resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":{seconds},"execQueueTime":0,"execTotalTime":{seconds}}},"samples":{{"totalQueryableSamples":{},"peakSamples":{}}},"seriesFetched":"{}"}}"#,
            used.samples, used.peak_points, used.series
        );
    }
    tail.push('}');
    annotations(&mut tail, &answer.warnings, &answer.infos);
    tail.push('}');
    match answer.value {
        Value::Scalar(value) => single(head("scalar"), tail, held, move |out| point(out, time_ms, value)),
        Value::String(text) => single(head("string"), tail, held, move |out| {
            out.push('[');
            time(out, time_ms);
            out.push(',');
            string(out, &text);
            out.push(']');
        }),
        Value::Vector(points) => {
            let items = points.into_iter().map(move |p| {
                move |out: &mut String| {
                    out.push_str(r#"{"metric":"#);
                    labels(out, &p.labels);
                    out.push_str(r#","value":"#);
                    point(out, time_ms, p.value);
                    out.push('}');
                }
            });
            send(head("vector") + "[", items, format!("]{tail}"), held)
        }
        Value::Matrix(rows) => {
            let items = rows.into_iter().map(|row| {
                move |out: &mut String| {
                    out.push_str(r#"{"metric":"#);
                    labels(out, &row.labels);
                    out.push_str(r#","values":["#);
                    for (i, (time_ms, value)) in row.points.iter().enumerate() {
                        if i > 0 {
                            out.push(',');
                        }
                        point(out, time_ms, value);
                    }
                    out.push_str("]}");
                }
            });
            send(head("matrix") + "[", items, format!("]{tail}"), held)
        }
    }
}

fn single(
    head: String,
    tail: String,
    held: Held,
    write: impl FnOnce(&mut String) + Send + 'static,
) -> Response {
    send(head, std::iter::once(write), tail, held)
}

/// A list of label sets.
pub(super) fn series(items: Vec<Labels>, warnings: &[String], held: Held) -> Response {
    let items = items.into_iter().map(|set| move |out: &mut String| labels(out, &set));
    list(items, warnings, held)
}

/// A list of names or values.
pub(super) fn texts(items: Vec<std::sync::Arc<str>>, warnings: &[String], held: Held) -> Response {
    let items = items.into_iter().map(|text| move |out: &mut String| string(out, &text));
    list(items, warnings, held)
}

fn list<W: FnOnce(&mut String) + 'static>(
    items: impl Iterator<Item = W> + Send + 'static,
    warnings: &[String],
    held: Held,
) -> Response {
    let mut tail = "]".to_owned();
    annotations(&mut tail, warnings, &[]);
    tail.push('}');
    send(r#"{"status":"success","data":["#.to_owned(), items, tail, held)
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

fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => out.push_str("\\n"),
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn strings_survive() {
        let hard = "a\"b\\c\nd\u{1}é\u{2028}";
        let text = written(|out| string(out, hard));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hard);
    }
}
