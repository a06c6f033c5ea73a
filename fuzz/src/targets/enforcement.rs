//! Queries and remote reads that are confined to labels: no selector of any text goes without the matchers.

use weir::{
    node::ingest,
    promql::{
        self, Limits,
        ast::{Ast, Expr, Matcher},
        enforce::LabelEnforcement,
        metricsql,
        shape::normalise,
        templates,
    },
    proxy,
};

use super::wire;

fn labels() -> LabelEnforcement {
    let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
    let (several, one) = (values(&["b.c", "a"]), values(&["z\"1"]));
    LabelEnforcement::new([("ns", several.as_slice()), ("k8s.zone", one.as_slice())], false)
}

fn selectors(ast: &Ast) -> Vec<Vec<Matcher>> {
    let selector = |expr: &Expr| match expr {
        Expr::Selector(selector) => Some(normalise(&selector.matchers)),
        _ => None,
    };
    ast.nodes.iter().filter_map(|node| selector(&node.expr)).collect()
}

pub(super) fn enforcement(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    // As for VictoriaMetrics: names without escapes, templates expanded, functions that are not known.
    let expanded = metricsql::plain(text).and_then(|text| Ok(templates::expand(&text)?.into_owned()));
    let metricsql = expanded.is_ok_and(|text| is_confined(&text, true));
    is_confined(text, false) || metricsql
}

fn is_confined(text: &str, unknown_functions: bool) -> bool {
    let (limits, labels) = (Limits { unknown_functions, ..Limits::default() }, labels());
    let Ok(ast) = promql::parse_with(text, &limits) else { return false };
    let Ok(confined) = labels.confine(&ast) else { return false };
    let read = |text: &str| {
        promql::parse_with(text, &limits).unwrap_or_else(|error| panic!("{text:?} does not parse: {error}"))
    };
    let once = read(&confined);
    assert_eq!(ast.nodes.len(), once.nodes.len(), "{confined:?}");
    let with = |mut own: Vec<Matcher>| {
        own.extend(labels.matchers().cloned());
        normalise(&own)
    };
    let wanted: Vec<_> = selectors(&ast).into_iter().map(with).collect();
    assert_eq!(selectors(&once), wanted, "{confined:?}");
    // Neither a second time nor another reader's eyes change a selection.
    let twice = labels.confine(&once).map(|text| selectors(&read(&text)));
    assert!(twice.is_err() || twice.as_ref() == Ok(&wanted), "{confined:?}");
    let expanded = templates::expand(&confined).unwrap_or_else(|error| panic!("{confined:?}: {error}"));
    assert_eq!(selectors(&read(&expanded)), wanted, "{confined:?}");
    true
}

pub(super) fn texts() -> Vec<Vec<u8>> {
    let texts = [
        "sum by (ns) (rate(up{ns=\"b\",job=~`x.*`}[5m] offset 1h)) / on (ns) group_left down",
        "{__name__=~\".+\"} or {\"m.n\", \"k8s.zone\"=\"z\"} # {c}\n unless up",
        "info(up, {version=~\".+\"}) + label_replace(x, \"ns\", \"a\", \"\", \"\")",
        "max_over_time((a{ns!=\"a\"} + b{})[1h:1m] @ end())",
        "WITH (x = up{job=\"a\"}, f(q) = sum(q)) f(x) + f(y)",
        "rollup_rate(cpu_load{a='#'}[5m])",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The message of a remote read, without its compression.
pub(super) fn enforcement_read(input: &[u8]) -> bool {
    let (labels, mut snappy) = (labels(), snap::raw::Encoder::new());
    let Ok(body) = snappy.compress_vec(input) else { return false };
    let Some(confined) = proxy::confine_read(&body, &labels) else { return false };
    let message = snap::raw::Decoder::new().decompress_vec(&confined).expect("it was just compressed");
    // The node's own reader.
    let Ok(queries) = ingest::read_request(&message) else { return true };
    for query in &queries {
        assert!(labels.matchers().all(|matcher| query.matchers.contains(matcher)), "{query:?}");
    }
    let twice = proxy::confine_read(&confined, &labels).map(|body| {
        let message = snap::raw::Decoder::new().decompress_vec(&body).expect("it was just compressed");
        ingest::read_request(&message)
    });
    let set = |queries: &[ingest::ReadQuery]| {
        queries.iter().map(|query| (normalise(&query.matchers), query.window)).collect::<Vec<_>>()
    };
    // Twice as many matchers may be too many.
    if let Some(Ok(twice)) = twice {
        assert_eq!(set(&twice), set(&queries), "a second time changes the selection");
    }
    true
}

pub(super) fn reads() -> Vec<Vec<u8>> {
    wire::remote_reads()
}
