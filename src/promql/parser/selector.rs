//! `name{label="value"}`

use super::{Parsed, Parser, operand::Held};
use crate::{
    promql::{
        ast::{BinaryOp, MatchOp, Matcher, Selector, Span},
        error::Part,
        go_regex,
        lexer::{Kind, Token},
    },
    series::METRIC_NAME,
};

const CONTEXT: &str = "label matching";

impl Parser<'_> {
    /// A selector whose name, if any, was just read.
    pub(super) fn selector(&mut self, name: Option<Span>) -> Parsed<Held> {
        let start = name.map_or(self.token.span.start, |span| span.start);
        let mut matchers = Vec::with_capacity(2);
        if let Some(name) = name {
            matchers.push(named(self.text_at(name)));
        }
        if self.token.kind == Kind::LeftBrace {
            self.advance()?;
            while !self.eat(Kind::RightBrace)? {
                let matcher = self.matcher()?;
                self.count(&matcher)?;
                matchers.push(matcher);
                if !self.eat(Kind::Comma)? && self.token.kind != Kind::RightBrace {
                    return self.unexpected(CONTEXT, "\",\" or \"}\"");
                }
            }
        }
        let span = self.since(start);
        if name.is_some()
            && let [first, rest @ ..] = &*matchers
            && let Some(second) = rest.iter().find(|m| &*m.name == METRIC_NAME)
        {
            let (first, second) = (first.value.clone(), second.value.clone());
            self.mistyped(span, || format!("metric name must not be set twice: {first:?} or {second:?}"));
        }
        let selector = Selector::new(matchers);
        Ok(Held::Selector(selector, span))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let Token { kind, span } = self.token;
        let name: Box<str> = match kind {
            Kind::Ident => self.text_at(span).into(),
            Kind::Str => self.unquoted(span)?,
            _ => return self.unexpected(CONTEXT, "identifier or \"}\""),
        };
        self.advance()?;
        let op = match self.token.kind {
            Kind::Equal => MatchOp::Equal,
            Kind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            // `{"metric.name"}`
            _ if kind == Kind::Str => return Ok(named(&name)),
            _ => return self.unexpected(CONTEXT, "label matching operator"),
        };
        self.advance()?;
        let value_span = self.token.span;
        if self.token.kind != Kind::Str {
            return self.unexpected(CONTEXT, "string");
        }
        let value = self.unquoted(value_span)?;
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.pattern(&value, Span { start: span.start, end: value_span.end })?;
        }
        self.advance()?;
        Ok(Matcher { name, op, value })
    }

    fn count(&mut self, matcher: &Matcher) -> Parsed<()> {
        self.matchers += 1;
        let max = self.limits.matchers;
        if self.matchers > max {
            let message = format!("query has more than the {max} matchers allowed");
            return self.beyond(self.token.span, Part::Matchers, max, message);
        }
        if matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex) {
            self.regex_bytes += matcher.value.len();
        }
        Ok(())
    }

    fn pattern(&self, pattern: &str, span: Span) -> Parsed<()> {
        let max = self.limits.regex_bytes;
        if self.regex_bytes + pattern.len() > max {
            let message = format!("regular expressions are longer than the {max} bytes allowed");
            return self.beyond(span, Part::Regex, max, message);
        }
        go_regex::check(pattern).or_else(|error| match error {
            go_regex::Error::TooLarge => self.beyond(span, Part::Regex, max, error.to_string()),
            go_regex::Error::Malformed(_) => self.fail(span, error.to_string()),
        })
    }

    /// A selector must not select everything by mistake.
    pub(super) fn check_selector(&mut self, selector: &Selector, span: Span) {
        if !selector.matchers.iter().any(excludes_empty) {
            self.mistyped(span, || "vector selector must contain at least one non-empty matcher".to_owned());
        }
    }
}

fn named(name: &str) -> Matcher {
    Matcher { name: METRIC_NAME.into(), op: MatchOp::Equal, value: name.into() }
}

/// Whether a series without the label fails the matcher.
fn excludes_empty(matcher: &Matcher) -> bool {
    match matcher.op {
        MatchOp::Equal => !matcher.value.is_empty(),
        MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Regex => !go_regex::matches_empty(&matcher.value),
        MatchOp::NotRegex => go_regex::matches_empty(&matcher.value),
    }
}
