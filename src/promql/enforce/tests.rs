use super::*;
use crate::promql::{approximation, parse, parse_with, templates};

fn one() -> LabelEnforcement {
    LabelEnforcement::new([("ns", ["a".to_owned()].as_slice())], false)
}

fn several(refuses: bool) -> LabelEnforcement {
    let values = ["b.c".to_owned(), "a".to_owned(), "a".to_owned()];
    LabelEnforcement::new([("ns", values.as_slice()), ("k8s.zone", ["z\"1".to_owned()].as_slice())], refuses)
}

#[test]
fn every_selector_gets_the_matchers() {
    for (text, want) in [
        ("up", r#"up{ns="a"}"#),
        ("up{}", r#"up{ns="a"}"#),
        ("{__name__=~\".+\"}", r#"{ns="a",__name__=~".+"}"#),
        ("up{job=\"x\",}", r#"up{ns="a",job="x",}"#),
        ("up { job = \"x\" } ", r#"up {ns="a", job = "x" }"#),
        ("{\"my.metric\", \"a.b\"=\"}\"}", r#"{ns="a","my.metric", "a.b"="}"}"#),
        // The query's own matchers of the label stay, and only narrow.
        ("up{ns=\"b\"}", r#"up{ns="a",ns="b"}"#),
        ("up{ns=~\".*\"} or down{ns!=\"a\"}", r#"up{ns="a",ns=~".*"} or down{ns="a",ns!="a"}"#),
        ("rate(up[5m] offset 1h) @ 7", "error"),
        ("rate(up[5m] offset 1h @ 7)", r#"rate(up{ns="a"}[5m] offset 1h @ 7)"#),
        ("up @ start() offset -1h", r#"up{ns="a"} @ start() offset -1h"#),
        ("max_over_time(sum by (ns) (up)[1h:1m])", r#"max_over_time(sum by (ns) (up{ns="a"})[1h:1m])"#),
        ("absent(up{ns=\"b\"})", r#"absent(up{ns="a",ns="b"})"#),
        ("label_replace(up, \"ns\", \"b\", \"\", \"\")", r#"label_replace(up{ns="a"}, "ns", "b", "", "")"#),
        ("info(up, {version=~\".+\"})", r#"info(up{ns="a"}, {ns="a",version=~".+"})"#),
        ("info(up, {})", r#"info(up{ns="a"}, {ns="a"})"#),
        ("info(up)", "error"),
        ("sum + up", r#"sum{ns="a"} + up{ns="a"}"#),
        ("up{a=\"b or {c}\"} # {d}\n + \"x\"", "error"),
        ("up{a='b{c}'} # {d} or\n or x", r#"up{ns="a",a='b{c}'} or x{ns="a"}"#),
        ("-up # or secret\r or x", r#"-up{ns="a"} or x{ns="a"}"#),
        ("up{a=`\\`} or x{b=`\"{`}", r#"up{ns="a",a="\\"} or x{ns="a",b="\"{"}"#),
        ("1 + time()", "1 + time()"),
        ("a:b{x=\"1\"}==bool on(x)c", r#"a:b{ns="a",x="1"}==bool on(x)c{ns="a"}"#),
        ("up[5m:]", r#"up{ns="a"}[5m:]"#),
        ("up{ns=\"a\"}{ns=\"b\"}", "error"),
    ] {
        let confined = match parse(text) {
            Ok(ast) => one().confine(&ast).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(confined.as_deref().unwrap_or("error"), want, "{text}");
    }
}

#[test]
fn values_are_quoted_in_patterns_and_names_in_selectors() {
    let text = r#"{ns=~"a|b\\.c","k8s.zone"="z\"1"}"#;
    assert_eq!(several(false).selector(), text);
    let ast = parse(text).unwrap();
    let Expr::Selector(selector) = ast.expr(ast.root) else { panic!("{text}") };
    assert!(accepts(&selector.matchers[0], "b.c") && !accepts(&selector.matchers[0], "bxc"));
    let both = one().and(&several(true)).and(&one());
    assert_eq!(both.selector(), r#"{ns="a",ns=~"a|b\\.c","k8s.zone"="z\"1"}"#);
    assert!(both.refuses_conflicts);
}

#[test]
fn a_selector_of_none_of_the_values_is_refused_where_that_is_set() {
    for (text, conflicts) in [
        ("up", false),
        ("up{ns=\"a\"}", false),
        ("up{ns=~\"b.*\"}", false),
        ("up{ns!=\"a\"}", false),
        ("up{ns!~\"a|b.c\"}", true),
        ("up{ns=\"c\"}", true),
        ("up{ns=\"\"}", true),
        ("up{ns=\"a\",ns=~\"b.*\"}", true),
        ("up{ns=\"a\"} + sum(x{ns=\"other\"})", true),
        ("up{\"k8s.zone\"=\"z\"}", true),
        ("up{zone=\"z\"}", false),
    ] {
        let ast = parse(text).unwrap();
        assert!(several(false).confine(&ast).is_ok(), "{text}");
        assert_eq!(several(true).confine(&ast).is_err(), conflicts, "{text}");
    }
}

#[test]
fn what_grows_beyond_all_measure_is_refused() {
    let values: Vec<String> = (0..1_000).map(|n| format!("namespace-{n}")).collect();
    let large = LabelEnforcement::new([("ns", values.as_slice())], false);
    let text = format!("a{}", "+a".repeat(5_000));
    let error = large.confine(&parse(&text).unwrap()).unwrap_err();
    assert!(matches!(error, EnforceError::Parse(_)), "{error}");
}

/// A random text from words that meet in odd ways.
fn random_text(random: &mut fastrand::Rng) -> String {
    const WORDS: &[&str] = &[
        "up",
        "{",
        "}",
        "{}",
        "ns",
        "=",
        "\"a\"",
        "'b'",
        "`c\\`",
        "=~",
        "!=",
        "!~",
        ",",
        "(",
        ")",
        "[5m]",
        "[5m:1m]",
        "sum",
        "by",
        "(ns)",
        "or",
        "and",
        "unless",
        "+",
        "-",
        "*",
        "== bool",
        "on(ns)",
        "offset 5m",
        "@ 3",
        "@ end()",
        "# x{\n",
        "# y\r",
        " ",
        "\n",
        "\t",
        "rate(",
        "absent(",
        "label_replace(",
        "info(",
        "\"{\"",
        "\"x.y\"",
        "1",
        "1e3",
        "5m",
        "inf",
        "a:b",
        "topk(2,",
        "count_values(\"ns\",",
        "group_left",
        "without",
        "fill",
        "anchored",
        "{\"m.n\"}",
        "{__name__=~\".+\"}",
        "up{ns=\"b\"}",
        "max_over_time(",
        "scalar(",
        "histogram_quantile(0.9,",
        "start",
        "ü",
    ];
    (0..random.usize(1..14)).map(|_| WORDS[random.usize(0..WORDS.len())]).collect()
}

/// Every text that parses is confined, parses again, and has as many selectors, each with the matchers and its own.
#[test]
fn no_selector_of_any_text_goes_without() {
    let mut random = fastrand::Rng::with_seed(11);
    let (enforcement, mut tried) = (several(false), 0);
    for _ in 0..60_000 {
        let text = random_text(&mut random);
        let limits = Limits { unknown_functions: random.bool(), ..Limits::default() };
        let Ok(ast) = parse_with(&text, &limits) else { continue };
        let Ok(confined) = enforcement.confine(&ast) else { continue };
        let again =
            parse_with(&confined, &limits).unwrap_or_else(|error| panic!("{text}\n{confined}\n{error}"));
        let selectors = |ast: &Ast| -> Vec<Vec<Matcher>> {
            let selector = |node: &crate::promql::ast::Node| match &node.expr {
                Expr::Selector(selector) => Some(selector.matchers.clone()),
                _ => None,
            };
            ast.nodes.iter().filter_map(selector).collect()
        };
        let (before, after) = (selectors(&ast), selectors(&again));
        assert_eq!((ast.nodes.len(), before.len()), (again.nodes.len(), after.len()), "{text}\n{confined}");
        for (mut own, after) in before.into_iter().zip(after) {
            tried += 1;
            enforcement.add_to(&mut own).unwrap();
            assert_eq!(normalise(&own), normalise(&after), "{text}\n{confined}");
        }
        // Neither a comment nor a raw string is left for another lexer to read otherwise.
        assert!(!confined.contains(['\r', '`']) && !confined.contains("# "), "{confined}");
        // Templates and approximations, which read texts more loosely, find the same.
        assert!(templates::expand(&confined).is_ok());
        drop(approximation::approximate(&confined, 1, 1));
    }
    assert!(tried > 1_000, "{tried}");
}
