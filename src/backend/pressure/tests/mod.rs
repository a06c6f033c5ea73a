mod pages;
mod traces;

use std::time::Duration;

use tokio::time::Instant;

use super::{Monitor, OnStale, Settings};
use crate::{
    backend::Kind,
    base::distress::{Load, Signal},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn silence_is_no_ease_and_does_in_the_end_what_is_configured() {
    for (on_stale, silent, ceiling) in [
        (OnStale::SHRINK, true, Some(0.0)),
        (OnStale::ShrinkTo(0.3), true, Some(0.3)),
        (OnStale::Hold, true, None),
        (OnStale::Ignore, false, None),
    ] {
        let start = Instant::now();
        let settings = Settings { memory_limit: Some(100), on_stale, ..Settings::default() };
        let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
        for second in 1..60 {
            // No page at all, or one that says nothing of memory.
            let look = monitor.observe(&[None, Some("up 1\n")], Load::default(), start + SECOND * second);
            assert_eq!(look.stale.contains(&Signal::Memory), second > 15, "second {second}");
            let expected = if second > 15 { (silent, ceiling) } else { (true, None) };
            assert_eq!(
                (look.distress.silent, look.distress.ceiling),
                expected,
                "{on_stale:?}, second {second}"
            );
        }
        let page = [Some("process_resident_memory_bytes 10\n")];
        let heard = monitor.observe(&page, Load::default(), start + SECOND * 60);
        assert!(heard.stale.is_empty() && !heard.distress.silent);
    }
    // Where nothing is to be expected, nothing is missed.
    let settings = Settings { on_stale: OnStale::SHRINK, ..Settings::default() };
    let start = Instant::now();
    let look = Monitor::new(Kind::Thanos, settings, start).observe(&[None], Load::default(), start + SECOND);
    assert!(look.distress.is_ease() && look.stale.is_empty());
}

#[test]
fn a_reload_keeps_what_was_heard() {
    let start = Instant::now();
    let settings = Settings { memory_limit: Some(100), ..Settings::default() };
    let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
    let busy = Load { heavy_bytes: 50, queries: 1, budget: None };
    let page = |bytes: u64| format!("process_resident_memory_bytes {bytes}\n");
    monitor.observe(&[Some(&page(10))], Load::default(), start);
    monitor.obey(Kind::Prometheus, Settings { memory_limit: Some(200), ..settings }, start + SECOND);
    let look = monitor.observe(&[Some(&page(150))], busy, start + SECOND);
    let (signal, pressure) = look.distress.pressure.unwrap();
    assert!(signal == Signal::Memory && pressure > 0.7, "140 of 190 above the level at rest: {pressure}");
}
