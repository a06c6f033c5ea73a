//! Many probes at a time: they are few, they take turns, and the memory that they take of a backend is bounded.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use weir::backend::{DataScope, Kind, ProbeError, ProbeRequest, ProbeSettings};

use super::probe::{backend, request, series};
use crate::support::fake_upstream::{Act, FakeUpstream, Seen};

/// Eight selectors at once, at a backend that counts one in 20 ms and is late when it counts two.
#[tokio::test]
async fn a_crowd_is_counted_one_after_the_other() {
    let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let upstream = FakeUpstream::start(move |seen| {
        // The first wave is late as a whole, as nobody of it is answered.
        if running.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4 {
            return Act::hang();
        }
        let _ = seen;
        series(7)
    })
    .await;
    let settings = ProbeSettings { deadline: Duration::from_millis(200), ..ProbeSettings::default() };
    let backend = backend(Kind::Cortex, &upstream, settings);
    let scope = DataScope::default();
    let selectors: Vec<String> = (0..8).map(|n| format!("m{n}")).collect();
    let all = selectors.iter().map(|selector| {
        let request = ProbeRequest { selector, ..request(&scope) };
        let backend = Arc::clone(&backend);
        async move { backend.probe(&request).await }
    });
    let outcomes = futures_util::future::join_all(all).await;
    assert!(
        outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|o| o.series.value == 7)),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn whoever_gets_no_turn_was_not_asked() {
    let one = ProbeSettings { concurrency: 1, ..ProbeSettings::default() };
    let upstream = FakeUpstream::start(|_| Act::hang()).await;
    let backend = backend(Kind::Cortex, &upstream, one);
    let scope = DataScope::default();
    let soon = || ProbeRequest { deadline: Instant::now() + Duration::from_millis(50), ..request(&scope) };
    let (first, second) = (soon(), ProbeRequest { selector: "other", ..soon() });
    let (first, second) = tokio::join!(backend.probe(&first), backend.probe(&second));
    assert!(first.is_err_and(|error| error.is_unasked()) && second.is_err_and(|error| error.is_unasked()));
    assert_eq!(upstream.seen().len(), 1, "the second never got a place");
}

/// A list of 50,000 series takes 50 of the 64 MiB that all probes may. Short lists pass it.
#[tokio::test]
async fn probes_that_would_hold_much_run_one_after_the_other_and_hold_up_no_short_one() {
    let limit_of = |seen: &Seen| seen.params("limit")[0].parse::<u64>().unwrap();
    let upstream = FakeUpstream::start(move |seen| match &*seen.params("match[]")[0] {
        "short" => series(3),
        _ if limit_of(seen) == 1_001 => series(1_001),
        _ => Act::hang(),
    })
    .await;
    let backend = backend(Kind::Cortex, &upstream, ProbeSettings::default());
    let scope = DataScope::default();
    let within = |millis| Instant::now() + Duration::from_millis(millis);
    let probe = |selector: &'static str, deadline| {
        let backend = Arc::clone(&backend);
        let request = ProbeRequest { selector, limit: 50_000, deadline, ..request(&scope) };
        async move { backend.probe(&request).await }
    };
    // The others give up first, so that none of them gets the room of the first.
    let long = [("a", 800), ("b", 600), ("c", 600)].map(|(selector, millis)| probe(selector, within(millis)));
    let short = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        probe("short", within(200)).await
    };
    let (long, short) = tokio::join!(futures_util::future::join_all(long), short);
    assert_eq!(short.unwrap().series.value, 3);
    assert!(long.iter().all(|outcome| outcome.as_ref().is_err_and(ProbeError::is_unasked)));
    let asked_in_full = upstream.seen().iter().filter(|seen| limit_of(seen) == 50_001).count();
    assert_eq!(asked_in_full, 1);
}
