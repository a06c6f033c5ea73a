mod answers;
mod pages;
mod traces;

use std::time::Duration;

use tokio::time::Instant;

use super::{Controller, Expected, Monitor, OnStale, Settings, Sight, Signal, Silence};
use crate::backend::Kind;

/// Feeds a signal a second; the share after each.
fn run(
    controller: &mut Controller,
    from: Instant,
    signals: impl IntoIterator<Item = Option<f64>>,
) -> Vec<f64> {
    let times = (1..).map(|second| from + Duration::from_secs(second));
    let sight = |pressure| Sight { pressure, silence: Silence::None };
    times.zip(signals).map(|(at, pressure)| controller.step(sight(pressure), at).share()).collect()
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
    for (on_stale, least) in [(OnStale::Hold, 1.0), (OnStale::SHRINK, 0.05), (OnStale::ShrinkTo(0.1), 0.1)] {
        let mut controller = Controller::new(on_stale, start);
        let before = *run(&mut controller, start, vec![Some(0.95); 3]).last().unwrap();
        let quiet = |silence| Sight { pressure: Some(0.0), silence };
        let at = |second| start + Duration::from_secs(second);
        // Other signals are at ease all the while.
        for second in 4..18 {
            assert_eq!(controller.step(quiet(Silence::Short), at(second)).share(), before, "{on_stale:?}");
        }
        let late = (18..80).map(|second| controller.step(quiet(Silence::Stale), at(second)).share());
        let late: Vec<_> = late.collect();
        assert!(late.is_sorted_by(|a, b| a >= b), "{on_stale:?}: {late:?}");
        assert_eq!(late.last().copied(), Some(before.min(least)), "{on_stale:?}");
        // Heard again, it comes back as slowly as ever.
        let back = controller.step(quiet(Silence::None), at(80)).share();
        assert!(back > before.min(least) && back < before.min(least) + 0.03, "{on_stale:?}: {back}");
    }
}

#[test]
fn ignored_silence_leaves_it_to_the_others() {
    let start = Instant::now();
    let mut controller = Controller::new(OnStale::Ignore, start);
    let before = *run(&mut controller, start, vec![Some(0.95); 3]).last().unwrap();
    let sight = |pressure| Sight { pressure: Some(pressure), silence: Silence::Stale };
    assert!(controller.step(sight(0.0), start + Duration::from_secs(4)).share() > before);
    assert!(controller.step(sight(0.95), start + Duration::from_secs(9)).share() < before);
}

#[test]
fn what_shed_goes_on_to_shed_while_it_is_silent_and_ends_when_it_is_stale() {
    let start = Instant::now();
    let mut controller = Controller::new(OnStale::Hold, start);
    let at = |second| start + Duration::from_secs(second);
    let step = |controller: &mut Controller, pressure, silence, second| {
        controller.step(Sight { pressure: Some(pressure), silence }, at(second)).share()
    };
    assert_eq!(step(&mut controller, 1.0, Silence::None, 1), 0.0);
    assert_eq!(step(&mut controller, 0.1, Silence::Short, 2), 0.0);
    let after = step(&mut controller, 0.1, Silence::Stale, 20);
    assert!(after > 0.0 && after <= 0.55, "{after}");
}

#[test]
fn a_signal_that_was_never_heard_is_stale_all_the_same() {
    let start = Instant::now();
    for (on_stale, share) in
        [(OnStale::SHRINK, 0.05), (OnStale::ShrinkTo(0.3), 0.3), (OnStale::Hold, 1.0), (OnStale::Ignore, 1.0)]
    {
        let settings = Settings { memory_limit: Some(100), on_stale, ..Settings::default() };
        let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
        let mut last = None;
        for second in 1..60 {
            // No page at all, or one that says nothing of memory.
            let pages = [None, Some("up 1\n")];
            let look = monitor.look(&pages, Expected::default(), start + Duration::from_secs(second));
            assert_eq!(look.stale.contains(&Signal::Memory), second > 15, "second {second}");
            last = Some(look.left.share());
        }
        assert_eq!(last, Some(share), "{on_stale:?}");
        let heard = monitor.look(
            &[Some("process_resident_memory_bytes 10\n")],
            Expected::default(),
            start + Duration::from_secs(60),
        );
        assert_eq!(heard.stale, []);
    }
    // Where nothing is to be expected, nothing is missed.
    let mut monitor =
        Monitor::new(Kind::Thanos, Settings { on_stale: OnStale::SHRINK, ..Settings::default() }, start);
    let look = monitor.look(&[None], Expected::default(), start + Duration::from_secs(100));
    assert_eq!((look.left.share(), look.stale), (1.0, vec![]));
}

#[test]
fn a_reload_keeps_what_pressure_took() {
    let start = Instant::now();
    let settings = Settings { memory_limit: Some(100), ..Settings::default() };
    let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
    let mut share = 1.0;
    for second in 1..5 {
        share = monitor
            .look(
                &[Some("process_resident_memory_bytes 95\n")],
                Expected::default(),
                start + Duration::from_secs(second),
            )
            .left
            .share();
    }
    assert!(share < 0.5);
    let now = start + Duration::from_secs(5);
    monitor.obey(Kind::Weir, Settings { memory_limit: Some(1_000), ..settings }, now);
    let look = monitor.look(&[Some("process_resident_memory_bytes 95\n")], Expected::default(), now);
    assert!(look.left.share() < share + 0.03, "{look:?}");
}

#[test]
fn a_clock_that_goes_back_or_stops_changes_nothing() {
    let start = Instant::now() + Duration::from_secs(1_000);
    let mut controller = Controller::new(OnStale::Hold, start);
    let before = *run(&mut controller, start, vec![Some(0.9); 3]).last().unwrap();
    let sight = |pressure| Sight { pressure: Some(pressure), silence: Silence::None };
    for back in [0, 1, 500, 1] {
        let at = start + Duration::from_secs(3) - Duration::from_secs(back);
        assert_eq!(controller.step(sight(0.9), at).share(), before, "{back}");
    }
    // And a long pause counts for a few seconds, not for all of it.
    let after = controller.step(sight(0.0), start + Duration::from_secs(3_000)).share();
    assert!(after <= before + 0.11, "{before} {after}");
}
