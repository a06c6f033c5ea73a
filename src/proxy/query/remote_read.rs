//! What a remote read asks for: matchers and windows, read out of its protobuf without a schema compiler.
//!
//! `ReadRequest { repeated Query queries = 1 }`, `Query { int64 start_ms = 1, end_ms = 2; repeated LabelMatcher matchers
//! = 3 }`, `LabelMatcher { Type type = 1 (EQ, NEQ, RE, NRE); string name = 2, value = 3 }`, in a snappy block.

use crate::{
    base::TimeRange,
    promql::{
        ast::{MatchOp, Matcher, NodeId, Span},
        shape::{Output, SelectorShape, is_match_all, normalise, selector_text},
    },
};

/// The largest request after decompression, bytes.
const REQUEST_MAX: usize = 1 << 20;
/// Most queries of one request, and most matchers of one query.
const PARTS_MAX: usize = 100;

/// The selectors of a compressed request; the error says what is wrong with it.
pub(in crate::proxy) fn selectors(body: &[u8]) -> Result<Vec<SelectorShape>, &'static str> {
    match snap::raw::decompress_len(body) {
        Ok(length) if length <= REQUEST_MAX => {}
        Ok(_) => return Err("the remote read request is too large"),
        Err(_) => return Err("the remote read request is no snappy block"),
    }
    let request = snap::raw::Decoder::new().decompress_vec(body);
    let request = request.map_err(|_| "the remote read request is no snappy block")?;
    let mut found = Vec::new();
    for field in Fields(&request) {
        let (1, Value::Bytes(query)) = field? else { continue };
        if found.len() == PARTS_MAX {
            return Err("the remote read request holds too many queries");
        }
        found.push(selector(query)?);
    }
    Ok(found)
}

fn selector(query: &[u8]) -> Result<SelectorShape, &'static str> {
    let (mut start, mut end, mut matchers) = (0, 0, Vec::new());
    for field in Fields(query) {
        match field? {
            (1, Value::Number(n)) => start = n as i64,
            (2, Value::Number(n)) => end = n as i64,
            (3, Value::Bytes(_)) if matchers.len() == PARTS_MAX => {
                return Err("a query has too many matchers");
            }
            (3, Value::Bytes(bytes)) => matchers.push(matcher(bytes)?),
            _ => {}
        }
    }
    let matchers = normalise(&matchers);
    let window = TimeRange::new(start, end);
    Ok(SelectorShape {
        node: NodeId(0),
        span: Span::default(),
        match_all: is_match_all(&matchers),
        text: selector_text(&matchers),
        matchers,
        window,
        evaluations: 1,
        window_per_eval_ms: window.len_ms(),
        ranged: true,
        output: Output::Same,
        streams: false,
    })
}

fn matcher(bytes: &[u8]) -> Result<Matcher, &'static str> {
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    for field in Fields(bytes) {
        match field? {
            (1, Value::Number(kind)) => {
                op = match kind {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err("a matcher is of no known type"),
                }
            }
            (2, Value::Bytes(text)) => name = utf8(text)?,
            (3, Value::Bytes(text)) => value = utf8(text)?,
            _ => {}
        }
    }
    Ok(Matcher { name: name.into(), op, value: value.into() })
}

fn utf8(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "a matcher is not valid UTF-8")
}

enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Skipped,
}

/// The fields of a message, by number.
struct Fields<'b>(&'b [u8]);

const BROKEN: &str = "the remote read request is damaged";

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(BROKEN)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BROKEN)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| BROKEN)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BROKEN)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'b>), &'static str> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Skipped)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Skipped)?,
            _ => return Err(BROKEN),
        };
        Ok((key >> 3, value))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u64, Value<'b>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{__name__="up", job=~"a.*"}` from 1,000 ms to 61,000 ms.
    fn request() -> Vec<u8> {
        let bytes = |number: u8, inner: &[u8]| [&[number << 3 | 2, inner.len() as u8], inner].concat();
        let matcher = |kind: u8, name: &str, value: &str| {
            [&[1 << 3, kind][..], &bytes(2, name.as_bytes()), &bytes(3, value.as_bytes())].concat()
        };
        let query = [
            &[1 << 3, 0xe8, 0x07, 2 << 3, 0xc8, 0xdc, 0x03][..],
            &bytes(3, &matcher(0, "__name__", "up")),
            &bytes(3, &matcher(2, "job", "a.*")),
        ];
        bytes(1, &query.concat())
    }

    fn pack(raw: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(raw).unwrap()
    }

    #[test]
    fn matchers_and_windows_are_read() {
        let found = selectors(&pack(&request())).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].window, TimeRange { start: 1_000, end: 61_000 });
        assert_eq!(found[0].metric_name(), Some("up"));
        assert_eq!(found[0].matchers.len(), 2);
        assert!(!found[0].match_all);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        assert!(selectors(b"").is_err());
        assert!(selectors(b"not snappy").is_err());
        // 4 GiB announced.
        assert!(selectors(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        let whole = request();
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..5_000 {
            let mut raw = whole.clone();
            raw.truncate(rng.usize(0..=raw.len()));
            for _ in 0..rng.usize(0..3) {
                if let Some(byte) = raw.get_mut(rng.usize(0..whole.len())) {
                    *byte = rng.u8(..);
                }
            }
            // Whatever comes of it, it comes at once.
            let _ = selectors(&pack(&raw));
        }
    }
}
