use super::*;
use crate::{cost::QuerySplit, promql::parse};

const MIB: u64 = 1 << 20;

struct Ask<'a> {
    query: &'a str,
    times: EvalTimes,
    known: SeriesKnowledge,
    kind: Kind,
    table: Option<&'a LabelTable>,
}

fn ask(query: &str, known: SeriesKnowledge) -> Ask<'_> {
    Ask { query, times: six_hours(15), known, kind: Kind::Prometheus, table: None }
}

/// The estimate in parts of at most `part_max` bytes.
fn split(ask: &Ask<'_>, most: u64) -> Estimated {
    let ast = Arc::new(parse(ask.query).unwrap());
    let shape = Shape::of(&ast, ask.times, DEFAULT_LOOKBACK_MS);
    let (known, model) = (vec![ask.known; shape.selectors.len()], model(ask.kind));
    let known = Knowledge { series: &known, table: ask.table, entry_bytes: None };
    let whole = estimate(&shape, &known, &model);
    match QuerySplit::of(&ast, ask.times, DEFAULT_LOOKBACK_MS) {
        Some(split) => split.split(whole, &known, &model, most),
        None => whole,
    }
}

#[test]
fn an_aggregation_is_split_until_it_fits_twice() {
    let sum = |most| split(&ask("sum(foo)", counted(20_000)), most);
    let whole = sum(u64::MAX);
    assert!(whole.cost.memory.value > 800 * MIB && whole.parts == 1);
    for (most, parts) in [(700, 3), (350, 6), (175, 16)] {
        let split = sum(most * MIB);
        assert!(split.parts <= parts && split.parts > 1, "{most} MiB: {}", split.parts);
        assert_eq!(split.cost.memory.value, most * MIB);
        // It is still the same query.
        assert_eq!((split.cost.samples, split.cost.steps), (whole.cost.samples, whole.cost.steps));
        let mut made_whole = split;
        made_whole.make_whole();
        assert_eq!(made_whole, whole);
    }
}

#[test]
fn a_split_query_is_booked_higher_the_more_it_reads() {
    for query in ["sum(foo)", "sum by (job) (rate(foo[5m]))", "topk(3, foo) / 2", "max(foo / foo)"] {
        for most in [MIB, 50 * MIB, 400 * MIB] {
            let mut before = 0;
            for exponent in 0..160 {
                let series = 1.1f64.powi(exponent) as u64;
                let now = split(&ask(query, counted(series)), most).cost.memory.value;
                assert!(now >= before, "{query}, {most}: {series} series take {now}, fewer {before}");
                before = now;
            }
        }
    }
}

#[test]
fn a_query_that_gains_nothing_or_is_not_known_stays_whole() {
    let twenty_thousand = counted(20_000);
    let at_least = SeriesKnowledge::new(Estimate::new(20_000, Confidence::AtLeast), Source::Probe);
    for (query, times, known) in [
        // The answer itself is large.
        ("foo", six_hours(15), twenty_thousand),
        ("topk(5000, foo)", six_hours(15), twenty_thousand),
        // Every part would read the whole window again.
        ("sum(rate(foo[6h]))", six_hours(15), twenty_thousand),
        ("sum(max_over_time(foo[1d:5m]))", six_hours(15), twenty_thousand),
        ("sum(foo @ 1700000000)", six_hours(15), twenty_thousand),
        // Nobody counted.
        ("sum(foo)", six_hours(15), at_least),
        ("sum(foo)", six_hours(15), SeriesKnowledge::assumed(&Model::default())),
        // The value at a step depends on the range.
        ("sum(foo offset 1h) / sum(foo @ end())", six_hours(15), twenty_thousand),
        // Hardly any steps.
        ("sum(foo)", six_hours(3_600), twenty_thousand),
        ("sum(foo)", EvalTimes::instant(NOW), twenty_thousand),
    ] {
        assert_eq!(split(&Ask { times, ..ask(query, known) }, 10 * MIB).parts, 1, "{query}");
    }
}

#[test]
fn parts_that_may_differ_from_the_whole_are_not_asked_for() {
    let status = r#"{"status":"success","data":{"headStats":{"numSeries":9,"minTime":0},
        "labelValueCountByLabelName":[{"name":"__type__","value":3}]}}"#;
    let typed = LabelTable::from_tsdb_status(status.as_bytes(), NOW, 100).unwrap();
    let many = counted(20_000);
    let parts = |ask: &Ask<'_>| split(ask, 50 * MIB).parts > 1;
    assert!(parts(&ask("sum(rate(foo[5m]))", many)));
    // `__type__` goes with the name, and may change in time.
    assert!(!parts(&Ask { table: Some(&typed), ..ask("sum(rate(foo[5m]))", many) }));
    assert!(parts(&Ask { table: Some(&typed), ..ask("sum(foo)", many) }));
    // Where a query starts decides which replica Thanos takes.
    assert!(!parts(&Ask { kind: Kind::Thanos, ..ask("sum(foo)", many) }));
    let ast = Arc::new(parse("sum(foo)").unwrap());
    let all = QuerySplit::of(&ast, six_hours(15), DEFAULT_LOOKBACK_MS).unwrap().of_all_replicas();
    let (shape, known) = (Shape::of(&ast, six_hours(15), DEFAULT_LOOKBACK_MS), [many]);
    let (known, model) = (Knowledge::from(&known[..]), model(Kind::Thanos));
    assert!(all.split(estimate(&shape, &known, &model), &known, &model, 50 * MIB).parts > 1);
}

#[test]
fn every_step_is_in_one_part_and_on_the_grid() {
    let ast = Arc::new(parse("sum(foo)").unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let step = random.u64(1..100_000);
        let start = random.i64(-5_000_000..NOW);
        let end = start + (step * random.u64(15..500)) as i64 + random.i64(0..step as i64);
        let whole = EvalTimes { start, end, step };
        let split = QuerySplit::of(&ast, whole, DEFAULT_LOOKBACK_MS).unwrap();
        let steps = |times: EvalTimes| {
            (0..times.steps()).map(move |n| times.start + (n * step) as i64).collect::<Vec<_>>()
        };
        let parts = split.times(random.u64(2..8));
        assert!(parts.iter().all(|part| part.step == step && part.end <= end));
        let joined: Vec<i64> = parts.into_iter().flat_map(steps).collect();
        assert_eq!(joined, steps(whole));
    }
}
