//! The request of a remote read, by which Prometheus queries a storage.

use super::{BadInput, Place};
use crate::{
    base::{
        TimeRange,
        protobuf::{Field, Fields, ProtobufError},
    },
    promql::ast::{MatchOp, Matcher},
};

/// The most queries of one request.
const QUERIES_MAX: usize = 100;
/// The most matchers of all queries of one request.
const MATCHERS_MAX: usize = 2_000;

const QUERIES: u32 = 1;
const ACCEPTED: u32 = 2;
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
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            QUERIES => {
                let query = query(&field)?;
                matchers += query.matchers.len();
                if queries.len() == QUERIES_MAX || matchers > MATCHERS_MAX {
                    let message = format!("more than {QUERIES_MAX} queries or {MATCHERS_MAX} matchers");
                    return Err(BadInput { place: Place::Whole, message });
                }
                queries.push(query);
            }
            ACCEPTED => {
                (named, takes_samples) = (true, takes_samples || field.repeated_varint()?.contains(&SAMPLES));
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

fn query(message: &Field<'_>) -> Result<ReadQuery, ProtobufError> {
    let mut query = ReadQuery { matchers: Vec::new(), window: TimeRange { start: 0, end: 0 } };
    for field in message.message()? {
        let field = field?;
        match field.number {
            1 => query.window.start = field.varint()? as i64,
            2 => query.window.end = field.varint()? as i64,
            3 => query.matchers.push(matcher(&field)?),
            _ => {}
        }
    }
    Ok(query)
}

fn matcher(message: &Field<'_>) -> Result<Matcher, ProtobufError> {
    let (mut op, mut name, mut text) = (MatchOp::Equal, "", "");
    for field in message.message()? {
        let field = field?;
        match field.number {
            1 => {
                op = match field.varint()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(field.error("the type of a matcher is unknown")),
                };
            }
            2 => name = field.text()?,
            3 => text = field.text()?,
            _ => {}
        }
    }
    Ok(Matcher { name: name.into(), op, value: text.into() })
}
