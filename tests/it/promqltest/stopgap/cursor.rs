//! Words of a query, read one by one.

use crate::promqltest::text;

/// A place in the text.
pub(super) struct Cursor<'t> {
    pub(super) text: &'t str,
    pub(super) pos: usize,
}

impl<'t> Cursor<'t> {
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.pos..]
    }

    pub(super) fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.pos += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.pos += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    pub(super) fn starts(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest().starts_with(token)
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        let there = self.starts(token);
        if there {
            self.pos += token.len();
        }
        there
    }

    pub(super) fn need(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected {token:?} at {:?}", self.rest())) }
    }

    /// A name, without moving; colons belong to metric names only.
    pub(super) fn peek_name(&mut self, colons: bool) -> Option<&'t str> {
        self.skip_space();
        let rest = self.rest();
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
        let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        (end > 0 && !rest.starts_with(|c: char| c.is_ascii_digit())).then(|| &rest[..end])
    }

    /// One of some words, in any case.
    pub(super) fn eat_word(&mut self, words: &[&'static str]) -> Option<&'static str> {
        let name = self.peek_name(true)?;
        let word = words.iter().find(|w| w.eq_ignore_ascii_case(name))?;
        self.pos += name.len();
        Some(word)
    }

    /// A number, or a duration in seconds.
    pub(super) fn number(&mut self) -> Option<f64> {
        self.skip_space();
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x") {
            let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            self.pos += 2 + end;
            return u64::from_str_radix(&hex[..end], 16).ok().map(|n| n as f64);
        }
        for word in ["inf", "nan"] {
            if self.peek_name(true).is_some_and(|name| name.eq_ignore_ascii_case(word)) {
                self.pos += 3;
                return word.parse().ok();
            }
        }
        if !rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if let Some(ms) = weir::base::units::parse_duration_ms(&rest[..end]).filter(|_| &rest[..end] != "0") {
            self.pos += end;
            return Some(ms as f64 / 1e3);
        }
        let bytes = rest.as_bytes();
        let mut end = 0;
        while let Some(b) = bytes.get(end) {
            let sign = matches!(b, b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
            if !(b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E') || sign) {
                break;
            }
            end += 1;
        }
        let value = rest[..end].parse().ok()?;
        self.pos += end;
        Some(value)
    }

    pub(super) fn string(&mut self) -> Result<Option<String>, String> {
        self.skip_space();
        if !self.rest().starts_with(['"', '\'', '`']) {
            return Ok(None);
        }
        let (value, rest) = text::quoted(self.rest())?;
        self.pos = self.text.len() - rest.len();
        Ok(Some(value))
    }
}
