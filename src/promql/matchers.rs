//! Matchers in a normal form, and whether they narrow a selector down.

use std::{fmt::Write as _, sync::Arc};

use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind},
};

use super::{
    ast::{MatchOp, Matcher},
    go_regex::single_literal,
    raw_byte,
};
use crate::series::METRIC_NAME;

/// Longer patterns are not parsed: a few hundred Unicode classes under `(?i)` cost tens of milliseconds.
const PARSED_BYTES_MAX: usize = 256;
/// A class with at least this many of the 1,112,064 characters is "any character".
const ANY_CLASS_CHARS: u64 = 1_000_000;

/// The label of a classic histogram's buckets.
pub(super) const BUCKET: &str = "le";

/// The selection of a selector's matchers, at any time.
#[derive(Clone, Debug)]
pub struct Selection {
    /// In their normal form.
    pub(super) matchers: Arc<[Matcher]>,
    /// Nothing narrows it down.
    pub(super) match_all: bool,
    /// Buckets of a classic histogram, which are floats.
    pub(super) is_classic: bool,
    /// The selector alone.
    pub(super) text: Arc<str>,
}

impl Selection {
    /// Of these matchers.
    pub fn of(matchers: &[Matcher]) -> Self {
        let matchers = normalise(matchers);
        let names_buckets = |m: &Matcher| &*m.name == METRIC_NAME && m.value.ends_with("_bucket");
        Self {
            match_all: is_match_all(&matchers),
            is_classic: matchers.iter().any(|m| &*m.name == BUCKET || names_buckets(m)),
            text: selector_text(&matchers).into(),
            matchers: matchers.into(),
        }
    }
}

/// Sorted by name, operator and value, each once; a pattern that is a plain string becomes `=` or `!=`.
pub fn normalise(matchers: &[Matcher]) -> Vec<Matcher> {
    let mut out: Vec<Matcher> = matchers.iter().map(plain).collect();
    out.sort_by(|a, b| (&a.name, a.op as u8, &a.value).cmp(&(&b.name, b.op as u8, &b.value)));
    out.dedup();
    out
}

fn plain(matcher: &Matcher) -> Matcher {
    let op = match matcher.op {
        MatchOp::Regex => MatchOp::Equal,
        MatchOp::NotRegex => MatchOp::NotEqual,
        MatchOp::Equal | MatchOp::NotEqual => return matcher.clone(),
    };
    match single_literal(&matcher.value) {
        Some(value) => Matcher { name: matcher.name.clone(), op, value: value.into() },
        None => matcher.clone(),
    }
}

/// Whether nothing among the matchers narrows the selection down: each accepts series without its label, only
/// excludes some values, or asks for no more than "any value".
pub fn is_match_all(matchers: &[Matcher]) -> bool {
    !matchers.iter().any(narrows)
}

fn narrows(matcher: &Matcher) -> bool {
    match matcher.op {
        MatchOp::Equal => !matcher.value.is_empty(),
        MatchOp::NotEqual | MatchOp::NotRegex => false,
        MatchOp::Regex => pattern_narrows(&matcher.value),
    }
}

fn pattern_narrows(pattern: &str) -> bool {
    if pattern.len() > PARSED_BYTES_MAX {
        let any = |part: &str| matches!(part.trim_matches(['(', ')', '^', '$']), "" | ".*" | ".+");
        return !pattern.split('|').any(any);
    }
    let mut parser = ParserBuilder::new().nest_limit(50).dot_matches_new_line(true).build();
    // Patterns that only Go's dialect accepts name something specific (`\Q…\E`, `\pN`).
    let Ok(hir) = parser.parse(pattern) else { return true };
    hir.properties().minimum_len() != Some(0) && !accepts_any(&hir)
}

/// Whether the pattern accepts every string from some length on.
fn accepts_any(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Alternation(parts) => parts.iter().any(accepts_any),
        HirKind::Capture(capture) => accepts_any(&capture.sub),
        HirKind::Repetition(r) => any_characters(&r.sub) && r.max.is_none(),
        HirKind::Concat(parts) => parts.iter().all(any_characters) && parts.iter().any(accepts_any),
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => false,
    }
}

/// Whether the pattern consists of nothing but "any character", however often.
fn any_characters(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(_) => false,
        HirKind::Class(Class::Unicode(class)) => {
            let chars = |r: &regex_syntax::hir::ClassUnicodeRange| r.end() as u64 - r.start() as u64 + 1;
            class.iter().map(chars).sum::<u64>() >= ANY_CLASS_CHARS
        }
        HirKind::Class(Class::Bytes(_)) => false,
        HirKind::Repetition(r) => any_characters(&r.sub),
        HirKind::Capture(capture) => any_characters(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(any_characters),
        HirKind::Alternation(parts) => parts.iter().any(any_characters),
    }
}

/// Whether a word is none of the names of metrics and functions.
pub(super) fn is_keyword(name: &str) -> bool {
    KEYWORDS.iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Words that a parser may read as something else than a metric name.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "unless",
    "atan2",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "start",
    "end",
    "step",
    "range",
    "inf",
    "nan",
    "anchored",
    "smoothed",
    "fill",
    "fill_left",
    "fill_right",
    "sum",
    "avg",
    "count",
    "min",
    "max",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "count_values",
    "quantile",
    "limitk",
    "limit_ratio",
];

/// The selector as text that every backend accepts in `match[]`: `up{job="api"}`.
pub fn selector_text(matchers: &[Matcher]) -> String {
    let name = matchers
        .iter()
        .find(|m| &*m.name == METRIC_NAME && m.op == MatchOp::Equal && is_metric_name(&m.value));
    let mut out = name.map(|m| m.value.to_string()).unwrap_or_default();
    let mut rest = matchers.iter().filter(|m| name.is_none_or(|n| !std::ptr::eq(n, *m))).peekable();
    if name.is_some() && rest.peek().is_none() {
        return out;
    }
    out.push('{');
    let mut separator = "";
    for matcher in rest {
        out.push_str(separator);
        push_matcher(&mut out, matcher);
        separator = ",";
    }
    out.push('}');
    out
}

pub(super) fn push_matcher(out: &mut String, matcher: &Matcher) {
    if is_label_name(&matcher.name) {
        out.push_str(&matcher.name);
    } else {
        push_quoted(out, &matcher.name);
    }
    out.push_str(match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Regex => "=~",
        MatchOp::NotRegex => "!~",
    });
    push_quoted(out, &matcher.value);
}

pub(super) fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => match raw_byte(c).or(c.is_ascii_control().then_some(c as u8)) {
                // Writing to a string cannot fail.
                Some(byte) => _ = write!(out, "\\x{byte:02x}"),
                None => out.push(c),
            },
        }
    }
    out.push('"');
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
        && !is_keyword(name)
}
