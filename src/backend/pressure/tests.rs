use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, HIGH, LOW, OnStale, read};
use crate::backend::Kind;

/// Feeds a signal a second; the share after each.
fn run(
    controller: &mut Controller,
    from: Instant,
    signals: impl IntoIterator<Item = Option<f64>>,
) -> Vec<f64> {
    let times = (1..).map(|second| from + Duration::from_secs(second));
    times.zip(signals).map(|(at, pressure)| controller.step(pressure, at)).collect()
}

#[test]
fn it_falls_fast_and_rises_slowly() {
    let start = Instant::now();
    let mut controller = Controller::new(OnStale::Hold, start);
    let down = run(&mut controller, start, vec![Some(0.95); 5]);
    assert!(down.is_sorted_by(|a, b| a > b), "{down:?}");
    assert!(down[4] < 0.2, "{down:?}");
    let up = run(&mut controller, start + Duration::from_secs(5), vec![Some(0.2); 100]);
    assert!(up.is_sorted(), "{up:?}");
    assert!(up[9] < 0.5 && up[99] == 1.0, "{up:?}");
}

#[test]
fn it_never_reaches_zero_but_at_the_very_limit() {
    let start = Instant::now();
    let mut controller = Controller::new(OnStale::Hold, start);
    let low = run(&mut controller, start, vec![Some(0.97); 600]);
    assert!(low.iter().all(|share| *share > 0.0));
    let shed = run(&mut controller, start + Duration::from_secs(600), [Some(1.0), Some(0.9), Some(0.8)]);
    assert_eq!((shed[0], shed[1]), (0.0, 0.0));
    assert!(shed[2] > 0.0, "{shed:?}");
}

#[test]
fn silence_is_held_or_shrinks_and_never_opens() {
    let start = Instant::now();
    for (on_stale, held) in [(OnStale::Hold, true), (OnStale::Shrink, false)] {
        let mut controller = Controller::new(on_stale, start);
        let before = *run(&mut controller, start, vec![Some(0.95); 3]).last().unwrap();
        let after = *run(&mut controller, start + Duration::from_secs(3), vec![None; 60]).last().unwrap();
        assert_eq!(after == before, held, "{on_stale:?}: {before} {after}");
        assert!(after <= before);
    }
    let mut never_heard = Controller::new(OnStale::Shrink, start);
    assert_eq!(run(&mut never_heard, start, vec![None; 60]).pop(), Some(1.0));
}

/// A backend whose memory follows the share of its budget that is in use, with some seconds of delay.
#[test]
fn a_constant_load_does_not_make_it_swing() {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(11);
    for demand in [0.5, 0.9, 1.2, 2.0, 5.0] {
        let mut controller = Controller::new(OnStale::Hold, start);
        let (mut memory, mut shares) = (0.3_f64, Vec::new());
        for second in 1..=600_u64 {
            let share = controller.step(Some(memory.min(1.0)), start + Duration::from_secs(second));
            let wanted = 0.3 + (demand * share).min(demand) * 0.6 + rng.f64() * 0.02;
            memory += (wanted - memory) * 0.3;
            shares.push(share);
        }
        let late = &shares[300..];
        let (least, most) = late.iter().fold((1.0_f64, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
        assert!(most - least <= 0.25, "demand {demand}: between {least} and {most}");
        assert!(memory < 1.0, "demand {demand}: {memory}");
    }
    const { assert!(LOW < HIGH) };
}

#[test]
fn pages_are_read_by_kind() {
    let prometheus = "# HELP x y\nprocess_resident_memory_bytes 3.0e+09\nprometheus_engine_queries 3\n";
    let reading = read(Kind::Prometheus, prometheus, Some(4_000_000_000)).unwrap();
    assert_eq!((reading.pressure, reading.signal), (0.75, "memory"));
    assert_eq!(read(Kind::Prometheus, prometheus, None), None);
    let victoria = "process_resident_memory_bytes 10\nvm_available_memory_bytes 100\n\
        vm_concurrent_select_current 4\nvm_concurrent_select_capacity 8\n";
    assert_eq!(read(Kind::VictoriaMetrics, victoria, None).unwrap().signal, "queries");
    let weir = "weir_pool_outstanding_bytes{pool=\"a} b\"} 30\nweir_pool_outstanding_bytes{pool=\"b\"} 30 1700\nweir_pool_cap_bytes 100\n";
    assert_eq!(read(Kind::Weir, weir, None).unwrap().pressure, 0.6);
    for garbage in [
        "",
        "weir_pool_outstanding_bytes",
        "weir_pool_outstanding_bytes{ 1",
        "weir_pool_outstanding_bytes NaN\nweir_pool_cap_bytes 0",
    ] {
        assert_eq!(read(Kind::Weir, garbage, Some(1)), None, "{garbage}");
    }
}
