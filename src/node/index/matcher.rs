//! Matchers, compiled for look-ups in the index. Patterns are in Go's dialect, as the engine reads them.

use std::{collections::BTreeSet, fmt};

use regex::Regex;
use regex_syntax::hir::{
    Hir,
    literal::{Extractor, Literal},
};

use crate::{promql::go_regex, series::MatchOp};

/// More alternatives than this are tested one value at a time.
const LITERALS_MAX: usize = 4_096;

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMatcher(pub String);

impl fmt::Display for BadMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadMatcher {}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: Box<str>,
    negative: bool,
    test: Test,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Every value that is not empty. Whether the empty one matches is the matcher's `accepts`.
    Any,
    /// Exactly these values.
    OneOf(BTreeSet<Box<str>>),
    /// Values that begin with one of these, in disjoint ranges, and match.
    Prefixed { prefixes: Vec<Box<str>>, regex: Regex },
    /// Values that match.
    Pattern(Regex),
}

impl Matcher {
    /// # Errors
    /// The pattern is malformed or too large.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, BadMatcher> {
        let test = match op {
            MatchOp::Equal | MatchOp::NotEqual => Test::OneOf(BTreeSet::from([value.into()])),
            MatchOp::Regex | MatchOp::NotRegex => Test::pattern(value)?,
        };
        Ok(Self { name: name.into(), negative: matches!(op, MatchOp::NotEqual | MatchOp::NotRegex), test })
    }

    /// The label it looks at.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value (empty where the label is missing) satisfies it.
    pub fn accepts(&self, value: &str) -> bool {
        self.test.accepts(value) != self.negative
    }

    pub(super) fn negative(&self) -> bool {
        self.negative
    }

    pub(super) fn test(&self) -> &Test {
        &self.test
    }
}

impl Test {
    fn pattern(pattern: &str) -> Result<Self, BadMatcher> {
        let bad = |e: &dyn fmt::Display| BadMatcher(format!("invalid regular expression {pattern:?}: {e}"));
        if pattern == ".+" {
            return Ok(Self::Any);
        }
        if let Some(values) = go_regex::literals(pattern) {
            return Ok(Self::OneOf(values.map(Into::into).collect()));
        }
        let hir = go_regex::parse(pattern).map_err(|e| bad(&e))?;
        let regex = go_regex::compile(pattern).map_err(|e| bad(&e))?;
        Ok(match literals(&hir) {
            Literals::Exact(set) => Self::OneOf(set),
            Literals::Prefixes(prefixes) => Self::Prefixed { prefixes, regex },
            Literals::None => Self::Pattern(regex),
        })
    }

    fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Any => !value.is_empty(),
            Self::OneOf(set) => set.contains(value),
            Self::Prefixed { regex, .. } | Self::Pattern(regex) => regex.is_match(value),
        }
    }
}

enum Literals {
    Exact(BTreeSet<Box<str>>),
    Prefixes(Vec<Box<str>>),
    None,
}

/// The literals that a whole pattern can be, or the prefixes it can begin with.
fn literals(hir: &Hir) -> Literals {
    let mut extractor = Extractor::new();
    extractor.limit_total(LITERALS_MAX).limit_repeat(LITERALS_MAX).limit_literal_len(1_024);
    let seq = extractor.extract(hir);
    let Some(found) = seq.literals() else { return Literals::None };
    // An assertion such as `\b` takes no room in a literal, so it could be lost.
    let exact = hir.properties().look_set().is_empty() && found.iter().all(Literal::is_exact);
    let texts: Option<BTreeSet<Box<str>>> =
        found.iter().map(|l| std::str::from_utf8(l.as_bytes()).ok().map(Into::into)).collect();
    let Some(texts) = texts else { return Literals::None };
    if exact {
        return Literals::Exact(texts);
    }
    let mut prefixes: Vec<Box<str>> = Vec::new();
    for text in texts {
        // Sorted: a text that begins with an earlier one is right behind it, and already covered.
        if !prefixes.last().is_some_and(|p| text.starts_with(&**p)) {
            prefixes.push(text);
        }
    }
    if prefixes.iter().any(|p| p.is_empty()) { Literals::None } else { Literals::Prefixes(prefixes) }
}
