//! The corpus of ordinary queries: all parse, as an independent parser has it too, and no mutation of them does harm.

use std::time::{Duration, Instant};

use weir::promql::{
    self,
    ast::{Ast, Expr, ValueType},
};

fn corpus() -> Vec<&'static str> {
    let text = include_str!("../../data/dashboard_queries.txt");
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// The nodes of both trees: selectors, calls, aggregations and operators.
fn ours(ast: &Ast) -> [usize; 4] {
    let mut count = [0; 4];
    for node in &ast.nodes {
        match &node.expr {
            Expr::Selector(_) => count[0] += 1,
            Expr::Call { .. } => count[1] += 1,
            Expr::Aggregate { .. } => count[2] += 1,
            Expr::Binary { .. } if node.ty != ValueType::Duration => count[3] += 1,
            _ => {}
        }
    }
    count
}

fn theirs(expr: &promql_parser::parser::Expr, count: &mut [usize; 4]) {
    use promql_parser::parser::Expr as E;
    match expr {
        E::VectorSelector(_) | E::MatrixSelector(_) => count[0] += 1,
        E::Call(call) => {
            count[1] += 1;
            for arg in &call.args.args {
                theirs(arg, count);
            }
        }
        E::Aggregate(aggregate) => {
            count[2] += 1;
            aggregate.param.iter().chain([&aggregate.expr]).for_each(|e| theirs(e, count));
        }
        E::Binary(binary) => {
            count[3] += 1;
            theirs(&binary.lhs, count);
            theirs(&binary.rhs, count);
        }
        E::Paren(paren) => theirs(&paren.expr, count),
        E::Unary(unary) => theirs(&unary.expr, count),
        E::Subquery(subquery) => theirs(&subquery.expr, count),
        E::NumberLiteral(_) | E::StringLiteral(_) | E::Extension(_) => {}
    }
}

#[test]
fn every_query_parses_alike() {
    let corpus = corpus();
    assert!(corpus.len() >= 200, "{} queries", corpus.len());
    for query in corpus {
        let ast = promql::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(ast.text_of(ast.root), query);
        let mut count = [0; 4];
        let other = promql_parser::parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        theirs(&other, &mut count);
        assert_eq!(ours(&ast), count, "{query}");
    }
}

#[test]
fn mutations_do_no_harm() {
    const PIECES: &[&str] = &[
        "(", ")", "{", "}", "[", "]", "5m", "offset", "@", "1e9", "\"", "\\", "é", "by", "-", "^", ":", ",",
        "NaN", "#", "\n", "=~", "step()", "anchored", "fill(1)", "bool", "0x", "start()", "'", "`", "|", "*",
    ];
    let corpus = corpus();
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..20_000 {
        let mut text: Vec<char> = corpus[rng.usize(..corpus.len())].chars().collect();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..=text.len());
            match rng.u8(..3) {
                0 => drop(text.drain(at..(at + rng.usize(..8)).min(text.len()))),
                1 => drop(text.splice(at..at, PIECES[rng.usize(..PIECES.len())].chars())),
                _ => {
                    let other = corpus[rng.usize(..corpus.len())].chars().take(rng.usize(..20));
                    drop(text.splice(at..at, other));
                }
            }
        }
        let text: String = text.into_iter().collect();
        let start = Instant::now();
        match promql::parse(&text) {
            Ok(ast) => assert!(ast.nodes.iter().all(|n| n.span.end as usize <= text.len()), "{text}"),
            Err(error) => assert!(error.span.start as usize <= text.len(), "{text}: {error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{text}");
    }
}
