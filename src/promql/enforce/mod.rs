//! Labels that queries are confined to: every selector gets matchers, beside its own.
//!
//! Matchers only narrow a selection, so that nothing has to be understood of those that the query has. The text is written
//! anew word by word, without comments and raw strings: dialects disagree about where these end (to MetricsQL a comment goes
//! on after a carriage return, and a backslash escapes a backquote), and a comment to Weir could be a query to the
//! database.

use std::fmt;

use super::{
    Limits, ParseError, Part,
    ast::{Ast, Expr, MatchOp, Matcher, Span},
    function::FunctionId,
    go_regex,
    lexer::{Kind, Lexer, unquote},
    matchers::{normalise, push_matcher, push_quoted},
    shape::SelectorShape,
};

/// The labels that a tenant's queries are confined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelEnforcement {
    labels: Vec<Allowed>,
    refuses_conflicts: bool,
    /// The matchers as text, without braces.
    text: String,
}

/// The values of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    matcher: Matcher,
    values: Vec<Box<str>>,
}

/// Why a query cannot be confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnforceError {
    /// A selector asks for values of this label that are none of those allowed.
    Conflict(Box<str>),
    /// `info` without its second argument: it reads series by itself, and a matcher would change which labels it adds.
    Info,
    /// It is too long with the matchers.
    Parse(ParseError),
}

impl fmt::Display for EnforceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(label) => write!(f, "a selector asks for values of `{label}` that are none of yours"),
            Self::Info => f.write_str(
                "info() reads series that no selector names; name them and their labels in its second argument, such as \
                 info(v, {__name__=\"target_info\", version=~\".+\"})",
            ),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnforceError {}

impl From<ParseError> for EnforceError {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl LabelEnforcement {
    /// Of labels and their values, none of which may be empty; whether a selector that asks for none of them is refused.
    pub fn new<'v>(
        labels: impl IntoIterator<Item = (&'v str, &'v [String])>,
        refuses_conflicts: bool,
    ) -> Self {
        let allowed = |(name, values): (&'v str, &'v [String])| {
            let mut values: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
            values.sort_unstable();
            values.dedup();
            Allowed { matcher: one_of(name, &values), values }
        };
        Self::of(labels.into_iter().map(allowed).collect(), refuses_conflicts)
    }

    fn of(labels: Vec<Allowed>, refuses_conflicts: bool) -> Self {
        let mut text = String::new();
        for allowed in &labels {
            if !text.is_empty() {
                text.push(',');
            }
            push_matcher(&mut text, &allowed.matcher);
        }
        Self { labels, refuses_conflicts, text }
    }

