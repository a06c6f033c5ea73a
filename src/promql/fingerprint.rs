//! A stable identity for "the same query again": constants, durations and times (`offset` and `@` included) erased,
//! matchers and grouping kept.
//!
//! It is the first half of a SHA-256 digest: no user may write two queries that share the history of the cheaper one.

use std::fmt;

use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

use super::{
    ast::{Ast, BinaryOp, Expr, Grouping, NodeId, Selector, VectorMatching},
    shape::normalise,
};

/// The identity of a query or of a set of selectors.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of a query. Layout, the order of matchers and of grouping labels, parentheses, numbers and times
    /// make no difference; metric names, matcher values, operators and functions do.
    pub fn of(ast: &Ast) -> Self {
        let constant = constants(ast);
        let mut encoded = Encoder { out: Vec::with_capacity(ast.text.len() + 64), constant: &constant };
        // Operands come before operators, so the nodes are the query in reverse Polish notation: unambiguous, as each
        // operator says which of its operands are constants, which are left out.
        for (node, _) in ast.nodes.iter().zip(&constant).filter(|(_, constant)| !**constant) {
            encoded.node(&node.expr);
        }
        Self::of_bytes(b"query", &[&encoded.out])
    }

    /// The fingerprint of a set: neither the order of its parts nor a repetition makes a difference.
    pub fn of_set(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut parts: Vec<[u8; 16]> = parts.into_iter().map(|part| part.0.to_be_bytes()).collect();
        parts.sort_unstable();
        parts.dedup();
        Self::of_bytes(b"set", &[parts.as_flattened()])
    }

    /// The fingerprint of byte strings of some kind; neighbours cannot trade bytes.
    pub fn of_bytes(kind: &[u8], parts: &[&[u8]]) -> Self {
        let mut text = SmallVec::<[u8; 256]>::new();
        for part in std::iter::once(&kind).chain(parts) {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
        let digest = digest(&SHA256, &text);
        // A digest is 32 bytes long.
        Self(digest.as_ref().first_chunk().map_or(0, |half| u128::from_be_bytes(*half)))
    }

    /// The bytes of the fingerprint.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The fingerprint as two numbers, the first that which is shown.
    pub const fn to_words(self) -> [u64; 2] {
        [(self.0 >> 64) as u64, self.0 as u64]
    }

    /// The fingerprint of two numbers.
    pub const fn from_words([high, low]: [u64; 2]) -> Self {
        Self((high as u128) << 64 | low as u128)
    }
}

/// Sixteen hexadecimal digits: enough to find a query again in a log.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.to_words()[0])
    }
}

/// Which nodes are made of numbers only.
fn constants(ast: &Ast) -> Vec<bool> {
    let mut constant: Vec<bool> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        let is = |id: &NodeId| constant.get(id.0 as usize).copied().unwrap_or(false);
        let this = match &node.expr {
            Expr::Number(_) | Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => true,
            Expr::Paren(expr) | Expr::Unary { expr, .. } => is(expr),
            Expr::Binary { lhs, rhs, .. } => is(lhs) && is(rhs),
            Expr::String(_)
            | Expr::Selector(_)
            | Expr::Matrix { .. }
            | Expr::Subquery { .. }
            | Expr::Call { .. }
            | Expr::Aggregate { .. } => false,
        };
        constant.push(this);
    }
    constant
}

/// Writes nodes one after the other.
struct Encoder<'a> {
    out: Vec<u8>,
    constant: &'a [bool],
}

