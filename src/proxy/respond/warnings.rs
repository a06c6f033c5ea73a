//! Adds warnings to an answer in the shape of the query API while it streams by. Everything else of it stays as it is.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::{
    backend::{self, BackendError},
    base::json,
    proxy::meter::{BodyError, MeteredBody, Progress},
};

/// Bytes of one warning; a longer one is cut.
const WARNING_BYTES_MAX: usize = 1_024;
/// The member of an answer that holds them.
const KEY: &[u8] = b"warnings";

/// Finds where in a JSON object its warnings belong: into its own list of them, or before its end.
#[derive(Debug)]
struct Inserter {
    /// The warnings, as the members of a list.
    warnings: Bytes,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The next string at depth 1 is a key.
    at_key: bool,
    key: Vec<u8>,
    /// The object has members before this place.
    has_members: bool,
    inserted: bool,
    /// The list had begun when they were inserted: a comma follows unless it ends.
    owes_comma: bool,
}

impl Inserter {
    fn new(warnings: &[String]) -> Self {
        let mut list = String::new();
        for warning in warnings {
            let separator = if list.is_empty() { "\"" } else { ",\"" };
            list.push_str(separator);
            json::escape(&mut list, warning, WARNING_BYTES_MAX);
            list.push('"');
        }
        Self {
            warnings: list.into(),
            depth: 0,
            in_string: false,
            escaped: false,
            at_key: false,
            key: Vec::new(),
            has_members: false,
            inserted: false,
            owes_comma: false,
        }
    }

    /// The same bytes, with the warnings where they belong if that is among them.
    fn pass(&mut self, data: Bytes) -> Bytes {
        if self.inserted && !self.owes_comma {
            return data;
        }
        let mut out: Option<BytesMut> = None;
        let mut copied = 0;
        for (at, byte) in data.iter().copied().enumerate() {
            let Some((before, text)) = self.step(byte) else { continue };
            let place = if before { at } else { at + 1 };
            let out = out.get_or_insert_with(|| BytesMut::with_capacity(data.len() + text.len()));
            out.extend_from_slice(data.get(copied..place).unwrap_or_default());
            out.extend_from_slice(&text);
            copied = place;
            if self.inserted && !self.owes_comma {
                break;
            }
        }
        match out {
            None => data,
            Some(mut out) => {
                out.extend_from_slice(data.get(copied..).unwrap_or_default());
                out.freeze()
            }
        }
    }

    /// Looks at one byte: the bytes to insert before it (`true`) or behind it.
    fn step(&mut self, byte: u8) -> Option<(bool, Bytes)> {
        if self.in_string {
            self.in_text(byte);
            return None;
        }
        if self.owes_comma && !byte.is_ascii_whitespace() {
            self.owes_comma = false;
            return (byte != b']').then(|| (true, Bytes::from_static(b",")));
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && self.at_key {
                    self.key.clear();
                    self.has_members = true;
                }
            }
            b':' if self.depth == 1 => self.at_key = false,
            b',' if self.depth == 1 => self.at_key = true,
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == 1 {
                    self.at_key = byte == b'{';
                } else if self.depth == 2 && byte == b'[' && self.key == KEY && !self.inserted {
                    (self.inserted, self.owes_comma) = (true, true);
                    return Some((false, self.warnings.clone()));
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 && byte == b'}' && !self.inserted {
                    self.inserted = true;
                    let comma = if self.has_members { "," } else { "" };
                    let list = String::from_utf8_lossy(&self.warnings).into_owned();
                    return Some((true, format!("{comma}\"warnings\":[{list}]").into()));
                }
            }
            _ => {}
        }
        None
    }

    fn in_text(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth == 1 && self.at_key && self.key.len() <= KEY.len() => self.key.push(byte),
            _ => {}
        }
    }
}

/// A metered answer with warnings.
#[derive(Debug)]
pub struct Warned {
    body: Box<MeteredBody<backend::Body>>,
    inserter: Inserter,
}

impl Warned {
    pub(in crate::proxy) fn new(body: Box<MeteredBody<backend::Body>>, warnings: &[String]) -> Self {
        Self { body, inserter: Inserter::new(warnings) }
    }

    pub(super) fn to_come(&self) -> Option<&Arc<Progress>> {
        self.body.to_come()
    }
}

impl http_body::Body for Warned {
    type Data = Bytes;
    type Error = BodyError<BackendError>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.inserter.pass(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_stand_in_the_list_of_the_answer_however_it_is_cut() {
        let warnings = ["over \"it\"".to_owned(), "two".to_owned()];
        for (answer, want) in [
            (
                r#"{"status":"success","data":{"result":[]}}"#,
                r#"{"status":"success","data":{"result":[]},"warnings":["over \"it\"","two"]}"#,
            ),
            (
                r#"{"status":"success","warnings":["theirs"],"data":[1]}"#,
                r#"{"status":"success","warnings":["over \"it\"","two","theirs"],"data":[1]}"#,
            ),
            (r#"{"warnings": [ ] }"#, r#"{"warnings": ["over \"it\"","two" ] }"#),
            ("{}", r#"{"warnings":["over \"it\"","two"]}"#),
            (
                r#"{"data":{"warnings":["x"]},"a":"}\"]","infos":["y"]}"#,
                r#"{"data":{"warnings":["x"]},"a":"}\"]","infos":["y"],"warnings":["over \"it\"","two"]}"#,
            ),
            (
                "{\"data\":[{\"warnings\":\"\\\\\"}]}\n",
                "{\"data\":[{\"warnings\":\"\\\\\"}],\"warnings\":[\"over \\\"it\\\"\",\"two\"]}\n",
            ),
            (r#"["no object"]"#, r#"["no object"]"#),
            (r#"{"status":"succ"#, r#"{"status":"succ"#),
        ] {
            for size in 1..=answer.len() {
                let mut inserter = Inserter::new(&warnings);
                let parts = answer.as_bytes().chunks(size).map(|part| inserter.pass(part.to_vec().into()));
                let whole = parts.fold(Vec::new(), |mut whole, part| {
                    whole.extend_from_slice(&part);
                    whole
                });
                assert_eq!(String::from_utf8(whole).unwrap(), want, "in pieces of {size}");
            }
        }
    }
}
