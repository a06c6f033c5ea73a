//! The refusals of the parser with their positions, and hostile text.

use std::time::{Duration, Instant};

use weir::promql::{self, Part, Reason};

/// Query, and the error as Prometheus words it.
const ERRORS: &[(&str, &str)] = &[
    ("", "1:1: parse error: no expression found in input"),
    ("foo offset NaN", "1:12: parse error: duration out of range"),
    ("foo{", "1:5: parse error: unexpected end of input inside braces"),
    ("sum(foo", "1:8: parse error: unclosed left parenthesis"),
    ("foo)", "1:5: parse error: unexpected right parenthesis ')'"),
    ("sum(foo))", "1:10: parse error: unexpected right parenthesis ')'"),
    ("foo #a\n )", "2:3: parse error: unexpected right parenthesis ')'"),
    ("foo\n  bar", "2:3: parse error: unexpected identifier \"bar\""),
    ("1 +", "1:4: parse error: unexpected end of input"),
    ("foo[5m", "1:7: parse error: unexpected end of input in duration expression"),
    ("foo[0s]", "1:5: parse error: duration must be greater than 0"),
    ("foo[5m1h]", "1:5: parse error: not a valid duration string: \"5m1h\""),
    (
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    ),
    ("nope(foo)", "1:1: parse error: unknown function with name \"nope\""),
    ("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0"),
    ("hour(a, b, c)", "1:1: parse error: expected at most 1 argument(s) in call to \"hour\", got 3"),
    ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
    ("foo + bool bar", "1:5: parse error: bool modifier can only be used on comparison operators"),
    ("foo and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
    ("{a=\"\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ("{a=~\".*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
    ("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
    ("foo{a>1}", "1:6: parse error: unexpected character inside braces: '>'"),
    ("foo{a=b}", "1:7: parse error: unexpected identifier \"b\" in label matching, expected string"),
    (r#""\q""#, "1:1: parse error: unknown escape sequence U+0071 'q'"),
    (r#"foo{a="ä\d"}"#, "1:7: parse error: unknown escape sequence U+0064 'd'"),
    (r#""\'""#, "1:1: parse error: unknown escape sequence U+0027 '''"),
    (r" '\u12'", "1:2: parse error: illegal character U+0027 ''' in escape sequence"),
    (r"'a\400'", "1:1: parse error: escape sequence is an invalid Unicode code point"),
    ("'abc", "1:1: parse error: unterminated quoted string"),
    ("foo[5m][5m]", "1:8: parse error: ranges only allowed for vector selectors"),
    ("foo offset 1m[5m]", "1:14: parse error: no offset modifiers allowed before range"),
    ("foo @ 1 [5m]", "1:9: parse error: no @ modifiers allowed before range"),
    ("foo @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
    ("foo offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
    ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
    ("sum by foo (x)", "1:8: parse error: unexpected identifier \"foo\" in grouping opts, expected \"(\""),
    ("foo[5m:1m:1m]", "1:10: parse error: unexpected \":\" in subquery selector, expected \"]\""),
    ("foo[5m/0]", "1:7: parse error: division by zero"),
    ("1e999", "1:1: parse error: error parsing number: parsing \"1e999\": value out of range"),
    ("time()[5m:1m]", "1:1: parse error: subquery is only allowed on instant vector, got scalar instead"),
    ("foo anchored smoothed", "1:1: parse error: anchored and smoothed modifiers cannot be used together"),
    ("info(a, b)", "1:9: parse error: expected label selectors only, got vector selector instead"),
];

#[test]
fn errors_point_at_the_character() {
    for (query, want) in ERRORS {
        match promql::parse(query) {
            Err(error) => assert_eq!(error.to_string(), *want, "{query}"),
            Ok(_) => panic!("{query} parses"),
        }
    }
}

/// Input on which promql-parser 0.11 panics or differs, and Prometheus 3's reading of it.
#[test]
fn what_other_parsers_get_wrong() {
    let refused = [
        "foo offset NaN",
        "foo offset Inf",
        "foo[1e300]",
        "foo[99999999999999999999]",
        "foo[5m:1e20]",
        "foo @ 1e300",
        "foo[9999999999999999999]",
        r#"foo{a="x" or a="y"}"#,
        r#"foo{a=~"a{1001}"}"#,
        r#"foo{a=~"x++"}"#,
        r#"foo{a=~"(a"}"#,
    ];
    for query in refused {
        assert!(promql::parse(query).is_err(), "{query} parses");
    }
    let accepted = [
        "rate(foo[5m] anchored)",
        "rate(foo[5m] smoothed)",
        "foo </ 1",
        "foo >/ 1",
        "foo[5m*2]",
        "foo[step()]",
        "foo offset (1m+2m)",
        r#"info(foo, {data=~".*"})"#,
        r#"foo{a=~"\\Qx.y\\E"}"#,
        r#"foo{a=~"\\Qx.y"}"#,
        r#"foo{a=~"{{x}}"}"#,
        "foo offset 0",
        "foo offset 0s",
        "foo @ -1.5",
        "SUM BY (g) (x)",
        "12.34e6 + .2",
        "foo + fill(0) bar",
        r#"{"metric.name", "label.name"="x"}"#,
        r#"sum by ("label.name") (foo)"#,
        "sum by () (foo)",
        "foo + ignoring () bar",
        "foo * on (a) group_left (b, c) bar",
        r#"foo{z="1", a="2"}"#,
    ];
    for query in accepted {
        let ast = promql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        // The printed text is the same query again.
        let printed = promql::print::line(&ast);
        let again =
            promql::parse(&printed).unwrap_or_else(|error| panic!("{query} printed {printed}: {error}"));
        assert_eq!(promql::print::line(&again), printed, "{query}");
    }
    let minus = promql::parse("foo @ -1.5").unwrap();
    assert_eq!(promql::print::line(&minus), "foo @ -1.500");
}

/// Generous: this is an unoptimised build on a busy machine.
const SLOW: Duration = Duration::from_secs(2);

fn refused(query: &str) -> promql::ParseError {
    let start = Instant::now();
    let error = promql::parse(query).expect_err("to be refused");
    assert!(start.elapsed() < SLOW, "{:?}", start.elapsed());
    error
}

#[test]
fn bombs_are_refused_in_time() {
    for (open, close) in [
        ("(", ")"),
        ("abs(", ")"),
        ("sum(", ")"),
        ("-", ""),
        ("1^", ""),
        ("(1 or 1 and 1 == 1 + 1 * 1 ^ -(", "))"),
        ("max_over_time((", ")[1h:1m])"),
        ("min_of(1,", ")"),
        ("foo[(", ")]"),
        ("1+", ""),
        ("{a=\"", "\"}"),
    ] {
        let times = 65_000 / (open.len() + close.len());
        refused(&format!("{}x{}", open.repeat(times), close.repeat(times)));
    }
    for duration in ["(".repeat(60_000), "-".repeat(60_000), "1+".repeat(30_000), "1^".repeat(30_000)] {
        refused(&format!("foo[{duration}5m]"));
        refused(&format!("foo offset ({duration}5m)"));
    }
    let listed = |matcher: &dyn Fn(usize) -> String, times: usize| {
        format!("foo{{{}}}", (0..times).map(matcher).collect::<Vec<_>>().join(","))
    };
    refused(&listed(&|i| format!("l{i}=~\"((((a){{1,10}}){{1,10}}){{1,10}}){{1,9}}\""), 1000));
    let matchers = listed(&|i| format!("l{i}=\"\""), 25_000);
    assert_eq!(refused(&matchers).reason, Reason::Limit(Part::Matchers, 20_000));
    assert_eq!(refused(&"x".repeat((4 << 20) + 1)).reason, Reason::Limit(Part::Text, 4 << 20));
}

#[test]
fn long_chains_parse_in_time() {
    let start = Instant::now();
    let ast = promql::parse(&format!("1{}", "+1".repeat(4_000))).expect("a sum");
    assert_eq!(ast.nodes.len(), 8_001);
    assert!(start.elapsed() < SLOW);
}

/// Within the limits, the deepest nesting fits an ordinary thread's stack.
#[test]
fn what_is_allowed_fits_the_stack() {
    let (open, close) = ("(1 or 1 and 1 * ", ")");
    for (open, close) in [(open, close), ("abs(", ")"), ("sum by (a) (", ")")] {
        let query = format!("{}x{}", open.repeat(60), close.repeat(60));
        let parse = move || promql::parse(&query).map(drop).map_err(|e| e.to_string());
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(parse).expect("a thread");
        let _ = thread.join().expect("no overflow");
    }
}
