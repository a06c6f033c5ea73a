//! Patterns that are no more than a list of strings, as Grafana writes a variable of several values. However long, such
//! a list is a set to look up in; an automaton for it would take megabytes.

use std::collections::BTreeSet;

use regex::Regex;

use super::{Error, compile};

/// A pattern, ready to be held against whole strings.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// These strings and no others.
    OneOf(BTreeSet<Box<str>>),
    /// The strings that the expression matches.
    Regex(Regex),
}

impl Pattern {
    /// # Errors
    /// Names the mistake in the pattern.
    pub fn new(pattern: &str) -> Result<Self, Error> {
        match literals(pattern) {
            Some(values) => Ok(Self::OneOf(values.map(Into::into).collect())),
            None => compile(pattern).map(Self::Regex),
        }
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        match self {
            Self::OneOf(values) => values.contains(value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// The strings that a pattern such as `api|web` or `(10\.0\.0\.1|10\.0\.0\.2)` stands for; `None` when it is anything
/// but a list of strings. Nothing is held but the string at hand.
pub fn literals(pattern: &str) -> Option<impl Iterator<Item = String>> {
    let list = List::of(pattern)?;
    let mut rest = Some(list.text);
    Some(std::iter::from_fn(move || {
        let text = rest?;
        let mut value = String::new();
        let mut chars = text.char_indices();
        rest = None;
        while let Some((at, c)) = chars.next() {
            match c {
                // The list was checked: a character follows.
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                '|' => {
                    rest = text.get(at + 1..);
                    break;
                }
                c => value.push(c),
            }
        }
        Some(value)
    }))
}

/// A list of strings, checked to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List<'p> {
    /// Without the brackets around it.
    text: &'p str,
    /// One of the strings is empty.
    pub(super) has_empty: bool,
    /// How many strings there are.
    pub(super) len: usize,
}

impl<'p> List<'p> {
    pub(super) fn of(pattern: &'p str) -> Option<Self> {
        let bare = pattern.strip_prefix('(').and_then(|p| p.strip_suffix(')')).unwrap_or(pattern);
        let text = bare.strip_prefix("?:").filter(|_| bare.len() < pattern.len()).unwrap_or(bare);
        let mut list = Self { text, has_empty: false, len: 1 };
        let mut is_empty = true;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            is_empty = match c {
                '\\' => chars.next().filter(char::is_ascii_punctuation).map(|_| false)?,
                '|' => {
                    list.has_empty |= is_empty;
                    list.len += 1;
                    true
                }
                '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
                _ => false,
            };
        }
        list.has_empty |= is_empty;
        Some(list)
    }
}

/// The one string that a pattern stands for.
pub fn single_literal(pattern: &str) -> Option<String> {
    List::of(pattern).filter(|list| list.len == 1)?;
    literals(pattern)?.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_strings_are_read() {
        let read = |pattern| literals(pattern).map(|all| all.collect::<Vec<_>>().join(","));
        for (pattern, want) in [
            ("api", Some("api")),
            ("api|web", Some("api,web")),
            (r"(10\.0\.0\.1|10\.0\.0\.2)", Some("10.0.0.1,10.0.0.2")),
            ("(?:a|b)", Some("a,b")),
            (r"a\|b", Some("a|b")),
            ("a||b", Some("a,,b")),
            ("a|", Some("a,")),
            ("", Some("")),
            ("a.*", None),
            ("(a)|(b)", None),
            ("(a|b", None),
            (r"\d", None),
            (r"a\", None),
            ("?:a", None),
        ] {
            assert_eq!(read(pattern).as_deref(), want, "{pattern}");
        }
        for (pattern, empty) in
            [("a||b", true), (r"a\||b", false), ("a|", true), ("|a", true), ("", true), ("a", false)]
        {
            assert_eq!(List::of(pattern).unwrap().has_empty, empty, "{pattern}");
        }
        assert_eq!(single_literal("(a)").as_deref(), Some("a"));
        assert_eq!(single_literal("a|b"), None);
    }

    /// Grafana's "All" of a variable with 10,000 values, and the same behind a port.
    #[test]
    fn all_values_of_a_large_variable_match() {
        let hosts: Vec<_> = (0..10_000).map(|n| format!(r"web-{n:05}\.example\.com")).collect();
        let all = format!("({})", hosts.join("|"));
        let pattern = Pattern::new(&all).unwrap();
        assert!(matches!(&pattern, Pattern::OneOf(values) if values.len() == 10_000));
        assert!(pattern.is_match("web-09999.example.com") && !pattern.is_match("web-09999xexample.com"));
        let with_port = Pattern::new(&format!("{all}:91[0-9]+")).unwrap();
        assert!(
            with_port.is_match("web-09999.example.com:9100") && !with_port.is_match("web-09999.example.com")
        );
    }
}
