//! PromQL and its patterns.

use weir::{
    base::time::EvalTimes,
    node::index,
    promql::{self, go_regex, print, shape::Shape},
};

pub(super) fn promql(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let Ok(ast) = promql::parse(text).map(std::sync::Arc::new) else { return false };
    let times = EvalTimes { start: 0, end: 3_600_000, step: 15_000 };
    let shape = Shape::of(&ast, times, 300_000);
    assert!(shape.selectors.len() <= text.len());
    // The printed text means the same: printed again it is the same.
    let line = print::line(&ast);
    let again = promql::parse(&line).unwrap_or_else(|error| panic!("{line:?} does not parse: {error}"));
    assert_eq!(print::line(&again), line);
    if let Some(pretty) = print::pretty(&ast, 1 << 16) {
        let again =
            promql::parse(&pretty).unwrap_or_else(|error| panic!("{pretty:?} does not parse: {error}"));
        assert_eq!(print::line(&again), line);
    }
    true
}

pub(super) fn queries() -> Vec<Vec<u8>> {
    let texts = [
        "sum by (job) (rate(requests_total{job=~\"a|b\",code!=\"500\"}[5m] @ 1.5e9 offset -1h)) / 2",
        "histogram_quantile(0.9, sum without (instance, pod) (rate(x_bucket[1h30m:15s] @ start())))",
        "{\"utf-8.näme\", a!~\".+\"} and on (a) b or ignoring (c) d unless e",
        "topk(3, a * on (x) group_left (y, \"z.z\") -b ^ 2 ^ 3) > bool 0x1F",
        "label_replace(up, 'a', \"\\u00e9$1\", `raw`, \"(.*)\")",
        "max_over_time((a + b)[5m:] offset 1w2d) # a comment\n% 1e-3",
        "rate(x[step() + 1m]) + foo offset (5m * 2)",
        "quantile(NaN, -Inf * a) + (((1)))",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn pattern(input: &[u8]) -> bool {
    let Ok(pattern) = std::str::from_utf8(input) else { return false };
    let checked = go_regex::check(pattern);
    let compiled = go_regex::compile(pattern);
    if compiled.is_ok() {
        assert_eq!(checked, Ok(()), "compiled although it is refused");
    }
    let matcher = index::Matcher::new("a", weir::series::MatchOp::Regex, pattern);
    assert_eq!(matcher.is_ok(), compiled.is_ok(), "the index and the engine disagree on what is a pattern");
    let (Ok(regex), Ok(matcher)) = (compiled, matcher) else { return false };
    assert_eq!(go_regex::matches_empty(pattern), regex.is_match(""), "on the empty text");
    for text in ["", "a", "A", "api", "a.b", "a\nb", "123", "é", "\u{212a}", "a-b_c:9100", pattern] {
        assert_eq!(matcher.accepts(text), regex.is_match(text), "on {text:?}");
    }
    true
}

pub(super) fn patterns() -> Vec<Vec<u8>> {
    let texts = [
        "a|b|api-[0-9]+",
        "(?i:API)(?-s).+x?",
        "\\Qa.b\\E*|[[:alpha:]_.-]{1,3}",
        "(?P<name>^a$)|(b(c(d)?)*)+?",
        "[^\\d\\s]\\pL\\x{e9}\\b",
        ".*\\.(svc|pod)\\..+",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
