//! The replacement of `label_replace`: text with references to captured groups, as Go's `Regexp.Expand` reads it.

use regex::Captures;

/// A replacement, read once.
#[derive(Debug)]
pub(super) struct Template<'t> {
    parts: Vec<Part<'t>>,
}

#[derive(Debug, PartialEq)]
enum Part<'t> {
    Text(&'t str),
    Number(usize),
    Name(&'t str),
}

impl<'t> Template<'t> {
    /// `$1`, `$name`, `${1}` and `${name}` are captures, `$$` is a dollar; everything else is text.
    pub(super) fn new(text: &'t str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            if let Some(after) = after.strip_prefix('$') {
                parts.push(Part::Text("$"));
                rest = after;
            } else if let Some((name, after)) = reference(after) {
                parts.push(name.parse().map_or(Part::Name(name), Part::Number));
                rest = after;
            } else {
                parts.push(Part::Text("$"));
                rest = after;
            }
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest));
        }
        Self { parts }
    }

    fn pieces<'p>(&'p self, captures: &'p Captures<'_>) -> impl Iterator<Item = &'p str> {
        self.parts.iter().map(move |part| match part {
            Part::Text(text) => text,
            Part::Number(number) => captures.get(*number).map_or("", |found| found.as_str()),
            Part::Name(name) => captures.name(name).map_or("", |found| found.as_str()),
        })
    }

    /// Bytes of the text that [`expand`](Self::expand) makes.
    pub(super) fn length(&self, captures: &Captures<'_>) -> usize {
        self.pieces(captures).map(str::len).fold(0, usize::saturating_add)
    }

    /// The text with the captures in place.
    pub(super) fn expand(&self, captures: &Captures<'_>) -> String {
        let mut out = String::with_capacity(self.length(captures));
        out.extend(self.pieces(captures));
        out
    }
}

/// The name behind a dollar, and the rest of the text.
fn reference(text: &str) -> Option<(&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(braced) = text.strip_prefix('{') {
        let (name, rest) = braced.split_once('}')?;
        return (!name.is_empty() && name.chars().all(is_word)).then_some((name, rest));
    }
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn it_expands_as_the_crate_does_and_knows_the_length() {
        let regex = Regex::new("(?P<host>[a-z]+)-([0-9]*)").unwrap();
        let captures = regex.captures("web-12").unwrap();
        for text in [
            "", "plain", "$1", "$2$1", "${1}x$2", "$host:$2", "$$1", "$", "a$", "${", "$1x", "$9", "é$1-é",
            "$-",
        ] {
            let mut want = String::new();
            captures.expand(text, &mut want);
            let template = Template::new(text);
            assert_eq!(template.expand(&captures), want, "{text}");
            assert_eq!(template.length(&captures), want.len(), "{text}");
        }
        // Go takes an invalid name for text, the crate for a capture that does not exist; and letters of any script are
        // part of a name.
        assert_eq!(Template::new("${}$1").expand(&captures), "${}web");
        assert_eq!(Template::new("$1é").expand(&captures), "");
    }
}
