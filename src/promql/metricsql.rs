//! MetricsQL in a form that can be read in one way only.
//!
//! VictoriaMetrics reads names with escapes, and its versions differ in what ends a string. A text that two readers take for
//! different queries would be one that is priced and one that runs; so Weir prices and forwards the plain form.

use std::borrow::Cow;

use super::{ParseError, ast::Span};

/// The query without comments, and with names as they are: `a\_b` and `a\x5fb` are `a_b`. Borrowed where it is plain.
///
/// # Errors
/// A name holds a character that ends names, or a string does not end, or not in the same place for every reader.
pub fn plain(text: &str) -> Result<Cow<'_, str>, ParseError> {
    if !text.contains(['\\', '#', '`', '"', '\'']) {
        return Ok(Cow::Borrowed(text));
    }
    let mut reader = Reader { text, at: 0, out: String::with_capacity(text.len()) };
    reader.read()?;
    Ok(if reader.out == text { Cow::Borrowed(text) } else { Cow::Owned(reader.out) })
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    out: String,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), ParseError> {
        while let Some(first) = self.rest().chars().next() {
            match first {
                '#' => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    self.out.push(' ');
                }
                '"' | '\'' | '`' => self.string(first)?,
                '0'..='9' => self.copy(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_')),
                _ if first == '\\' || is_name(first) => self.name()?,
                _ => self.copy_bytes(first.len_utf8()),
            }
        }
        Ok(())
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn copy(&mut self, wanted: impl Fn(char) -> bool) {
        self.copy_bytes(self.rest().find(|c| !wanted(c)).unwrap_or(self.rest().len()));
    }

    fn copy_bytes(&mut self, length: usize) {
        let end = self.at + length;
        self.out.push_str(self.text.get(self.at..end).unwrap_or_default());
        self.at = end;
    }

    fn string(&mut self, quote: char) -> Result<(), ParseError> {
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                // Behind a backslash a backquote ends the string for Go, and not for VictoriaMetrics.
                _ if c == quote && escaped && quote == '`' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == quote => {
                    self.copy_bytes(at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.error(self.at, "the string has no end that is the same for every reader"))
    }

    /// A name: letters, digits, `_`, `:`, `.`, and any character behind a backslash, also as `\x5f` and `\u005f`.
    fn name(&mut self) -> Result<(), ParseError> {
        let start = self.out.len();
        while let Some(next) = self.rest().chars().next() {
            if next != '\\' {
                if !is_name(next) && !next.is_ascii_digit() && next != '.' {
                    break;
                }
                self.copy_bytes(next.len_utf8());
                continue;
            }
            let at = self.at;
            let (escaped, length) = unescaped(self.text.get(at + 1..).unwrap_or_default());
            self.at += 1 + length;
            match escaped {
                Some(c @ ('_' | ':' | 'a'..='z' | 'A'..='Z')) => self.out.push(c),
                Some(c @ ('0'..='9' | '.')) if self.out.len() > start => self.out.push(c),
                Some(c @ ('-' | '/' | '0'..='9' | '.')) => self.out.extend(['\\', c]),
                Some(c) if !c.is_ascii() => self.out.extend(['\\', c]),
                _ => {
                    let message =
                        "a name with such a character is read in several ways; write {__name__=\"…\"}";
                    return Err(self.error(at, message));
                }
            }
        }
        Ok(())
    }

    fn error(&self, at: usize, message: &str) -> ParseError {
        ParseError::new(self.text, Span { start: at as u32, end: self.text.len() as u32 }, message)
    }
}

/// The character that an escape stands for, and the bytes of the escape behind its backslash.
pub(super) fn unescaped(rest: &str) -> (Option<char>, usize) {
    let hex = |digits: usize| {
        let code = u32::from_str_radix(rest.get(1..=digits)?, 16).ok()?;
        Some((char::from_u32(code), 1 + digits))
    };
    let long = match rest.as_bytes().first() {
        Some(b'x') => hex(2),
        Some(b'u') => hex(4),
        _ => None,
    };
    let first = rest.chars().next();
    long.unwrap_or((first, first.map_or(0, char::len_utf8)))
}

/// A character that a name may begin with.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | ':') || !c.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_comments_gone() {
        for (text, want) in [
            ("sum(rate(a[5m]))", "sum(rate(a[5m]))"),
            (r"sum(load\_total)", "sum(load_total)"),
            (r"l\x6fad\u005ftotal + l\oad", "load_total + load"),
            (r"foo\-bar + cpu.load + temp\érature", r"foo\-bar + cpu.load + temp\érature"),
            (r##"WITH (a\b = m) sum(ab{c="\"#"})"##, r##"WITH (ab = m) sum(ab{c="\"#"})"##),
            ("m{job=\"x\" # \"\n} or n # \"", "m{job=\"x\"  \n} or n  "),
            ("m{a=`b\\c`}", "m{a=`b\\c`}"),
            (r"\5m", r"\5m"),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn texts_with_several_readings_are_refused() {
        for text in [
            r#"count(h_\"bucket or load_total) default 0 #""#,
            r"count(h_\#bucket or load_total)",
            r"count(h_\[bucket or load_total) #]",
            r#"h_bucket{a\"="b"} or sum(load_total)"#,
            r#"sum(m) by (a\)b,c\") or n"#,
            r"m{a=`x\`} or n{b=`y`}",
            r"a\ b",
            r"a\x28",
            r"a\\",
            r"a\",
            "\"a",
        ] {
            assert!(plain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plain_text_stays_as_it_is() {
        let mut random = fastrand::Rng::with_seed(5);
        let parts =
            ["a", "\\", "_", "\"", "'", "`", "#", "\n", "{", "}", "=", "x5f", "u005f", ".", "1", "ü", " "];
        for _ in 0..20_000 {
            let text: String =
                (0..random.usize(0..12)).map(|_| parts[random.usize(0..parts.len())]).collect();
            if let Ok(once) = plain(&text) {
                assert_eq!(plain(&once).as_deref(), Ok(&*once), "{text}");
            }
        }
    }
}
