//! Matchers, ready to be held against labels.

use regex::Regex;

use crate::{
    promql::{
        ast::{MatchOp, Matcher},
        go_regex::{self, Pattern},
    },
    series::Labels,
};

/// Matchers that must all hold.
#[derive(Debug)]
pub struct Matchers(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: Box<str>,
    value: Box<str>,
    pattern: Option<Pattern>,
    negative: bool,
}

impl Matchers {
    /// # Errors
    /// Says which pattern is malformed or too large.
    pub fn compile(matchers: &[Matcher]) -> Result<Self, String> {
        let compiled = matchers.iter().map(|m| {
            let pattern = match m.op {
                MatchOp::Regex | MatchOp::NotRegex => {
                    Some(Pattern::new(&m.value).map_err(|error| invalid(&m.value, &error))?)
                }
                MatchOp::Equal | MatchOp::NotEqual => None,
            };
            let negative = matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegex);
            Ok(Compiled { name: m.name.clone(), value: m.value.clone(), pattern, negative })
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// Whether the labels satisfy all matchers; a missing label is an empty one.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|m| m.matches(labels.get(&m.name)))
    }

    /// Whether one string satisfies all matchers, of any label.
    pub(super) fn accept(&self, value: &str) -> bool {
        self.0.iter().all(|m| m.matches(value))
    }
}

impl Compiled {
    fn matches(&self, value: &str) -> bool {
        let found = self.pattern.as_ref().map_or(*self.value == *value, |pattern| pattern.is_match(value));
        found != self.negative
    }
}

/// A pattern of a query as Prometheus reads it: anchored, and `.` matches a newline.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    go_regex::compile(pattern).map_err(|error| invalid(pattern, &error))
}

fn invalid(pattern: &str, error: &go_regex::Error) -> String {
    format!("invalid regular expression {pattern:?}: {error}")
}
