//! A remote read: its protobuf is read strictly and written anew, so that the database reads exactly the priced request.
//!
//! ```text
//! ReadRequest  { repeated Query queries = 1; repeated ResponseType accepted_response_types = 2 (SAMPLES, STREAMED_XOR_CHUNKS) }
//! Query        { int64 start_ms = 1, end_ms = 2; repeated LabelMatcher matchers = 3; ReadHints hints = 4 }
//! LabelMatcher { Type type = 1 (EQ, NEQ, RE, NRE); string name = 2, value = 3 }
//! ReadHints    { int64 step_ms = 1; string func = 2; int64 start_ms = 3, end_ms = 4; repeated string grouping = 5;
//!                bool by = 6; int64 range_ms = 7 }
//! ```
//!
//! The whole lies in a snappy block. Fields that are not listed here are left out.

use std::fmt;

use bytes::Bytes;

use crate::{
    base::{
        TimeRange,
        protobuf::{Field, Fields, Message, ProtobufError},
    },
    promql::{
        ast::{MatchOp, Matcher, NodeId, Span},
        enforce::{EnforceError, LabelEnforcement},
        shape::{Output, SelectorShape, is_match_all, normalise, selector_text},
    },
};

/// The largest request after decompression, bytes.
const REQUEST_MAX: usize = 1 << 20;
/// Most queries of one request, and most matchers or grouping labels of one query.
const PARTS_MAX: usize = 100;
/// The response type of whole samples; the only other one is the streamed one.
const SAMPLES: u64 = 0;
const STREAMED_XOR_CHUNKS: u64 = 1;

/// Why a body is no remote read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ReadError {
    /// No snappy block.
    Snappy,
    /// Longer than [`REQUEST_MAX`] once unpacked, or of more than [`PARTS_MAX`] parts.
    TooLarge(&'static str),
    /// A damaged or ambiguous message.
    Protobuf(ProtobufError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snappy => f.write_str("the remote read request is not a snappy block"),
            Self::TooLarge(what) => write!(f, "the remote read request {what}"),
            Self::Protobuf(error) => write!(f, "the remote read request is damaged: {error}"),
        }
    }
}

impl From<ProtobufError> for ReadError {
    fn from(error: ProtobufError) -> Self {
        Self::Protobuf(error)
    }
}

/// The body of a remote read with the matchers of a tenant's labels in each of its queries; `None` where it cannot be
/// confined.
pub fn confine_read(body: &[u8], labels: &LabelEnforcement) -> Option<Bytes> {
    let mut request = ReadRequest::parse(body).ok()?;
    request.confine(labels).ok()?;
    request.to_body().ok()
}

/// A remote read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ReadRequest {
    queries: Vec<Query>,
    accepted: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Query {
    start: i64,
    end: i64,
    matchers: Vec<Matcher>,
    hints: Option<Hints>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Hints {
    step: u64,
    func: String,
    start: i64,
    end: i64,
    grouping: Vec<String>,
    by: u64,
    range: u64,
}

impl ReadRequest {
    /// Reads the body of a request.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ReadError> {
        match snap::raw::decompress_len(body) {
            Ok(length) if length <= REQUEST_MAX => {}
            Ok(_) => return Err(ReadError::TooLarge("is longer than 1 MiB")),
            Err(_) => return Err(ReadError::Snappy),
        }
        let message = snap::raw::Decoder::new().decompress_vec(body).map_err(|_| ReadError::Snappy)?;
        let mut request = Self::default();
        for field in Fields::new(&message) {
            let field = field?;
            match field.number {
                1 => push(&mut request.queries, query(&field)?)?,
                2 => {
                    for kind in field.repeated_varint()? {
                        if !matches!(kind, SAMPLES | STREAMED_XOR_CHUNKS) {
                            return Err(field.error("a response type is unknown").into());
                        }
                        push(&mut request.accepted, kind)?;
                    }
                }
                _ => {}
            }
        }
        Ok(request)
    }

    /// The same request as the database gets it.
    pub(super) fn to_body(&self) -> Result<Bytes, ReadError> {
        let mut message = Message::default();
        for query in &self.queries {
            message.message(1, &query.to_message());
        }
        if !self.accepted.is_empty() {
            message.packed(2, self.accepted.iter().copied());
        }
        let packed = snap::raw::Encoder::new().compress_vec(&message.into_bytes());
        packed.map(Bytes::from).map_err(|_| ReadError::Snappy)
    }

    /// The database answers with the first type that it knows, and streams chunks only where that is first.
    pub(super) fn is_streamed(&self) -> bool {
        self.accepted.first() == Some(&STREAMED_XOR_CHUNKS)
    }

    /// Its selectors as text.
    pub(super) fn text(&self) -> String {
        let texts: Vec<String> = self.queries.iter().map(|query| selector_text(&query.matchers)).collect();
        texts.join(" ")
    }

    /// Gives each query the matchers of its tenant.
    pub(super) fn confine(&mut self, labels: &LabelEnforcement) -> Result<(), EnforceError> {
        self.queries.iter_mut().try_for_each(|query| labels.add_to(&mut query.matchers))
    }

    /// The reads of each query.
    pub(super) fn selectors(&self) -> Vec<SelectorShape> {
        self.queries.iter().map(Query::selector).collect()
    }
}

