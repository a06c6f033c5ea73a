//! Whether a selector may read a metric, whichever way it is written.

use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};

use crate::{
    promql::{
        ast::{MatchOp, Matcher},
        go_regex,
        shape::{SelectorShape, is_match_all},
    },
    series::METRIC_NAME,
};

/// The name of a metric, or the beginning of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MetricName {
    Exact(String),
    Prefix(String),
}

impl MetricName {
    /// Reads `name` or `prefix*`.
    pub(super) fn new(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Whether a selector may read it: none of its matchers on the name rules the metric out. A listing reads it only
    /// where it names something, since pickers of metrics list everything.
    pub(super) fn may_be_read(&self, selector: &SelectorShape, listing: bool) -> bool {
        let names = || selector.matchers.iter().filter(|matcher| *matcher.name == *METRIC_NAME);
        (!listing || !is_nameless(selector)) && names().all(|matcher| self.accepted_by(matcher))
    }

    /// Whether a matcher of names accepts it, or one of those that begin so.
    fn accepted_by(&self, matcher: &Matcher) -> bool {
        let value = &*matcher.value;
        match (self, matcher.op) {
            (Self::Exact(name), MatchOp::Equal) => name == value,
            (Self::Exact(name), MatchOp::NotEqual) => name != value,
            (Self::Exact(name), MatchOp::Regex) => is_match(value, name),
            (Self::Exact(name), MatchOp::NotRegex) => !is_match(value, name),
            (Self::Prefix(prefix), MatchOp::Equal) => value.starts_with(prefix.as_str()),
            (Self::Prefix(prefix), MatchOp::Regex) => may_begin(value, prefix),
            // It excludes some names, perhaps all of these: to find out would cost too much.
            (Self::Prefix(_), MatchOp::NotEqual | MatchOp::NotRegex) => true,
        }
    }
}

/// A pattern that does not compile is taken for a match: the database refuses it, or understands more than Weir does.
fn is_match(pattern: &str, name: &str) -> bool {
    go_regex::Pattern::new(pattern).map_or(true, |pattern| pattern.is_match(name))
}

/// Whether a pattern may match a text that begins so.
fn may_begin(pattern: &str, prefix: &str) -> bool {
    let Some(beginnings) = beginnings(pattern) else { return true };
    let Some(literals) = beginnings.literals() else { return true };
    literals.iter().any(|literal| {
        let (literal, prefix) = (literal.as_bytes(), prefix.as_bytes());
        literal.starts_with(prefix) || prefix.starts_with(literal)
    })
}

/// Texts with which everything that a pattern matches begins.
fn beginnings(pattern: &str) -> Option<Seq> {
    let hir = go_regex::parse(pattern).ok()?;
    Some(Extractor::new().kind(ExtractKind::Prefix).extract(&hir))
}

/// Nothing names a metric: no matcher of the name, or one that goes without a beginning (`.*_total`, `[a-z].+`).
pub(super) fn is_nameless(selector: &SelectorShape) -> bool {
    let names = |matcher: &Matcher| {
        *matcher.name == *METRIC_NAME
            && match matcher.op {
                MatchOp::Equal => !matcher.value.is_empty(),
                MatchOp::Regex => {
                    !is_match_all(std::slice::from_ref(matcher)) && has_beginning(&matcher.value)
                }
                MatchOp::NotEqual | MatchOp::NotRegex => false,
            }
    };
    !selector.matchers.iter().any(names)
}

/// Whether everything that a pattern matches begins with two known characters at least.
fn has_beginning(pattern: &str) -> bool {
    let Some(beginnings) = beginnings(pattern) else { return false };
    beginnings.literals().is_some_and(|literals| {
        literals.iter().all(|literal| literal.len() >= 2 || literal.is_exact() && !literal.is_empty())
    })
}
