//! The heavy lane opens as queries complete, and closes as far as one.

use super::*;

const WHOLE: u64 = 1_000 << 20;
const HEAVY: u64 = 50 << 20;

fn admission() -> Arc<Admission> {
    let mut policy = policy(WHOLE, 1000, |_| {});
    policy.backends[0].unproven_percent = 12;
    Admission::new(policy)
}

#[tokio::test(start_paused = true)]
async fn a_burst_doubles_with_every_round_that_completes() {
    let admission = admission();
    let mut rounds = Vec::new();
    for _ in 0..6 {
        let running = fill(&admission, &ask("a", HEAVY));
        rounds.push(running.len());
        answered(running);
    }
    // In the end all but the light lane.
    assert_eq!(rounds, [2, 4, 8, 16, 19, 19]);
    // Estimates that are too low close it by that factor, and it does not grow while they are.
    for _ in 0..3 {
        let running = fill(&admission, &ask("a", HEAVY));
        look(&admission, &Distress { underestimate: 8.0, ..Distress::NONE });
        answered(running);
    }
    let running = fill(&admission, &ask("a", HEAVY));
    assert_eq!(running.len(), 2);
    look(&admission, &Distress::NONE);
    answered(running);
    assert!(fill(&admission, &ask("a", HEAVY)).len() > 2);
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_is_light_proves_nothing() {
    let admission = admission();
    for _ in 0..5 {
        // Dropped: a failure, or a client that left.
        assert_eq!(fill(&admission, &ask("a", HEAVY)).len(), 2);
    }
    for _ in 0..100 {
        answered([admission.admit(ask("a", WHOLE / 128)).await.unwrap()]);
    }
    assert_eq!(fill(&admission, &ask("a", HEAVY)).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_a_burst_that_nothing_is_known_of_a_smaller_query_goes_first() {
    let admission = admission();
    // The first of all would fill half of the budget.
    let mut large = Box::pin(admission.admit(ask("a", WHOLE / 2)));
    assert!((&mut large).now_or_never().is_none(), "it lets others of its burst go first");
    assert_eq!(admission.snapshot().backends[0].reasons, [(WaitReason::SmallerFirst, 1)]);
    let small = admission.admit(ask("a", HEAVY)).now_or_never().expect("it fits the window").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!((&mut large).now_or_never().is_none(), "it can only run alone");
    answered([small]);
    let large = large.now_or_never().expect("nothing else runs").unwrap();
    assert!(large.waited < Duration::from_millis(300), "{:?}", large.waited);
    // Alone, the first one waits a moment only.
    let admission = self::admission();
    let alone = admission.admit(ask("a", WHOLE / 2)).await.unwrap();
    assert_eq!(alone.waited, Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn one_that_can_only_run_alone_is_passed_by_smaller_ones_for_half_of_its_wait_at_most() {
    let mut policy = policy(WHOLE, 1000, |tenant| tenant.queue.wait = Duration::from_secs(20));
    policy.backends[0].unproven_percent = 12;
    let admission = Admission::new(policy);
    let mut running = fill(&admission, &ask("b", HEAVY));
    let large = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.admit(ask("a", WHOLE / 2)).await }
    });
    // Failures: the window stays as it is. Each ends as the next comes, so that the lane is never empty.
    for second in 0..15 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.drain(..running.len().min(1));
        let next = admission.admit(ask("b", HEAVY)).now_or_never();
        assert_eq!(next.is_some(), second < 9 && !large.is_finished(), "{second}");
        running.extend(next.and_then(Result::ok));
    }
    let waited = large.await.unwrap().unwrap().waited;
    assert!(waited >= Duration::from_secs(10) && waited < Duration::from_secs(14), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn light_queries_do_not_wait_for_the_window_and_one_heavy_one_runs_beside_them() {
    let admission = admission();
    let light = fill(&admission, &ask("a", WHOLE / 1000));
    assert!(light.len() >= 31 + 110, "{}", light.len());
    drop(light);
    let _beside: Vec<_> = (0..20).map(|_| admission.admit(ask("b", WHOLE / 1000)).now_or_never()).collect();
    let alone = admission.admit(ask("a", WHOLE / 2)).await.unwrap();
    let mut waits = Box::pin(admission.admit(ask("a", WHOLE / 2)));
    assert!((&mut waits).now_or_never().is_none(), "the next has to wait for it");
    assert!(admission.admit(ask("b", WHOLE / 1000)).now_or_never().is_some(), "and light ones do not");
    answered([alone]);
    assert!(waits.await.is_ok());
}
