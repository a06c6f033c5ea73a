//! MetricsQL's `WITH` templates, expanded as text.
//!
//! VictoriaMetrics expands them when it parses: one copy for each use, without a bound. `WITH (a0=x, a1=a0+a0, …,
//! a24=a23+a23) a24` is 356 bytes and took 1.9 GiB and 43 s of CPU. The expanded text is priced, so it is made here
//! first, of a bounded length.

use std::{borrow::Cow, rc::Rc};

use super::{ParseError, Part, ast::Span, metricsql::is_name};

/// Longest expansion, bytes: as long as a query may be.
const EXPANDED_MAX: usize = 64 << 10;
/// Depth of templates within templates; a template that refers to itself reaches it.
const DEPTH_MAX: usize = 100;
/// Templates that exist without `WITH` and use an argument more than once (metricsql, `parser.go`).
const BUILT_IN: &str = "WITH (ru(freev, maxv) = clamp_min(maxv - clamp_min(freev, 0), 0) / clamp_min(maxv, 0) * 100, \
                        ttf(freev) = clamp_max(-freev, 0) / clamp_max(deriv_fast(freev), 0)) ";

/// The query without templates; borrowed where it has none.
///
/// # Errors
/// It expands to more than 64 KiB, or a definition is not closed.
pub fn expand(text: &str) -> Result<Cow<'_, str>, ParseError> {
    let words = ["with", "ru", "ttf"];
    let uses = tokens(text).any(|token| words.iter().any(|word| token.eq_ignore_ascii_case(word)));
    if !uses {
        return Ok(Cow::Borrowed(text));
    }
    let mut expansion = Expansion { out: String::new() };
    let whole = format!("{BUILT_IN}{text}");
    let whole_span = Span { start: 0, end: text.len() as u32 };
    let expanded = expansion.expand(&whole, &Scope::default(), 0);
    expanded.map_err(|message| ParseError::limit(text, whole_span, Part::Text, EXPANDED_MAX, message))?;
    Ok(Cow::Owned(expansion.out))
}

/// Definitions in force, the innermost first.
#[derive(Clone, Default)]
struct Scope(Option<Rc<Level>>);

struct Level {
    definitions: Vec<Definition>,
    outer: Scope,
}

#[derive(Clone)]
struct Definition {
    name: String,
    parameters: Option<Vec<String>>,
    body: String,
    /// The definitions that the body may use; `None` for those of its own level.
    scope: Option<Scope>,
}

impl Scope {
    fn with(&self, definitions: Vec<Definition>) -> Self {
        Self(Some(Rc::new(Level { definitions, outer: self.clone() })))
    }

    /// The definition of a name, and the scope that it was made in.
    fn find(&self, name: &str) -> Option<(&Definition, &Self)> {
        let level = self.0.as_ref()?;
        // VictoriaMetrics reads the names of functions, those of templates included, in either case.
        let is_it = |definition: &&Definition| match definition.parameters {
            Some(_) => definition.name.eq_ignore_ascii_case(name),
            None => definition.name == name,
        };
        let found = level.definitions.iter().rev().find(is_it);
        match found {
            Some(definition) => Some((definition, definition.scope.as_ref().unwrap_or(self))),
            None => level.outer.find(name),
        }
    }
}

struct Expansion {
    out: String,
}

impl Expansion {
    fn push(&mut self, text: &str) -> Result<(), &'static str> {
        if self.out.len() + text.len() > EXPANDED_MAX {
            return Err("WITH templates expand to more than 64 KiB");
        }
        self.out.push_str(text);
        Ok(())
    }

    fn expand(&mut self, text: &str, scope: &Scope, depth: usize) -> Result<(), &'static str> {
        if depth > DEPTH_MAX {
            return Err("WITH templates are nested deeper than 100 levels");
        }
        let (mut scope, mut tokens) = (scope.clone(), tokens(text));
        while let Some(token) = tokens.next() {
            if token.eq_ignore_ascii_case("with") && tokens.opens() {
                let definitions = tokens.bracketed().ok_or("a WITH template is not closed")?;
                scope = scope.with(split(definitions).into_iter().filter_map(definition).collect());
                continue;
            }
            let Some((definition, made_in)) = scope.find(token) else {
                self.push(token)?;
                continue;
            };
            let inner = match &definition.parameters {
                None => made_in.clone(),
                Some(parameters) if tokens.opens() => {
                    let arguments = tokens.bracketed().ok_or("a WITH template is not closed")?;
                    made_in.with(bind(parameters, &split(arguments), &scope))
                }
                // A metric of the same name as a function.
                Some(_) => {
                    self.push(token)?;
                    continue;
                }
            };
            let body = definition.body.clone();
            self.push("(")?;
            self.expand(&body, &inner, depth + 1)?;
            self.push(")")?;
        }
        Ok(())
    }
}

/// Arguments as definitions; a name in their text means the definition at the place where the argument was written.
fn bind(parameters: &[String], arguments: &[&str], scope: &Scope) -> Vec<Definition> {
    let one = |(name, argument): (&String, &&str)| Definition {
        name: name.clone(),
        parameters: None,
        body: (*argument).to_owned(),
        scope: Some(scope.clone()),
    };
    parameters.iter().zip(arguments).map(one).collect()
}

