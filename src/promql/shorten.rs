//! Shorter forms of a query: the same in fewer words, with patterns that cover more, or a part of it.

use std::collections::HashSet;

use regex_syntax::hir::literal::{ExtractKind, Extractor};

use super::{
    ast::{Ast, Expr, MatchOp, Matcher, Node, NodeId, ValueType},
    go_regex, print,
};

/// Characters that a pattern has to begin with for another to take its place.
const PREFIX_MIN: usize = 2;

/// How a text is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the limits")]
pub enum Measure {
    Bytes,
    Nodes,
    Matchers,
    Regex,
    Selectors,
}

/// The same query without comments, doubled brackets, and matchers that say nothing; `None` where it has none of these.
pub fn tidied(ast: &Ast) -> Option<String> {
    let is_tidy = |node: &Node| match &node.expr {
        Expr::Paren(inner) => needs_brackets(ast.expr(*inner)),
        Expr::Selector(selector) => narrowing(&selector.matchers).len() == selector.matchers.len(),
        _ => true,
    };
    // Another layout makes nothing cheaper.
    if !ast.text.contains('#') && ast.nodes.iter().all(is_tidy) {
        return None;
    }
    let mut tidy = ast.clone();
    for at in 0..tidy.nodes.len() {
        // Operands come first: they are tidy by now.
        let instead = match &tidy.nodes[at].expr {
            Expr::Paren(inner) if !needs_brackets(tidy.expr(*inner)) => Some(tidy.node(*inner).clone()),
            _ => None,
        };
        let node = &mut tidy.nodes[at];
        if let Expr::Selector(selector) = &mut node.expr {
            selector.matchers = narrowing(&selector.matchers).into_iter().cloned().collect();
        }
        if let Some(instead) = instead {
            *node = instead;
        }
    }
    changed(ast, &tidy)
}

fn needs_brackets(expr: &Expr) -> bool {
    matches!(expr, Expr::Binary { .. } | Expr::Unary { .. })
}

/// The matchers, each once, without those that match everything.
fn narrowing(matchers: &[Matcher]) -> Vec<&Matcher> {
    let says_nothing = |matcher: &Matcher| matcher.op == MatchOp::Regex && &*matcher.value == ".*";
    let mut before = HashSet::with_capacity(matchers.len());
    let kept: Vec<_> =
        matchers.iter().filter(|matcher| !says_nothing(matcher) && before.insert(*matcher)).collect();
    if kept.is_empty() { matchers.iter().collect() } else { kept }
}

/// The query with `web-.*` in place of each pattern whose texts begin with `web-`; `None` where that is not shorter.
pub fn covered(ast: &Ast) -> Option<String> {
    let mut wide = ast.clone();
    for node in &mut wide.nodes {
        let Expr::Selector(selector) = &mut node.expr else { continue };
        for matcher in selector.matchers.iter_mut().filter(|matcher| matcher.op == MatchOp::Regex) {
            if let Some(cover) = cover(&matcher.value) {
                matcher.value = cover.into();
            }
        }
    }
    changed(ast, &wide)
}

/// A shorter pattern that matches everything that this one does.
fn cover(pattern: &str) -> Option<String> {
    let hir = go_regex::parse(pattern).ok()?;
    let beginnings = Extractor::new().kind(ExtractKind::Prefix).extract(&hir);
    let common = std::str::from_utf8(beginnings.longest_common_prefix()?).ok()?;
    let cover = escaped(common) + ".*";
    (common.chars().count() >= PREFIX_MIN && cover.len() < pattern.len()).then_some(cover)
}

/// A text as a pattern of itself. Only operators are escaped: RE2 refuses other escapes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn changed(before: &Ast, after: &Ast) -> Option<String> {
    let text = print::line(after);
    (text != *before.text).then_some(text)
}

