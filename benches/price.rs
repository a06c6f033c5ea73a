//! How long pricing takes: the queries of dashboards (divide by their number for the mean), and one of 5,000 selectors.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::{
    base::{Confidence, Estimate, time::EvalTimes},
    cost::{Knowledge, Model, SeriesKnowledge, Source, estimate},
    promql::{
        Limits, parse_with,
        shape::{DEFAULT_LOOKBACK_MS, Shape},
    },
};

fn shapes(queries: &[&str]) -> Vec<Shape> {
    let limits = Limits { bytes: 1 << 20, nodes: 100_000, ..Limits::default() };
    let times = EvalTimes { start: 0, end: 21_600_000, step: 15_000 };
    let ast = |query: &&str| parse_with(query, &limits).ok().map(Arc::new);
    queries.iter().filter_map(ast).map(|ast| Shape::of(&ast, times, DEFAULT_LOOKBACK_MS)).collect()
}

fn price(c: &mut Criterion) {
    let text = include_str!("../tests/data/dashboard_queries.txt");
    let dashboards: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let chain = (0..5_000).map(|i| format!("x{i}")).collect::<Vec<_>>().join("+");
    let model = Model::default();
    let known = SeriesKnowledge::new(Estimate::new(1_000, Confidence::UpperBound), Source::LabelTable);
    let known = vec![known; 5_000];
    let known = Knowledge::from(&*known);
    let mut group = c.benchmark_group("price");
    for (name, shapes) in [("dashboards", shapes(&dashboards)), ("5,000 selectors", shapes(&[&chain]))] {
        group.throughput(Throughput::Elements(shapes.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| shapes.iter().map(|s| estimate(black_box(s), &known, &model).cost.memory.value).max());
        });
    }
    group.finish();
}

criterion_group!(benches, price);
criterion_main!(benches);
