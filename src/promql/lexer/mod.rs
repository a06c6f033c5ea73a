//! Text to words. The meaning of a character depends on its context: outside, in `{}` or in `[]`.

mod number;
mod text;
mod token;

pub(super) use number::{duration, is_duration, number};
pub(super) use text::unquote;
pub use text::{is_label_name, raw_byte};
pub(super) use token::{Kind, Token, Word};

use super::{
    ast::{BinaryOp, Span},
    error::ParseError,
};

/// Reads one word at a time; holds no more than its place.
#[derive(Debug)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    pos: usize,
    parens: u32,
    in_braces: bool,
    in_brackets: bool,
}

fn is_name_start(b: u8) -> bool {
    b.is_ascii_alphabetic() || b == b'_'
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, pos: 0, parens: 0, in_braces: false, in_brackets: false }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.pos + ahead).copied()
    }

    fn fail<T>(&self, start: usize, message: impl Into<String>) -> Result<T, ParseError> {
        let span = Span { start: start as u32, end: self.text.len() as u32 };
        Err(ParseError::new(self.text, span, message))
    }

    /// The character at a place, as Go quotes it.
    fn quoted(&self, at: usize) -> String {
        let c = self.text.get(at..).and_then(|t| t.chars().next());
        c.map_or_else(|| "end of input".to_owned(), |c| format!("{c:?}"))
    }

    fn skip_space(&mut self) {
        while let Some(b) = self.peek(0) {
            match b {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                b'#' => {
                    let rest = self.text.as_bytes().get(self.pos..).unwrap_or_default();
                    self.pos += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    /// The next word; [`Kind::Eof`] again and again at the end.
    pub(super) fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_space();
        let start = self.pos;
        let kind = match self.peek(0) {
            None => self.eof()?,
            Some(b) if self.in_braces => self.inside_braces(b)?,
            Some(b) => self.outside_braces(b)?,
        };
        Ok(Token { kind, span: Span { start: start as u32, end: self.pos as u32 } })
    }

    fn eof(&self) -> Result<Kind, ParseError> {
        let end = self.text.len();
        if self.in_braces {
            self.fail(end, "unexpected end of input inside braces")
        } else if self.in_brackets {
            self.fail(end, "unexpected end of input in duration expression")
        } else if self.parens > 0 {
            self.fail(end, "unclosed left parenthesis")
        } else {
            Ok(Kind::Eof)
        }
    }

    /// Consumes `bytes` bytes.
    fn take(&mut self, bytes: usize, kind: Kind) -> Kind {
        self.pos += bytes;
        kind
    }

    fn inside_braces(&mut self, first: u8) -> Result<Kind, ParseError> {
        let start = self.pos;
        Ok(match (first, self.peek(1)) {
            (b',', _) => self.take(1, Kind::Comma),
            (b'=', Some(b'~')) => self.take(2, Kind::EqualRegex),
            (b'=', _) => self.take(1, Kind::Equal),
            (b'!', Some(b'~')) => self.take(2, Kind::NotRegex),
            (b'!', Some(b'=')) => self.take(2, Kind::Op(BinaryOp::Ne)),
            (b'!', _) => {
                let after = self.quoted(start + 1);
                return self.fail(start, format!("unexpected character after '!' inside braces: {after}"));
            }
            (b'}', _) => {
                self.in_braces = false;
                self.take(1, Kind::RightBrace)
            }
            (b'{', _) => return self.fail(start, "unexpected left brace '{'"),
            (b'"' | b'\'' | b'`', _) => self.string(first)?,
            (b, _) if is_name_start(b) => {
                self.name_end(false);
                Kind::Ident
            }
            _ => {
                let c = self.quoted(start);
                return self.fail(start, format!("unexpected character inside braces: {c}"));
            }
        })
    }

    fn outside_braces(&mut self, first: u8) -> Result<Kind, ParseError> {
        let start = self.pos;
        Ok(match first {
            b',' => self.take(1, Kind::Comma),
            b'(' => {
                self.parens += 1;
                self.take(1, Kind::LeftParen)
            }
            // Prometheus points behind it.
            b')' if self.parens == 0 => return self.fail(start + 1, "unexpected right parenthesis ')'"),
            b')' => {
                self.parens -= 1;
                self.take(1, Kind::RightParen)
            }
            b'{' if !self.in_brackets => {
                self.in_braces = true;
                self.take(1, Kind::LeftBrace)
            }
            b'[' if self.in_brackets => return self.fail(start, "unexpected left bracket '['"),
            b'[' => {
                self.in_brackets = true;
                self.take(1, Kind::LeftBracket)
            }
            b']' if !self.in_brackets => return self.fail(start, "unexpected right bracket ']'"),
            b']' => {
                self.in_brackets = false;
                self.take(1, Kind::RightBracket)
            }
            b':' if self.in_brackets => self.take(1, Kind::Colon),
            b'"' | b'\'' | b'`' if !self.in_brackets => self.string(first)?,
            b'0'..=b'9' => self.number()?,
            b'.' if self.peek(1).is_some_and(|b| b.is_ascii_digit()) => self.number()?,
            b if is_name_start(b) || b == b':' => self.word(start)?,
            _ => return self.operator(first, start),
        })
    }

    fn operator(&mut self, first: u8, start: usize) -> Result<Kind, ParseError> {
        let (op, len) = match (first, self.peek(1)) {
            (b'+', _) => (BinaryOp::Add, 1),
            (b'-', _) => (BinaryOp::Sub, 1),
            (b'*', _) => (BinaryOp::Mul, 1),
            (b'/', _) => (BinaryOp::Div, 1),
            (b'%', _) => (BinaryOp::Mod, 1),
            (b'^', _) => (BinaryOp::Pow, 1),
            (_, _) if self.in_brackets => {
                let c = self.quoted(start);
                return self.fail(start, format!("unexpected character in duration expression: {c}"));
            }
            (b'@', _) => return Ok(self.take(1, Kind::At)),
            (b'=', Some(b'=')) => (BinaryOp::Eq, 2),
            (b'=', Some(b'~')) => return self.fail(start, "unexpected character after '=': '~'"),
            (b'=', _) => return Ok(self.take(1, Kind::Equal)),
            (b'!', Some(b'=')) => (BinaryOp::Ne, 2),
            (b'!', _) => {
                let after = self.quoted(start + 1);
                return self.fail(start, format!("unexpected character after '!': {after}"));
            }
            (b'<', Some(b'=')) => (BinaryOp::Le, 2),
            (b'<', Some(b'/')) => (BinaryOp::TrimUpper, 2),
            (b'<', _) => (BinaryOp::Lt, 1),
            (b'>', Some(b'=')) => (BinaryOp::Ge, 2),
            (b'>', Some(b'/')) => (BinaryOp::TrimLower, 2),
            (b'>', _) => (BinaryOp::Gt, 1),
            _ => {
                let c = self.quoted(start);
                return self.fail(start, format!("unexpected character: {c}"));
            }
        };
        Ok(self.take(len, Kind::Op(op)))
    }

    fn name_end(&mut self, colons: bool) {
        let rest = self.text.as_bytes().get(self.pos..).unwrap_or_default();
        let inside = |b: &u8| is_name(*b) || (colons && *b == b':');
        self.pos += rest.iter().take_while(|b| inside(b)).count();
    }

    fn word(&mut self, start: usize) -> Result<Kind, ParseError> {
        self.name_end(!self.in_brackets);
        let name = self.text.get(start..self.pos).unwrap_or_default();
        let keyword = token::keyword(name);
        if self.in_brackets {
            // `min` and `max` are how Prometheus called `min_of` and `max_of` up to 3.8.
            return match keyword {
                Some(
                    Kind::Word(Word::Step | Word::Range | Word::MinOf | Word::MaxOf) | Kind::Aggregate(_),
                ) => Ok(keyword.unwrap_or(Kind::Ident)),
                _ => {
                    let c = self.quoted(start);
                    self.pos = start;
                    self.fail(start, format!("unexpected character in duration expression: {c}"))
                }
            };
        }
        Ok(match keyword {
            // So that metrics of these names, which are older than the keywords, go on working.
            Some(Kind::Word(Word::Fill | Word::FillLeft | Word::FillRight)) if !self.before_paren() => {
                Kind::Ident
            }
            Some(keyword) => keyword,
            None if name.as_bytes().contains(&b':') => Kind::MetricIdent,
            None => Kind::Ident,
        })
    }

    fn before_paren(&self) -> bool {
        let rest = self.text.get(self.pos..).unwrap_or_default();
        rest.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(')
    }

    fn number(&mut self) -> Result<Kind, ParseError> {
        let start = self.pos;
        let (scanned, len) = number::scan(self.text.as_bytes().get(start..).unwrap_or_default());
        self.pos += len;
        match scanned {
            number::Scanned::Number => Ok(Kind::Number),
            number::Scanned::Duration => Ok(Kind::Duration),
            number::Scanned::Bad => {
                let mut end = self.pos;
                while !self.text.is_char_boundary(end) {
                    end += 1;
                }
                // One character more, as it is the one that does not fit.
                end += self
                    .text
                    .get(end..)
                    .and_then(|t| t.chars().next())
                    .map_or(0, |c| usize::from(c.is_ascii_alphanumeric() || c == '_'));
                let text = self.text.get(start..end).unwrap_or_default();
                self.fail(start, format!("bad number or duration syntax: {text:?}"))
            }
        }
    }

    /// To the closing quote. Escapes are read later.
    fn string(&mut self, quote: u8) -> Result<Kind, ParseError> {
        let start = self.pos;
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let found = if quote == b'`' {
                memchr::memchr(quote, rest)
            } else {
                memchr::memchr3(quote, b'\\', b'\n', rest)
            };
            let Some(found) = found else {
                let kind = if quote == b'`' { "raw" } else { "quoted" };
                return self.fail(start, format!("unterminated {kind} string"));
            };
            at += found;
            match bytes.get(at) {
                Some(b'\\') => at += 2,
                Some(b'\n') => return self.fail(start, "unterminated quoted string"),
                _ => break,
            }
        }
        self.pos = at + 1;
        Ok(Kind::Str)
    }
}
