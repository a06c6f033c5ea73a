//! The request of a remote read: what a Prometheus asks of a storage that it reads from.

use super::{
    BadInput, Place,
    protobuf::{Field, Fields, at},
};
use crate::{
    base::TimeRange,
    promql::ast::{MatchOp, Matcher},
};

/// Queries of one request, and matchers of all of them.
const QUERIES_MAX: usize = 100;
const MATCHERS_MAX: usize = 2_000;

const QUERIES: u64 = 1;
const ACCEPTED: u64 = 2;
/// The only kind of response that this node has: whole series with their samples.
const SAMPLES: u64 = 0;

/// A selection over a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadQuery {
    /// All of them must hold.
    pub matchers: Vec<Matcher>,
    /// Both ends included, milliseconds.
    pub window: TimeRange,
}

/// Reads a `ReadRequest`. Hints are skipped.
///
/// # Errors
/// The message is malformed or asks for too much, or its sender does not take samples.
pub fn read_request(message: &[u8]) -> Result<Vec<ReadQuery>, BadInput> {
    let (mut queries, mut matchers) = (Vec::new(), 0);
    let (mut named, mut takes_samples) = (false, false);
    let mut fields = Fields::new(message, 0);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (QUERIES, value) => {
                let (bytes, offset) = value.bytes(fields.at)?;
                let query = query(bytes, offset)?;
                matchers += query.matchers.len();
                if queries.len() == QUERIES_MAX || matchers > MATCHERS_MAX {
                    let most = format!("more than {QUERIES_MAX} queries or {MATCHERS_MAX} matchers");
                    return Err(at(offset, most));
                }
                queries.push(query);
            }
            (ACCEPTED, Field::Varint(kind)) => {
                (named, takes_samples) = (true, takes_samples || kind == SAMPLES);
            }
            // Numbers may come packed; each kind is one byte.
            (ACCEPTED, Field::Bytes(kinds)) => {
                (named, takes_samples) = (true, takes_samples || kinds.contains(&(SAMPLES as u8)));
            }
            _ => {}
        }
    }
    if named && !takes_samples {
        let message = "only responses of type SAMPLES can be had".to_owned();
        return Err(BadInput { place: Place::Whole, message });
    }
    Ok(queries)
}

fn query(bytes: &[u8], offset: usize) -> Result<ReadQuery, BadInput> {
    let mut query = ReadQuery { matchers: Vec::new(), window: TimeRange { start: 0, end: 0 } };
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Field::Varint(ms)) => query.window.start = ms as i64,
            (2, Field::Varint(ms)) => query.window.end = ms as i64,
            (3, value) => {
                let (bytes, offset) = value.bytes(fields.at)?;
                query.matchers.push(matcher(bytes, offset)?);
            }
            _ => {}
        }
    }
    Ok(query)
}

fn matcher(bytes: &[u8], offset: usize) -> Result<Matcher, BadInput> {
    let (mut op, mut name, mut text) = (MatchOp::Equal, "", "");
    let mut fields = Fields::new(bytes, offset);
    while let Some((field, value)) = fields.next()? {
        let into = match (field, value) {
            (1, Field::Varint(kind)) => {
                op = match kind {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(at(fields.at, format!("unknown type of matcher {kind}"))),
                };
                continue;
            }
            (2, _) => &mut name,
            (3, _) => &mut text,
            _ => continue,
        };
        let (bytes, offset) = value.bytes(fields.at)?;
        *into = std::str::from_utf8(bytes).map_err(|_| at(offset, "a matcher is not UTF-8"))?;
    }
    Ok(Matcher { name: name.into(), op, value: text.into() })
}