/// The longest part of a query that is at most this large; `None` where the whole is, or no part of it.
pub fn part(ast: &Ast, measure: Measure, max: u64) -> Option<&str> {
    let mut sizes: Vec<u64> = Vec::with_capacity(ast.nodes.len());
    let mut best: Option<&str> = None;
    for (at, node) in ast.nodes.iter().enumerate() {
        let of = |id: &NodeId| sizes.get(id.0 as usize).copied().unwrap_or(u64::MAX);
        let below = match &node.expr {
            Expr::Matrix { selector, .. } => of(selector),
            other => other.operands().iter().map(of).fold(0, u64::saturating_add),
        };
        let own = match (measure, &node.expr) {
            (Measure::Bytes, _) => 0,
            (Measure::Nodes, _) | (Measure::Selectors, Expr::Selector(_)) => 1,
            (Measure::Matchers, Expr::Selector(selector)) => selector.matchers.len() as u64,
            (Measure::Regex, Expr::Selector(selector)) => regex_bytes(&selector.matchers),
            _ => 0,
        };
        let size = below.saturating_add(own);
        sizes.push(size);
        let text = ast.text_of(NodeId(at as u32)).trim();
        let size = if measure == Measure::Bytes { text.len() as u64 } else { size };
        let is_part = node.ty == ValueType::Vector && NodeId(at as u32) != ast.root && size <= max;
        if is_part && best.is_none_or(|best| text.len() > best.len()) {
            best = Some(text);
        }
    }
    best
}

fn regex_bytes(matchers: &[Matcher]) -> u64 {
    let patterns = matchers.iter().filter(|matcher| matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex));
    patterns.map(|matcher| matcher.value.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn the_same_query_in_fewer_words() {
        for (query, want) in [
            ("((up))", Some("up")),
            ("sum(((a + b))) # all of it", Some("sum((a + b))")),
            ("x{a=\"1\",a=\"1\",b=~\".*\"}", Some("x{a=\"1\"}")),
            ("(x{a=\"1\"})[5m:1m]", Some("x{a=\"1\"}[5m:1m]")),
            ("-(a) ^ (2)", Some("-a ^ 2")),
            ("(-a) ^ 2", None),
            ("up", None),
            ("a+b", None),
        ] {
            let tidy = tidied(&parse(query).unwrap());
            assert_eq!(tidy.as_deref(), want, "{query}");
        }
    }

    #[test]
    fn a_pattern_is_covered_by_its_beginning() {
        for (query, want) in [
            ("up{pod=~\"web-1|web-2|web-33\"}", Some("up{pod=~\"web-.*\"}")),
            ("rate(x{pod=~\"a\\\\.b-(1|2|3|4|5)\"}[5m])", Some("rate(x{pod=~\"a\\\\.b-.*\"}[5m])")),
            ("up{pod!~\"web-1|web-2\"}", None),
            ("up{pod=~\"api|web\"}", None),
            ("up{pod=~\"web-.*\"}", None),
        ] {
            assert_eq!(covered(&parse(query).unwrap()).as_deref(), want, "{query}");
        }
    }

    #[test]
    fn the_longest_part_that_is_small_enough() {
        let ast = parse("sum(rate(a{x=~\"1|2\",y=\"3\"}[5m])) or b or c").unwrap();
        for (measure, max, want) in [
            (Measure::Selectors, 2, Some("sum(rate(a{x=~\"1|2\",y=\"3\"}[5m])) or b")),
            (Measure::Selectors, 1, Some("sum(rate(a{x=~\"1|2\",y=\"3\"}[5m]))")),
            (Measure::Matchers, 2, Some("b")),
            (Measure::Regex, 2, Some("b")),
            (Measure::Bytes, 30, Some("rate(a{x=~\"1|2\",y=\"3\"}[5m])")),
            (Measure::Nodes, 3, Some("rate(a{x=~\"1|2\",y=\"3\"}[5m])")),
            (Measure::Nodes, 0, None),
        ] {
            assert_eq!(part(&ast, measure, max), want, "{measure:?} {max}");
        }
        assert_eq!(part(&parse("up").unwrap(), Measure::Bytes, 1), None);
    }
}
