//! From Go's dialect to ours.

use super::{Error, class};

/// Groups within groups.
pub(super) const NEST_MAX: u32 = 100;

/// Go's limit on one count, and on the product of nested ones.
const REPEAT_MAX: u64 = 1000;

/// Characters after all repetitions are written out. Go's own limit is of this order (`maxRunes`, `maxSize` in
/// regexp/syntax), so that nothing is refused that a database would run.
const SIZE_MAX: u64 = 2_000_000;

/// The part of [`SIZE_MAX`] that a dot takes.
const DOT_SIZE: u64 = 10;
/// The same of a character class, which `(?i)` may unfold.
const CLASS_SIZE: u64 = 400;
/// The same of a class of Unicode.
const UNICODE_CLASS_SIZE: u64 = 8_000;

/// A group that is open.
struct Frame {
    /// Of everything before the last atom.
    size: u64,
    /// Largest product of counts in it.
    repeats: u64,
    /// The part of the alternative read so far matches the empty string.
    matches_empty: bool,
    /// An alternative before it does.
    any_matches_empty: bool,
}

impl Frame {
    const NEW: Self = Self { size: 0, repeats: 0, matches_empty: true, any_matches_empty: false };
}

/// The atom that a quantifier would repeat.
#[derive(Clone, Copy)]
pub(super) struct Atom {
    /// Characters once it is written out.
    size: u64,
    /// Product of the counts in it.
    repeats: u64,
    matches_empty: bool,
}

impl Atom {
    /// One character, of a class of this size.
    pub(super) const fn chars(size: u64) -> Self {
        Self { size, repeats: 1, matches_empty: false }
    }

    /// A place between characters.
    const fn look(matches_empty: bool) -> Self {
        Self { size: 1, repeats: 1, matches_empty }
    }
}

/// A pattern in the other dialect.
pub(super) struct Translated {
    pub(super) text: String,
    pub(super) matches_empty: bool,
}

pub(super) struct Translator<'p> {
    pub(super) pattern: &'p str,
    pub(super) pos: usize,
    pub(super) out: String,
    frames: Vec<Frame>,
    atom: Option<Atom>,
    /// Where the last quantifier began, if it directly precedes.
    quantifier: Option<usize>,
}

pub(super) fn translate(pattern: &str) -> Result<Translated, Error> {
    let mut translator = Translator {
        pattern,
        pos: 0,
        out: String::with_capacity(pattern.len() + 16),
        frames: vec![Frame::NEW],
        atom: None,
        quantifier: None,
    };
    translator.run()?;
    let matches_empty = translator.frames.last().is_some_and(|f| f.matches_empty || f.any_matches_empty);
    Ok(Translated { text: translator.out, matches_empty })
}

pub(super) fn malformed<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Malformed(why.into()))
}

/// Writes a character that stands for itself.
pub(super) fn push_literal(out: &mut String, c: char) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

