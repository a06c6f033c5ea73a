//! A stable number for "the same query again": constants, durations and times erased, matchers and grouping kept.
//!
//! The value is written to disk with what was learned, so the hash is our own FNV-1a and not the standard library's,
//! whose result may change with any release.

use super::{
    ast::{Ast, BinaryOp, Expr, Grouping, Matcher, NodeId, Selector, VectorMatching},
    shape::normalise,
};

/// The fingerprint of a query. Layout, the order of matchers and of grouping labels, parentheses and numbers make
/// no difference; metric names, matcher values, operators and functions do.
pub fn fingerprint(ast: &Ast) -> u64 {
    // Operands come before operators, so every child's hash is there when its parent needs it.
    let mut hashes: Vec<Part> = Vec::with_capacity(ast.nodes.len());
    for node in &ast.nodes {
        hashes.push(part(&node.expr, &hashes));
    }
    hashes.get(ast.root.0 as usize).map_or(0, |p| p.hash)
}

#[derive(Clone, Copy)]
struct Part {
    hash: u64,
    /// Made of numbers only: any such expression is "a constant".
    constant: bool,
}

const CONSTANT: Part = Part { hash: 0x6e75_6d62_6572, constant: true };

fn part(expr: &Expr, parts: &[Part]) -> Part {
    let get = |id: &NodeId| parts.get(id.0 as usize).copied().unwrap_or(CONSTANT);
    let hash = match expr {
        Expr::Number(_) | Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {
            return CONSTANT;
        }
        Expr::Paren(inner) => return get(inner),
        Expr::Unary { expr, .. } if get(expr).constant => return CONSTANT,
        Expr::Binary { lhs, rhs, .. } if get(lhs).constant && get(rhs).constant => return CONSTANT,
        Expr::String(text) => Fnv::tag(b's').text(text),
        Expr::Selector(selector) => selected(selector),
        Expr::Matrix { selector, .. } => Fnv::tag(b'm').number(get(selector).hash),
        Expr::Subquery { expr, at, offset, .. } => Fnv::tag(b'q')
            .number(get(expr).hash)
            .number(u64::from(at.is_some()))
            .number(u64::from(offset.is_some())),
        Expr::Call { func, args } => {
            args.iter().fold(Fnv::tag(b'f').text(func.name), |h, arg| h.number(get(arg).hash))
        }
        Expr::Aggregate { op, param, expr, grouping } => Fnv::tag(b'a')
            .number(*op as u64)
            .number(param.as_ref().map_or(0, |p| get(p).hash))
            .number(get(expr).hash)
            .number(grouped(grouping)),
        Expr::Binary { op, lhs, rhs, return_bool, matching } => {
            binary(*op, get(lhs), get(rhs), *return_bool, matching.as_deref())
        }
        Expr::Unary { expr, .. } => Fnv::tag(b'u').number(get(expr).hash),
    };
    Part { hash: hash.0, constant: false }
}

fn selected(selector: &Selector) -> Fnv {
    let hash = Fnv::tag(b'v')
        .number(u64::from(selector.at.is_some()))
        .number(u64::from(selector.offset.is_some()))
        .number(selector.edges as u64);
    normalise(&selector.matchers)
        .iter()
        .fold(hash, |h, Matcher { name, op, value }| h.text(name).number(*op as u64).text(value))
}

fn binary(op: BinaryOp, lhs: Part, rhs: Part, bool: bool, matching: Option<&VectorMatching>) -> Fnv {
    let hash = Fnv::tag(b'b').number(op as u64).number(lhs.hash).number(rhs.hash).number(u64::from(bool));
    let Some(m) = matching else { return hash };
    hash.number(u64::from(m.on))
        .number(m.group as u64)
        .labels(&m.labels)
        .labels(&m.include)
        .number(u64::from(m.fill_left.is_some()))
        .number(u64::from(m.fill_right.is_some()))
}

fn grouped(grouping: &Grouping) -> u64 {
    Fnv::tag(b'g').number(u64::from(grouping.without)).labels(&grouping.labels).0
}

/// FNV-1a, 64 bits.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn tag(tag: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(tag)
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn number(self, n: u64) -> Self {
        n.to_le_bytes().into_iter().fold(self, Self::byte)
    }

    /// The length goes first, so that neighbours cannot trade characters.
    fn text(self, text: &str) -> Self {
        text.bytes().fold(self.number(text.len() as u64), Self::byte)
    }

    fn labels(self, labels: &[Box<str>]) -> Self {
        let mut sorted: Vec<&str> = labels.iter().map(|l| &**l).collect();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.iter().fold(self.number(sorted.len() as u64), |h, label| h.text(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    fn of(query: &str) -> u64 {
        fingerprint(&parse(query).unwrap())
    }

    #[test]
    fn constants_times_and_layout_make_no_difference() {
        for (a, b) in [
            ("rate(foo[5m])", "rate( foo [1h] )"),
            ("foo offset 5m", "foo offset 1d"),
            ("foo @ 5", "foo @ end()"),
            ("foo > 5", "foo > (2 * -3)"),
            ("topk(5, foo)", "topk(50, foo)"),
            (r#"foo{a="1",b="2"}"#, r#"foo{b="2",a="1"}"#),
            (r#"foo{a="x"}"#, r#"{__name__="foo",a=~"x"}"#),
            ("sum by (a, b) (foo)", "sum by (b, a) ((foo))"),
            ("max_over_time(foo[1h:1m])", "max_over_time(foo[2h:])"),
        ] {
            assert_eq!(of(a), of(b), "{a} and {b}");
        }
    }

    #[test]
    fn what_is_read_and_how_it_is_joined_makes_one() {
        let all = [
            "foo",
            "bar",
            "foo offset 5m",
            "foo @ 5",
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
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(of(a), of(b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn it_is_the_same_number_in_every_release() {
        // Written to disk by earlier versions: a change here needs a new version of the learned file.
        assert_eq!(of("sum by (job) (rate(foo{a=\"1\"}[5m]))"), 10783081841782000343);
    }
}
