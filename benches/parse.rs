//! How long the parser takes for the queries of dashboards: divide by their number for the mean.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn parse(c: &mut Criterion) {
    let text = include_str!("../tests/data/dashboard_queries.txt");
    let queries: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(queries.len() as u64));
    group.bench_function("dashboards", |b| {
        b.iter(|| queries.iter().filter(|query| weir::promql::parse(black_box(query)).is_ok()).count());
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