    /// Both at once.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut labels = self.labels.clone();
        labels.extend(other.labels.iter().filter(|allowed| !self.labels.contains(allowed)).cloned());
        Self::of(labels, self.refuses_conflicts || other.refuses_conflicts)
    }

    /// The matchers that every selector gets.
    pub fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.labels.iter().map(|allowed| &allowed.matcher)
    }

    /// A selector of everything that may be read.
    pub fn selector(&self) -> String {
        format!("{{{}}}", self.text)
    }

    /// The query with the matchers in each of its selectors.
    ///
    /// # Errors
    /// It cannot be confined, or becomes longer than the longest text that is ever parsed.
    pub fn confine(&self, ast: &Ast) -> Result<String, EnforceError> {
        let mut starts = Vec::new();
        for node in &ast.nodes {
            match &node.expr {
                Expr::Selector(selector) => {
                    self.check(&selector.matchers)?;
                    starts.push(node.span.start);
                }
                Expr::Call { func, args } if func.id == FunctionId::Info && args.len() < 2 => {
                    return Err(EnforceError::Info);
                }
                _ => {}
            }
        }
        starts.sort_unstable();
        let max = Limits::default().bytes;
        let length = starts.len().saturating_mul(self.text.len() + 3).saturating_add(ast.text.len());
        if length > max {
            let message = format!("query is {length} bytes long with the labels of its tenant");
            let whole = Span { start: 0, end: ast.text.len() as u32 };
            return Err(ParseError::limit(&ast.text, whole, Part::Text, max, message).into());
        }
        self.rewrite(&ast.text, &starts, length)
    }

    /// The words of a text with the matchers in the selectors that begin at `starts`.
    fn rewrite(&self, text: &str, starts: &[u32], length: usize) -> Result<String, EnforceError> {
        let (mut out, mut lexer) = (String::with_capacity(length), Lexer::new(text));
        let mut starts = starts.iter().copied().peekable();
        // A selector's name is written, its braces are not; its matchers are written, and others may follow.
        let (mut named, mut matched, mut end) = (false, false, 0);
        loop {
            let token = lexer.next()?;
            let opens = token.kind == Kind::LeftBrace;
            if named && !opens {
                out.extend(["{", &self.text, "}"]);
            } else if matched && token.kind != Kind::RightBrace {
                out.push(',');
            }
            if token.kind == Kind::Eof {
                return Ok(out);
            }
            if end < token.span.start && end > 0 {
                out.push(' ');
            }
            end = token.span.end;
            let word = text.get(token.span.start as usize..end as usize).unwrap_or_default();
            if token.kind == Kind::Str && word.starts_with('`') {
                let value = unquote(word).map_err(|message| ParseError::new(text, token.span, message))?;
                push_quoted(&mut out, &value);
            } else {
                out.push_str(word);
            }
            let begins = starts.next_if(|start| *start == token.span.start).is_some();
            matched = opens && (begins || named);
            named = begins && !opens;
            if matched {
                out.push_str(&self.text);
            }
        }
    }

    /// The matchers of a selector, and these.
    ///
    /// # Errors
    /// They cannot both be met, and that is to be refused.
    pub fn add_to(&self, matchers: &mut Vec<Matcher>) -> Result<(), EnforceError> {
        self.check(matchers)?;
        matchers.extend(self.matchers().cloned());
        Ok(())
    }

    /// Whether each of these selectors is confined.
    pub fn holds_in(&self, selectors: &[SelectorShape]) -> bool {
        let is_confined = |selector: &SelectorShape| {
            self.labels.iter().all(|allowed| selector.matchers.contains(&allowed.matcher))
        };
        selectors.iter().all(is_confined)
    }

    fn check(&self, matchers: &[Matcher]) -> Result<(), EnforceError> {
        let conflict = |allowed: &&Allowed| {
            let own: Vec<&Matcher> = matchers.iter().filter(|m| m.name == allowed.matcher.name).collect();
            !own.is_empty() && !allowed.values.iter().any(|value| own.iter().all(|m| accepts(m, value)))
        };
        match self.labels.iter().filter(|_| self.refuses_conflicts).find(conflict) {
            Some(allowed) => Err(EnforceError::Conflict(allowed.matcher.name.clone())),
            None => Ok(()),
        }
    }
}

/// The matcher of any of these values, in its normal form.
fn one_of(name: &str, values: &[Box<str>]) -> Matcher {
    let (op, value) = match values {
        [value] => (MatchOp::Equal, value.clone()),
        several => {
            let quoted: Vec<String> = several.iter().map(|value| quote_meta(value)).collect();
            (MatchOp::Regex, quoted.join("|").into())
        }
    };
    let matcher = Matcher { name: name.into(), op, value };
    normalise(std::slice::from_ref(&matcher)).pop().unwrap_or(matcher)
}

/// As Go's `regexp.QuoteMeta`.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A pattern that cannot be compiled is taken for a match: the matchers stand beside it.
fn accepts(matcher: &Matcher, value: &str) -> bool {
    let is_match = || go_regex::Pattern::new(&matcher.value).map(|pattern| pattern.is_match(value));
    match matcher.op {
        MatchOp::Equal => *matcher.value == *value,
        MatchOp::NotEqual => *matcher.value != *value,
        MatchOp::Regex => is_match().unwrap_or(true),
        MatchOp::NotRegex => is_match().map_or(true, |matches| !matches),
    }
}

#[cfg(test)]
mod tests;