impl Query {
    fn to_message(&self) -> Message {
        let mut message = Message::default();
        message.varint(1, self.start as u64);
        message.varint(2, self.end as u64);
        for Matcher { name, op, value } in &self.matchers {
            let mut matcher = Message::default();
            matcher.varint(1, *op as u64);
            matcher.bytes(2, name.as_bytes());
            matcher.bytes(3, value.as_bytes());
            message.message(3, &matcher);
        }
        if let Some(hints) = &self.hints {
            message.message(4, &hints.to_message());
        }
        message
    }

    /// Prometheus reads the time of the hints where there are any, and the blocks of the query's own time.
    fn window(&self) -> TimeRange {
        let own = TimeRange::new(self.start, self.end);
        self.hints.as_ref().map_or(own, |hints| own.union(TimeRange::new(hints.start, hints.end)))
    }

    fn selector(&self) -> SelectorShape {
        let matchers = normalise(&self.matchers);
        let window = self.window();
        SelectorShape {
            node: NodeId(0),
            span: Span::default(),
            match_all: is_match_all(&matchers),
            text: selector_text(&matchers).into(),
            matchers: matchers.into(),
            window,
            evaluations: 1,
            window_per_eval_ms: window.len_ms(),
            ranged: true,
            output: Output::Same,
            histograms: false,
            same_as: 0,
        }
    }
}

impl Hints {
    fn to_message(&self) -> Message {
        let mut message = Message::default();
        message.varint(1, self.step);
        message.bytes(2, self.func.as_bytes());
        message.varint(3, self.start as u64);
        message.varint(4, self.end as u64);
        for label in &self.grouping {
            message.bytes(5, label.as_bytes());
        }
        message.varint(6, self.by);
        message.varint(7, self.range);
        message
    }
}

fn query(field: &Field<'_>) -> Result<Query, ReadError> {
    let (mut query, mut once) = (Query::default(), Once::default());
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => query.start = once.varint(&field)? as i64,
            2 => query.end = once.varint(&field)? as i64,
            3 => push(&mut query.matchers, matcher(&field)?)?,
            4 => {
                once.see(&field)?;
                query.hints = Some(hints(&field)?);
            }
            _ => {}
        }
    }
    Ok(query)
}

fn matcher(field: &Field<'_>) -> Result<Matcher, ReadError> {
    let (mut op, mut name, mut value, mut once) = (MatchOp::Equal, "", "", Once::default());
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => {
                op = match once.varint(&field)? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(field.error("a matcher is of no known type").into()),
                }
            }
            2 => name = once.text(&field)?,
            3 => value = once.text(&field)?,
            _ => {}
        }
    }
    Ok(Matcher { name: name.into(), op, value: value.into() })
}

fn hints(field: &Field<'_>) -> Result<Hints, ReadError> {
    let (mut hints, mut once) = (Hints::default(), Once::default());
    for field in field.message()? {
        let field = field?;
        match field.number {
            1 => hints.step = once.varint(&field)?,
            2 => once.text(&field)?.clone_into(&mut hints.func),
            3 => hints.start = once.varint(&field)? as i64,
            4 => hints.end = once.varint(&field)? as i64,
            5 => push(&mut hints.grouping, field.text()?.to_owned())?,
            6 => hints.by = once.varint(&field)?,
            7 => hints.range = once.varint(&field)?,
            _ => {}
        }
    }
    Ok(hints)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), ReadError> {
    if list.len() == PARTS_MAX {
        return Err(ReadError::TooLarge("has more than 100 queries, or 100 matchers in one query"));
    }
    list.push(item);
    Ok(())
}

/// The fields that may come once: decoders disagree about the value of a second one.
#[derive(Default)]
struct Once(u64);

impl Once {
    fn see(&mut self, field: &Field<'_>) -> Result<(), ProtobufError> {
        let bit = 1_u64.checked_shl(field.number).unwrap_or(0);
        if self.0 & bit != 0 {
            return Err(field.error("a field that is not a list is given twice"));
        }
        self.0 |= bit;
        Ok(())
    }