impl<'p> Translator<'p> {
    pub(super) fn rest(&self) -> &'p str {
        self.pattern.get(self.pos..).unwrap_or_default()
    }

    fn run(&mut self) -> Result<(), Error> {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '\\' => self.escape()?,
                '[' => {
                    class::class(self)?;
                    self.atom(Atom::chars(CLASS_SIZE))?;
                }
                '(' => self.open()?,
                ')' => self.close()?,
                '*' | '?' => self.quantify(1, 0, 1)?,
                '+' => self.quantify(1, 1, 1)?,
                '{' => self.braces()?,
                '|' => {
                    self.flush()?;
                    self.copy(1);
                    if let Some(frame) = self.frames.last_mut() {
                        frame.any_matches_empty |= frame.matches_empty;
                        frame.matches_empty = true;
                    }
                }
                // Go repeats `^*`, but not `|*`.
                '^' | '$' => {
                    self.flush()?;
                    self.copy(1);
                    self.atom = Some(Atom::look(true));
                }
                '.' => {
                    self.copy(1);
                    self.atom(Atom::chars(DOT_SIZE))?;
                }
                c => {
                    self.pos += c.len_utf8();
                    self.literal(c)?;
                }
            }
        }
        self.flush()?;
        if self.frames.len() > 1 {
            return malformed(format!("missing closing ): `{}`", self.pattern));
        }
        Ok(())
    }

    pub(super) fn copy(&mut self, bytes: usize) {
        let end = self.pos + bytes;
        self.out.push_str(self.pattern.get(self.pos..end).unwrap_or_default());
        self.pos = end;
    }

    fn literal(&mut self, c: char) -> Result<(), Error> {
        push_literal(&mut self.out, c);
        self.atom(Atom::chars(1))
    }

    /// Adds the text just written.
    fn atom(&mut self, atom: Atom) -> Result<(), Error> {
        self.flush()?;
        self.atom = Some(atom);
        Ok(())
    }

    /// Adds the last atom to its group.
    fn flush(&mut self) -> Result<(), Error> {
        self.quantifier = None;
        if let (Some(atom), Some(frame)) = (self.atom.take(), self.frames.last_mut()) {
            frame.size = frame.size.saturating_add(atom.size);
            frame.repeats = frame.repeats.max(atom.repeats);
            frame.matches_empty &= atom.matches_empty;
            if frame.size > SIZE_MAX {
                return Err(Error::TooLarge);
            }
        }
        Ok(())
    }

    /// `most` is how often the atom must be written out; `least` of 0 makes it optional.
    fn quantify(&mut self, bytes: usize, least: u64, most: u64) -> Result<(), Error> {
        let token = self.rest().get(..bytes).unwrap_or_default();
        if let Some(start) = self.quantifier {
            let both = self.pattern.get(start..self.pos + bytes).unwrap_or_default();
            return malformed(format!("invalid nested repetition operator: `{both}`"));
        }
        let Some(Atom { size, repeats, matches_empty }) = self.atom else {
            return malformed(format!("missing argument to repetition operator: `{token}`"));
        };
        let start = self.pos;
        let count = most.max(1);
        let repeats = repeats.saturating_mul(count);
        if repeats > REPEAT_MAX {
            return malformed(format!("invalid repeat count: `{token}`"));
        }
        self.copy(bytes);
        if self.rest().starts_with('?') {
            self.copy(1);
        }
        let size = size.saturating_mul(count).saturating_add(1);
        if size > SIZE_MAX {
            return Err(Error::TooLarge);
        }
        self.atom = Some(Atom { size, repeats, matches_empty: matches_empty || least == 0 });
        self.quantifier = Some(start);
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; anything else is a brace like any character.
    fn braces(&mut self) -> Result<(), Error> {
        let Some((bytes, least, most)) = counts(self.rest()) else {
            self.pos += 1;
            return self.literal('{');
        };
        let token = self.rest().get(..bytes).unwrap_or_default();
        if least > REPEAT_MAX || most.is_some_and(|most| most > REPEAT_MAX || most < least) {
            return malformed(format!("invalid repeat count: `{token}`"));
        }
        self.quantify(bytes, least, most.unwrap_or(least))
    }

    fn open(&mut self) -> Result<(), Error> {
        self.flush()?;
        let Some(after) = self.rest().strip_prefix("(?") else {
            self.copy(1);
            return self.enter();
        };
        if after.starts_with("P<") || after.starts_with('<') {
            let name = after.trim_start_matches('P').get(1..).unwrap_or_default();
            let len = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            if len == 0 || name.as_bytes().get(len) != Some(&b'>') {
                return malformed(format!("invalid named capture: `{}`", self.rest()));
            }
            self.copy(2 + after.len() - name.len() + len + 1);
            return self.enter();
        }
        let len = after.bytes().take_while(|b| matches!(b, b'i' | b'm' | b's' | b'U' | b'-')).count();
        let flags = after.get(..len).unwrap_or_default();
        let valid = flags.matches('-').count() <= 1 && !flags.ends_with('-');
        match after.as_bytes().get(len) {
            Some(b':') if valid => {
                self.copy(2 + len + 1);
                self.enter()
            }
            Some(b')') if valid && len > 0 => {
                self.copy(2 + len + 1);
                self.atom = None;
                Ok(())
            }
            _ => malformed(format!("invalid or unsupported Perl syntax: `{}`", shortened(self.rest()))),
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        if self.frames.len() >= NEST_MAX as usize {
            return Err(Error::TooLarge);
        }
        self.frames.push(Frame::NEW);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.flush()?;
        let frame = self.frames.pop().unwrap_or(Frame::NEW);
        if self.frames.is_empty() {
            return malformed(format!("unexpected ): `{}`", self.pattern));
        }
        self.copy(1);
        let matches_empty = frame.matches_empty || frame.any_matches_empty;
        self.atom(Atom { size: frame.size.max(1), repeats: frame.repeats.max(1), matches_empty })
    }

    fn escape(&mut self) -> Result<(), Error> {
        let after = self.rest().get(1..).unwrap_or_default();
        let Some(c) = after.chars().next() else {
            return malformed("trailing backslash at end of expression: ``");
        };
        if c == 'Q' {
            let quoted = after.get(1..).unwrap_or_default();
            let end = quoted.find("\\E");
            for c in quoted.get(..end.unwrap_or(quoted.len())).unwrap_or_default().chars() {
                self.literal(c)?;
            }
            self.pos += 2 + end.map_or(quoted.len(), |end| end + 2);
            return Ok(());
        }
        let look = match c {
            'A' | 'z' => Some(format!("\\{c}")),
            'b' => Some("(?-u:\\b)".to_owned()),
            'B' => Some("(?-u:\\B)".to_owned()),
            _ => None,
        };
        if let Some(look) = look {
            self.flush()?;
            self.out.push_str(&look);
            self.pos += 2;
            self.atom = Some(Atom::look(c != 'b'));
            return Ok(());
        }
        if let Some(set) = class::perl(c) {
            self.out.push_str(set);
            self.pos += 2;
            return self.atom(Atom::chars(CLASS_SIZE));
        }
        if matches!(c, 'p' | 'P') {
            class::unicode(self)?;
            return self.atom(Atom::chars(UNICODE_CLASS_SIZE));
        }
        let c = self.escaped()?;
        self.literal(c)
    }

    /// The character that an escape stands for.
    pub(super) fn escaped(&mut self) -> Result<char, Error> {
        let whole = self.rest();
        let after = whole.get(1..).unwrap_or_default();
        let mut chars = after.chars();
        let first = chars.next().unwrap_or('\\');
        let bad = |bytes: usize| {
            malformed(format!("invalid escape sequence: `{}`", whole.get(..bytes).unwrap_or(whole)))
        };
        let (c, len) = match first {
            'a' => ('\u{7}', 1),
            'f' => ('\u{c}', 1),
            't' => ('\t', 1),
            'n' => ('\n', 1),
            'r' => ('\r', 1),
            'v' => ('\u{b}', 1),
            'x' if after.starts_with("x{") => {
                let digits = after.get(2..).and_then(|t| t.split_once('}')).map_or("", |(digits, _)| digits);
                let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| valid).and_then(char::from_u32);
                let Some(c) = code else { return bad(3) };
                (c, digits.len() + 3)
            }
            'x' => {
                let digits = after.get(1..3).unwrap_or_default();
                let valid = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(digits, 16).ok().filter(|_| valid).and_then(char::from_u32);
                let Some(c) = code else { return bad(2) };
                (c, 3)
            }
            '0'..='7' => {
                let digits = after.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                // One digit other than zero would refer back, which there is not.
                if first != '0' && digits == 1 {
                    return bad(2);
                }
                let code = u32::from_str_radix(after.get(..digits).unwrap_or_default(), 8).ok();
                let Some(c) = code.and_then(char::from_u32) else { return bad(2) };
                (c, digits)
            }
            c if c.is_ascii_punctuation() || c == ' ' => (c, 1),
            c => return bad(1 + c.len_utf8()),
        };
        self.pos += 1 + len;
        Ok(c)
    }
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(4).map_or(text.len(), |(i, _)| i);
    text.get(..end).unwrap_or(text)
}

/// The length and the numbers of a count.
fn counts(text: &str) -> Option<(usize, u64, Option<u64>)> {
    // Longer than any number that is allowed: it need not be exact, only too large.
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let window = text.get(1..)?;
    let end = window.bytes().position(|b| !(b.is_ascii_digit() || b == b','))?;
    let inner = window.get(..end)?;
    if window.as_bytes().get(end) != Some(&b'}') {
        return None;
    }
    let (least, most) = match inner.split_once(',') {
        None => (number(inner)?, Some(number(inner)?)),
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((end + 2, least, most))
}
