use std::sync::Arc;

use super::*;
use crate::{cost::QuerySplit, promql::parse};

const MIB: u64 = 1 << 20;

/// The estimate in pieces of at most so many bytes.
fn divided(query: &str, times: EvalTimes, known: SeriesKnowledge, most: u64) -> Estimated {
    let ast = Arc::new(parse(query).unwrap());
    let shape = Shape::of(&ast, times, DEFAULT_LOOKBACK_MS);
    let (known, model) = (vec![known; shape.selectors.len()], model(Kind::Prometheus));
    let whole = estimate(&shape, &known, &model);
    match QuerySplit::of(&ast, times, DEFAULT_LOOKBACK_MS) {
        Some(division) => division.divide(whole, &known, &model, most),
        None => whole,
    }
}

#[test]
fn an_aggregation_is_divided_until_it_fits_twice() {
    let sum = |most| divided("sum by(job)(foo)", six_hours(15), counted(20_000), most);
    let whole = sum(u64::MAX);
    assert!(whole.cost.memory.value > 1_000 * MIB && whole.cost.pieces == 1);
    for (most, pieces) in [(819, 3), (410, 6), (205, 16), (1, 16)] {
        let parts = sum(most * MIB);
        assert_eq!(parts.cost.pieces, pieces, "{most} MiB");
        assert!(most == 1 || parts.cost.memory.value <= most * MIB);
        assert!(parts.cost.memory.value * pieces > whole.cost.memory.value);
        // It is still the same query.
        assert_eq!((parts.cost.samples, parts.cost.steps), (whole.cost.samples, whole.cost.steps));
        let mut undivided = parts;
        undivided.undivide();
        assert_eq!(undivided, whole);
    }
}

#[test]
fn what_would_gain_nothing_or_is_not_known_stays_whole() {
    let twenty_thousand = counted(20_000);
    let at_least = SeriesKnowledge::new(Estimate::new(20_000, Confidence::AtLeast), Source::Probe);
    for (query, times, known) in [
        // The answer itself is what is large.
        ("foo", six_hours(15), twenty_thousand),
        ("topk(5000, foo)", six_hours(15), twenty_thousand),
        // Every piece would read the whole window again.
        ("sum(rate(foo[6h]))", six_hours(15), twenty_thousand),
        ("sum(max_over_time(foo[1d:5m]))", six_hours(15), twenty_thousand),
        ("sum(foo @ 1700000000)", six_hours(15), twenty_thousand),
        // Nobody counted.
        ("sum(foo)", six_hours(15), at_least),
        ("sum(foo)", six_hours(15), SeriesKnowledge::assumed(&Model::default())),
        // What is at a step depends on the range.
        ("sum(foo offset 1h) / sum(foo @ end())", six_hours(15), twenty_thousand),
        // Hardly any steps.
        ("sum(foo)", six_hours(3_600), twenty_thousand),
        ("sum(foo)", EvalTimes::instant(NOW), twenty_thousand),
    ] {
        assert_eq!(divided(query, times, known, 10 * MIB).cost.pieces, 1, "{query}");
    }
}

#[test]
fn every_step_is_in_one_piece_and_on_the_grid() {
    let ast = Arc::new(parse("sum(foo)").unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let step = random.u64(1..100_000);
        let start = random.i64(-5_000_000..NOW);
        let end = start + (step * random.u64(15..500)) as i64 + random.i64(0..step as i64);
        let whole = EvalTimes { start, end, step };
        let division = QuerySplit::of(&ast, whole, DEFAULT_LOOKBACK_MS).unwrap();
        let steps = |times: EvalTimes| {
            (0..times.steps()).map(move |n| times.start + (n * step) as i64).collect::<Vec<_>>()
        };
        let pieces = division.times(random.u64(2..8));
        assert!(pieces.iter().all(|piece| piece.step == step && piece.end <= end));
        let joined: Vec<i64> = pieces.into_iter().flat_map(steps).collect();
        assert_eq!(joined, steps(whole));
    }
}