    fn varint(&mut self, field: &Field<'_>) -> Result<u64, ProtobufError> {
        self.see(field)?;
        field.varint()
    }

    fn text<'a>(&mut self, field: &Field<'a>) -> Result<&'a str, ProtobufError> {
        self.see(field)?;
        field.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{__name__="up", job=~"a.*"}` from 1,000 ms to 61,000 ms.
    fn request() -> ReadRequest {
        let matcher = |op, name: &str, value: &str| Matcher { name: name.into(), op, value: value.into() };
        let matchers = vec![matcher(MatchOp::Equal, "__name__", "up"), matcher(MatchOp::Regex, "job", "a.*")];
        ReadRequest {
            queries: vec![Query { start: 1_000, end: 61_000, matchers, hints: None }],
            accepted: vec![STREAMED_XOR_CHUNKS, SAMPLES],
        }
    }

    fn message_of(request: &ReadRequest) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(&request.to_body().unwrap()).unwrap()
    }

    fn pack(raw: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(raw).unwrap()
    }

    #[test]
    fn matchers_and_windows_are_read() {
        let found = ReadRequest::parse(&request().to_body().unwrap()).unwrap();
        assert_eq!(found, request());
        let selectors = found.selectors();
        assert_eq!(selectors.len(), 1);
        assert_eq!(selectors[0].window, TimeRange { start: 1_000, end: 61_000 });
        assert_eq!(selectors[0].metric_name(), Some("up"));
        assert_eq!(selectors[0].matchers.len(), 2);
        assert!(!selectors[0].match_all);
    }

    #[test]
    fn the_time_of_the_hints_is_read_too() {
        let mut request = request();
        let hints =
            Hints { start: -5_000, end: 7_000, grouping: vec!["a".to_owned()], by: 1, ..Hints::default() };
        request.queries[0].hints = Some(hints);
        let found = ReadRequest::parse(&request.to_body().unwrap()).unwrap();
        assert_eq!(found, request);
        assert_eq!(found.selectors()[0].window, TimeRange { start: -5_000, end: 61_000 });
    }

    #[test]
    fn what_a_database_could_read_differently_is_refused() {
        let whole = message_of(&request());
        // Field 2^32 + 1 of wire type 2, which Go takes for another query.
        let mut hidden = vec![0x8a, 0x80, 0x80, 0x80, 0x80, 0x01, whole.len() as u8 - 2];
        hidden.extend_from_slice(&whole[2..]);
        let query = |fields: &[u8]| [&[0x0a, fields.len() as u8], fields].concat();
        for (message, why) in [
            (hidden, "a field number is out of range"),
            (query(&[0x08, 1, 0x08, 2]), "a field that is not a list is given twice"),
            (query(&[0x22, 0, 0x22, 0]), "a field that is not a list is given twice"),
            (query(&[0x0a, 1, 1]), "a field has the wrong wire type"),
            (vec![0x08, 1], "a field has the wrong wire type"),
            (vec![0x10, 2], "a response type is unknown"),
            (query(&[0x1a, 2, 0x08, 4]), "a matcher is of no known type"),
            (query(&[0x1a, 3, 0x12, 1, 0xff]), "a string is not valid UTF-8"),
        ] {
            let error = ReadRequest::parse(&pack(&message)).unwrap_err().to_string();
            assert!(error.ends_with(why), "{error}, not {why}");
        }
        // An unknown field is not passed on.
        let unknown = [&whole[..], &[0x7a, 0]].concat();
        let read = ReadRequest::parse(&pack(&unknown)).unwrap();
        assert_eq!(message_of(&read), whole);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        assert_eq!(ReadRequest::parse(b"not snappy"), Err(ReadError::Snappy));
        assert_eq!(ReadRequest::parse(b""), Err(ReadError::Snappy));
        // 4 GiB announced.
        assert!(ReadRequest::parse(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        let whole = message_of(&request());
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..5_000 {
            let mut raw = whole.clone();
            raw.truncate(rng.usize(0..=raw.len()));
            for _ in 0..rng.usize(0..3) {
                if let Some(byte) = raw.get_mut(rng.usize(0..whole.len())) {
                    *byte = rng.u8(..);
                }
            }
            // A request that is read is read again as the same.
            if let Ok(read) = ReadRequest::parse(&pack(&raw)) {
                assert_eq!(ReadRequest::parse(&read.to_body().unwrap()), Ok(read));
            }
        }
    }
}