/// `name = body` or `name(a, b) = body`.
fn definition(text: &str) -> Option<Definition> {
    let mut tokens = tokens(text);
    let name = tokens.find(|token| !token.trim().is_empty())?.to_owned();
    let parameters = if tokens.opens() {
        let names = split(tokens.bracketed()?).into_iter().map(|name| name.trim().to_owned());
        Some(names.collect())
    } else {
        None
    };
    let body = tokens.rest.trim_start().strip_prefix('=')?.trim().to_owned();
    Some(Definition { name, parameters, body, scope: None })
}

/// The parts of a list, at commas outside brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    let mut walk = tokens(list);
    while let Some(token) = walk.next() {
        let end = list.len() - walk.rest.len();
        match token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                parts.push(list.get(start..end - 1).unwrap_or_default());
                start = end;
            }
            _ => {}
        }
    }
    let last = list.get(start..).unwrap_or_default();
    if !last.trim().is_empty() {
        parts.push(last);
    }
    parts
}

/// Names, strings, and everything else character by character.
fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Tokens<'t> {
    /// An opening parenthesis comes next, behind spaces perhaps.
    fn opens(&self) -> bool {
        self.rest.trim_start().starts_with('(')
    }

    /// The text in the next parentheses.
    fn bracketed(&mut self) -> Option<&'t str> {
        let inside = self.rest.trim_start().strip_prefix('(')?;
        let (mut walk, mut depth) = (tokens(inside), 1_usize);
        while let Some(token) = walk.next() {
            match token {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = walk.rest;
                return inside.get(..inside.len() - walk.rest.len() - 1);
            }
        }
        None
    }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let first = self.rest.chars().next()?;
        let length = match first {
            '"' | '\'' | '`' => string_length(self.rest, first),
            '#' => self.rest.find('\n').unwrap_or(self.rest.len()),
            _ if is_name(first) || first.is_ascii_digit() || first == '\\' => name_length(self.rest),
            _ => first.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(token)
    }
}

/// Bytes of the name or number that begins here: a character behind a backslash belongs to it.
fn name_length(text: &str) -> usize {
    let mut escaped = false;
    let is_end = |c: char| {
        let is_part = escaped || is_name(c) || c.is_ascii_digit() || matches!(c, '.' | '\\');
        escaped = !escaped && c == '\\';
        !is_part
    };
    text.find(is_end).unwrap_or(text.len())
}

/// Bytes of the string that begins here, its quotes included; to the end where it is not closed.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_replaced_by_what_they_stand_for() {
        for (text, want) in [
            ("sum(rate(foo[5m])) # with", "sum(rate(foo[5m])) # with"),
            ("WITH (x = foo) x + x", "(foo) + (foo)"),
            ("with(x=foo,y=x*2)sum(y)", "sum(((foo)*2))"),
            ("WITH (f(a, b) = a / b) f(foo, bar{c=\"x,)\"})", "((foo) / ( bar{c=\"x,)\"}))"),
            ("WITH (f(a) = a + a) f(f(m))", "((((m) + (m))) + (((m) + (m))))"),
            // A name in an argument means the definition at the place where the argument was written.
            ("WITH (a = foo, f(x) = x + a) WITH (a = bar) f(a)", "(((bar)) + (foo))"),
            ("WITH (w = job) sum(foo) by (w)", "sum(foo) by ((job))"),
            ("WITH (f = {job=\"a\"}) foo{f, b=\"f\"}", "foo{({job=\"a\"}), b=\"f\"}"),
            ("ttf(m)", "(clamp_max(-(m), 0) / clamp_max(deriv_fast((m)), 0))"),
            ("ru", "ru"),
            // A part of a name is no name.
            (r"WITH (foo = small) sum(foo\-bar)", r"sum(foo\-bar)"),
            ("WITH (temp = small) sum(tempé)", "sum(tempé)"),
        ] {
            assert_eq!(expand(text).map(|cow| cow.trim().to_owned()).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_doubles_with_each_line_is_refused() {
        let doubling: Vec<String> = (1..25).map(|n| format!(", a{n}=a{}+a{}", n - 1, n - 1)).collect();
        let doubling = doubling.concat();
        let nested = |name: &str| format!("{}m{}", format!("{name}(").repeat(30), ")".repeat(30));
        for text in [
            format!("WITH (a0=x{doubling}) a24"),
            // The same by matchers, by a function, by templates that are always there, and without an end.
            format!(
                "WITH (a0={{b=\"1\"}}{}) m{{a24}}",
                doubling.replace('+', ",").replace("=a", "={a").replace(", ", "}, ").replacen("}, ", ", ", 1)
                    + "}"
            ),
            format!("WITH (f(x) = x + x) {}", nested("f")),
            nested("ttf"),
            format!("{}m, m{}", "ru(m, ".repeat(30), ")".repeat(30)),
            "WITH (a = a + a) a".to_owned(),
            "WITH (a = b, b = a) a".to_owned(),
            "WITH (a = x".to_owned(),
        ] {
            let error = expand(&text).unwrap_err();
            assert!(matches!(error.reason, crate::promql::Reason::Limit(..)), "{text}");
        }
    }

    #[test]
    fn whatever_is_written_it_ends() {
        let mut random = fastrand::Rng::with_seed(3);
        let parts = ["with ", "(", ")", "a", "b", "=", ",", "\"", "{", "}", "f(a)", "ttf(", " ", "#\n", "ü"];
        for _ in 0..5_000 {
            let text: String =
                (0..random.usize(0..30)).map(|_| parts[random.usize(0..parts.len())]).collect();
            let _ = expand(&text);
        }
    }
}
