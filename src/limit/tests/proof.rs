//! Budgets open as estimates prove true.

use futures_util::FutureExt;

use super::*;

const WHOLE: u64 = 1_000_000;
const HEAVY: u64 = 50_000;

fn admission() -> Arc<Admission> {
    let mut policy = policy(WHOLE, 1000, |_| {});
    policy.backends[0].unproven_percent = 12;
    Admission::new(policy)
}

/// Runs as many as are let in at once.
fn burst(admission: &Arc<Admission>, weight: u64) -> Vec<Admitted> {
    std::iter::from_fn(|| admission.admit(ask("a", weight)).now_or_never()?.ok()).collect()
}

fn answered(running: Vec<Admitted>) {
    for one in running {
        one.permit.settle(Actual { whole: true, ..Actual::default() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_doubles_with_every_round_that_ends_as_expected() {
    let admission = admission();
    let mut rounds = Vec::new();
    for _ in 0..6 {
        let running = burst(&admission, HEAVY);
        rounds.push(running.len());
        answered(running);
    }
    // In the end all but what is for light queries.
    assert_eq!(rounds, [2, 4, 7, 12, 19, 19]);
    // In doubt it begins anew, and does not grow while the doubt lasts.
    admission.doubt(BackendId(0), true);
    for _ in 0..3 {
        let running = burst(&admission, HEAVY);
        assert_eq!(running.len(), 2);
        answered(running);
    }
    admission.doubt(BackendId(0), false);
    answered(burst(&admission, HEAVY));
    assert!(burst(&admission, HEAVY).len() > 2);
}

#[tokio::test(start_paused = true)]
async fn what_fails_or_is_light_proves_nothing() {
    let admission = admission();
    for _ in 0..5 {
        // Dropped: a failure, or a client that left.
        assert_eq!(burst(&admission, HEAVY).len(), 2);
    }
    for _ in 0..100 {
        answered(vec![admission.admit(ask("a", WHOLE / 128)).await.unwrap()]);
    }
    assert_eq!(burst(&admission, HEAVY).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn light_queries_need_no_proof_and_one_heavy_one_runs_beside_them() {
    let admission = admission();
    let light = burst(&admission, WHOLE / 1000);
    assert!(light.len() > 900, "{}", light.len());
    drop(light);
    let _beside: Vec<_> = (0..20).map(|_| admission.admit(ask("b", WHOLE / 1000)).now_or_never()).collect();
    let alone = admission.admit(ask("a", WHOLE / 2)).now_or_never().expect("one always runs").unwrap();
    let mut waits = Box::pin(admission.admit(ask("a", WHOLE / 2)));
    assert!((&mut waits).now_or_never().is_none(), "the next has to wait for proof");
    assert!(admission.admit(ask("b", WHOLE / 1000)).now_or_never().is_some(), "and light ones do not");
    answered(vec![alone]);
    assert!(waits.await.is_ok());
}
