use super::*;
use crate::{base::TimeRange, series::Samples};

const OPEN: Rules = Rules { oldest: i64::MIN, late_from: i64::MIN, newest: i64::MAX };

#[test]
fn samples_are_judged_as_prometheus_judges_them() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let mut runs = Runs::default();
    for (time, value) in [(100, 1.0), (200, stale), (300, 0.0)] {
        assert!(runs.insert(time, value));
    }
    let strict = Rules { late_from: i64::MAX, ..OPEN };
    let narrow = Rules { late_from: 150, oldest: 50, newest: 400 };
    for (time, value, rules, expected) in [
        (300, 0.0, OPEN, Ok(false)),
        (300, -0.0, OPEN, Err(Refusal::Duplicate)),
        (200, stale, OPEN, Ok(false)),
        (200, f64::NAN, OPEN, Err(Refusal::Duplicate)),
        (250, 5.0, OPEN, Ok(true)),
        (250, 5.0, strict, Err(Refusal::OutOfOrder)),
        (301, 5.0, strict, Ok(true)),
        (149, 5.0, narrow, Err(Refusal::TooOld)),
        (150, 5.0, narrow, Ok(true)),
        (49, 5.0, narrow, Err(Refusal::TooOld)),
        (401, 5.0, narrow, Err(Refusal::TooFarAhead)),
        (i64::MIN, 5.0, OPEN, Ok(true)),
        (i64::MAX, 5.0, OPEN, Ok(true)),
    ] {
        assert_eq!(runs.check(time, value, None, rules), expected, "{time} {value}");
    }
    assert_eq!(runs.check(500, 2.0, Some((500, 1.0)), OPEN), Err(Refusal::Duplicate));
    assert_eq!(runs.check(400, 2.0, Some((500, 1.0)), strict), Err(Refusal::OutOfOrder));
}

#[test]
fn runs_hold_what_a_sorted_map_holds() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..2 {
        let mut runs = Runs::default();
        let mut model = std::collections::BTreeMap::new();
        for step in 0..2_000_i64 {
            // Mostly forward, sometimes back.
            let time = if random.u8(..) < 60 { random.i64(0..=step * 10) } else { step * 10 };
            let value = random.f64();
            assert_eq!(runs.insert(time, value), !model.contains_key(&time));
            model.entry(time).or_insert(value);
            if random.u16(..) < 20 {
                let before = random.i64(0..=step * 5);
                let kept = model.split_off(&before);
                assert_eq!(runs.drop_before(before), model.len() as u64);
                model = kept;
            }
        }
        for _ in 0..50 {
            let window = TimeRange::new(random.i64(-5..30_000), random.i64(-5..30_000));
            let mut got = Samples::default();
            runs.collect(window, &mut got);
            let expected: Vec<(i64, f64)> =
                model.range(window.start..=window.end).map(|(t, v)| (*t, *v)).collect();
            assert_eq!(
                got.times.iter().copied().zip(got.values.iter().copied()).collect::<Vec<_>>(),
                expected
            );
            assert_eq!(runs.count(window), expected.len() as u64, "round {round}");
        }
        assert_eq!(runs.first_time(), model.keys().next().copied());
        assert_eq!(runs.last().map(|l| l.0), model.keys().last().copied());
    }
}

#[test]
fn a_refused_series_leaves_no_trace_in_its_batch() {
    let limits = LabelLimits { labels: 3, name_bytes: 8, value_bytes: 10 };
    let long = "x".repeat(1 << 20);
    let bad: &[&[(&str, &str)]] = &[
        &[("", "a")],
        &[("a", "1"), ("a", "2")],
        &[("a", "1"), ("b", "1"), ("a", "1")],
        &[],
        &[("a", "")],
        &[("a", &long)],
        &[("too_long_a_name", "a")],
        &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")],
    ];
    let mut batch = Batch::new(limits);
    for labels in bad {
        for (name, value) in *labels {
            batch.label(name, value);
        }
        batch.sample(1, 1.0);
        let problem = batch.end_series().unwrap_err();
        assert!(problem.to_string().len() < 200, "{problem}");
        batch.label("b", "2");
        batch.label("e", "");
        batch.label("__name__", "1");
        batch.sample(5, 6.0);
        batch.end_series().unwrap();
    }
    assert_eq!(batch.len(), bad.len());
    for series in batch.series() {
        assert_eq!(
            (&*series.labels(), series.samples),
            (&[("__name__", "1"), ("b", "2")][..], &[(5, 6.0)][..])
        );
    }
}

#[test]
fn series_are_found_removed_and_their_numbers_given_again() {
    let mut registry = Registry::default();
    let first = registry.find_or_insert(&[("a", "1")]).unwrap();
    let second = registry.find_or_insert(&[("a", "2")]).unwrap();
    assert_eq!(registry.find_or_insert(&[("a", "1")]).unwrap().id(), first.id());
    registry.remove(first.id());
    registry.remove(first.id());
    assert!(registry.find(&[("a", "1")]).is_none());
    assert_eq!((registry.len(), registry.index().len()), (1, 1));
    let third = registry.find_or_insert(&[("a", "3")]).unwrap();
    assert_eq!(third.id(), first.id());
    assert_eq!(registry.get(second.id()).unwrap().labels().get("a"), "2");
}