impl Encoder<'_> {
    fn node(&mut self, expr: &Expr) {
        match expr {
            // Constants are left out, and parentheses and `+` are layout.
            Expr::Number(_)
            | Expr::DurationStep
            | Expr::DurationRange
            | Expr::DurationMinMax { .. }
            | Expr::Paren(_)
            | Expr::Unary { negative: false, .. } => {}
            Expr::String(text) => {
                self.tag(b's');
                self.text(text);
            }
            Expr::Selector(selector) => self.selector(selector),
            Expr::Matrix { .. } => self.tag(b'm'),
            Expr::Subquery { .. } => self.tag(b'q'),
            Expr::Call { func, args } => {
                self.tag(b'f');
                self.text(func.name);
                self.number(args.len() as u64);
                for arg in args {
                    self.flags([self.is_constant(*arg)]);
                }
            }
            Expr::Aggregate { op, param, grouping, .. } => {
                self.tag(b'a');
                self.number(*op as u64);
                self.flags([param.is_some(), param.is_some_and(|param| self.is_constant(param))]);
                self.grouping(grouping);
            }
            Expr::Binary { op, lhs, rhs, return_bool, matching } => {
                self.binary(*op, (*lhs, *rhs), *return_bool, matching.as_deref());
            }
            Expr::Unary { negative: true, .. } => self.tag(b'u'),
        }
    }

    fn selector(&mut self, selector: &Selector) {
        self.tag(b'v');
        self.number(selector.edges as u64);
        let matchers = normalise(&selector.matchers);
        self.number(matchers.len() as u64);
        for matcher in &matchers {
            self.text(&matcher.name);
            self.number(matcher.op as u64);
            self.text(&matcher.value);
        }
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        (lhs, rhs): (NodeId, NodeId),
        return_bool: bool,
        matching: Option<&VectorMatching>,
    ) {
        self.tag(b'b');
        self.number(op as u64);
        self.flags([self.is_constant(lhs), self.is_constant(rhs), return_bool, matching.is_some()]);
        let Some(matching) = matching else { return };
        self.number(matching.group as u64);
        self.flags([matching.on, matching.fill_left.is_some(), matching.fill_right.is_some()]);
        self.labels(&matching.labels);
        self.labels(&matching.include);
    }

    fn grouping(&mut self, grouping: &Grouping) {
        self.flags([grouping.without]);
        self.labels(&grouping.labels);
    }

    fn is_constant(&self, id: NodeId) -> bool {
        self.constant.get(id.0 as usize).copied().unwrap_or(false)
    }

    fn tag(&mut self, tag: u8) {
        self.out.push(tag);
    }

    fn flags<const N: usize>(&mut self, flags: [bool; N]) {
        self.out.extend(flags.map(u8::from));
    }

    fn number(&mut self, n: u64) {
        self.out.extend(n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn labels(&mut self, labels: &[Box<str>]) {
        let mut sorted: Vec<&str> = labels.iter().map(|label| &**label).collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.number(sorted.len() as u64);
        for label in sorted {
            self.text(label);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    fn of(query: &str) -> Fingerprint {
        Fingerprint::of(&parse(query).unwrap())
    }

    #[test]
    fn constants_times_and_layout_make_no_difference() {
        for (a, b) in [
            ("rate(foo[5m])", "rate( foo [1h] )"),
            ("foo offset 5m", "foo"),
            ("foo @ 5", "foo @ end()"),
            ("rate(foo[5m] @ end() offset 0s)", "rate(foo[5m])"),
            ("+foo + (+bar)", "foo + bar"),
            ("foo > 5", "foo > (2 * -3)"),
            ("topk(5, foo)", "topk(50, foo)"),
            (r#"foo{a="1",b="2"}"#, r#"foo{b="2",a="1"}"#),
            (r#"foo{a="x"}"#, r#"{__name__="foo",a=~"x"}"#),
            ("sum by (a, b) (foo)", "sum by (b, a) ((foo))"),
            ("max_over_time(foo[1h:1m])", "max_over_time(foo[2h:] @ start() offset 1d)"),
        ] {
            assert_eq!(of(a), of(b), "{a} and {b}");
        }
    }

    #[test]
    fn what_is_read_and_how_it_is_joined_makes_one() {
        let all = [
            "foo",
            "bar",
            r#"foo{a="1"}"#,
            r#"foo{a="2"}"#,
            r#"foo{a!="1"}"#,
            r#"foo{ab="1"}"#,
            r#"foo{a="b1"}"#,
            "sum(foo)",
            "max(foo)",
            "sum by (a) (foo)",
            "sum without (a) (foo)",
            "rate(foo[5m])",
            "increase(foo[5m])",
            "rate(foo[5m:])",
            "foo / bar",
            "bar / foo",
            "foo * bar",
            "foo / on (a) bar",
            "foo / ignoring (a) bar",
            "foo / on (a) group_left bar",
            "foo and bar",
            "foo > 1",
            "foo > bool 1",
            "1 > foo",
            "-foo",
            "topk(scalar(foo), bar)",
            "topk(1, bar)",
            "round(foo, 1)",
            "round(foo)",
            "clamp_min(foo, scalar(bar))",
            "foo * on (a) bar / baz",
            "foo * on (a) (bar / baz)",
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(of(a), of(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn a_set_of_selectors_has_no_order_and_cannot_cancel_out() {
        let set = |queries: &[&str]| Fingerprint::of_set(queries.iter().map(|query| of(query)));
        assert_eq!(set(&["a", "b"]), set(&["b", "a"]));
        assert_eq!(set(&["a", "a", "b"]), set(&["a", "b"]));
        assert_ne!(set(&["a", "a"]), set(&["b", "b"]), "with exclusive or, both are nothing");
        assert_ne!(set(&["a", "a"]), set(&[]));
        assert_ne!(set(&["a"]), of("a"));
    }

    #[test]
    fn a_fingerprint_is_shown_as_sixteen_digits() {
        let shown = of("foo").to_string();
        assert!(shown.len() == 16 && shown.bytes().all(|digit| digit.is_ascii_hexdigit()), "{shown}");
    }
}
