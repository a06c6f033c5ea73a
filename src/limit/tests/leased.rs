//! A budget that several proxies share: the fixed part, the leased part, and its end.

use super::{
    super::{BackendDemand, BackendLease, Sharing, WaitReason},
    *,
};
use crate::base::share::{Amount, Demand, SharedWindow};

/// One of four proxies before a budget of 3,200 bytes and 32 queries: 100 of the light lane's bytes and 4 of its slots, and
/// of the heavy lane 3,100 bytes and 16 slots, of which 77 and 1 are fixed.
fn one_of_four(leased: bool) -> Arc<Admission> {
    let sharing = Sharing { replicas_max: std::num::NonZeroU64::new(4).unwrap(), leased };
    Admission::new(Policy { sharing, ..policy(3_200, 32, |_| {}) })
}

fn waits(admission: &Arc<Admission>) -> Vec<(WaitReason, u64)> {
    admission.snapshot().backends[0].reasons.clone()
}

const FIXED: u64 = 3_100 / 10 / 4;

/// An answer of the store to this proxy; `window` is that of all, where it says so.
fn lease(admission: &Arc<Admission>, leased: Amount, window: Option<SharedWindow>) {
    let until = Instant::now() + Duration::from_secs(5);
    let of_all = window.map(|window| (window, 0));
    admission.set_leased("main", &BackendLease { leased, until, of_all });
}

#[tokio::test(start_paused = true)]
async fn the_fixed_part_needs_no_lease_and_more_waits_for_one() {
    let admission = one_of_four(true);
    let pool = admission.draw_in("main").unwrap().pool;
    assert_eq!(pool, Amount { bytes: 3_100 - 4 * FIXED, queries: 12 });
    assert_eq!(admission.leased_backends(), [("main".into(), false)]);
    let first = admission.admit(ask("a", FIXED)).now_or_never().unwrap().unwrap();
    let mut second = Box::pin(admission.admit(ask("a", 1_000)));
    assert!((&mut second).now_or_never().is_none());
    admission.lease_wanted().now_or_never().expect("the lease is wanted at once");
    assert_eq!(waits(&admission), [(WaitReason::Lease, 1)]);
    assert_eq!(admission.leased_backends(), [("main".into(), true)]);
    let BackendDemand { demand, load, .. } = admission.draw_in("main").unwrap();
    assert_eq!(demand.held, Amount::NONE);
    assert_eq!(demand.wants, Amount { bytes: 1_000, queries: 1 });
    assert_eq!((demand.claim.1, load), (1_000, Amount { bytes: FIXED, queries: 1 }), "beside the first");
    lease(&admission, Amount { bytes: 1_000, queries: 1 }, None);
    let second = second.now_or_never().unwrap().unwrap();
    drop(first);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_the_clock_and_what_it_holds_runs_on() {
    let admission = one_of_four(true);
    lease(&admission, Amount { bytes: 1_000, queries: 8 }, None);
    let running = admission.admit(ask("a", FIXED + 400)).now_or_never().unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(admission.admit(ask("a", 50)).now_or_never().is_none(), "nobody has to say that it ended");
    assert_eq!(admission.draw_in("main").unwrap().demand.held, Amount { bytes: 400, queries: 0 });
    drop(running);
    assert!(admission.admit(ask("a", 50)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_drawn_in_starts_nothing_new() {
    let admission = one_of_four(true);
    lease(&admission, Amount { bytes: 1_000, queries: 8 }, None);
    let running = admission.admit(ask("a", FIXED + 400)).now_or_never().unwrap().unwrap();
    let held = Amount { bytes: 400, queries: 0 };
    let demand = admission.draw_in("main").unwrap().demand;
    assert_eq!(demand, Demand { held, wants: held, claim: (0, 0), weight: 1 });
    assert!(admission.admit(ask("a", 50)).now_or_never().is_none(), "the rest may be another's by now");
    drop(running);
    assert!(admission.admit(ask("a", FIXED + 400)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn light_queries_never_need_a_lease_and_all_proxies_together_keep_the_lane() {
    let admission = one_of_four(true);
    let heavy = fill(&admission, &ask("b", 50));
    let light = fill(&admission, &ask("a", 25));
    assert_eq!((heavy.len(), light.len()), (1, 1));
    drop(heavy);
    // One that is in its lane, and now those that the heavy lane holds.
    assert_eq!(fill(&admission, &ask("a", 25)).len(), 1, "a slot of its own");
}

#[tokio::test(start_paused = true)]
async fn the_heaviest_query_is_the_pool_and_one_fixed_part_and_without_leases_an_equal_part() {
    for (leased, heaviest) in [(true, 3_100 - 3 * FIXED), (false, 3_100 / 4)] {
        let admission = one_of_four(leased);
        let refusal = admission.admit(ask("a", heaviest + 1)).now_or_never().unwrap().unwrap_err();
        assert_eq!((refusal.limit, refusal.max), (LimitName::BudgetNever, heaviest));
        let pool = admission.draw_in("main").map_or(Amount::NONE, |demand| demand.pool);
        lease(&admission, pool, None);
        assert!(admission.admit(ask("a", heaviest)).now_or_never().is_some(), "{leased}");
    }
}

#[tokio::test(start_paused = true)]
async fn less_than_is_held_starts_nothing_new_and_what_comes_free_goes_to_the_store_at_once() {
    let admission = one_of_four(true);
    lease(&admission, Amount { bytes: 1_000, queries: 8 }, None);
    let mut running = fill(&admission, &ask("a", 300));
    assert_eq!(running.len(), 3);
    lease(&admission, Amount { bytes: 300, queries: 8 }, None);
    assert!(admission.admit(ask("a", 300)).now_or_never().is_none());
    // For the one that had to wait.
    admission.lease_wanted().now_or_never().unwrap();
    running.pop();
    admission.lease_wanted().now_or_never().expect("others wait for it");
    assert!(admission.admit(ask("a", 300)).now_or_never().is_none(), "300 are still too much beside 600");
    admission.lease_wanted().now_or_never().unwrap();
    running.truncate(1);
    lease(&admission, Amount { bytes: 300, queries: 8 }, None);
    admission.lease_wanted().now_or_never().unwrap();
    running.clear();
    assert!(admission.lease_wanted().now_or_never().is_none(), "nobody waits for it");
}

/// One of four proxies whose estimates nothing has proved yet: a tenth of 3,100 bytes is open, over all of them.
fn unproven() -> Arc<Admission> {
    let sharing = Sharing { replicas_max: std::num::NonZeroU64::new(4).unwrap(), leased: true };
    let mut policy = Policy { sharing, ..policy(3_200, 32, |_| {}) };
    policy.backends[0].unproven_percent = 10;
    Admission::new(policy)
}

#[tokio::test(start_paused = true)]
async fn one_proxys_proof_opens_the_pool_for_all() {
    let (one, two) = (unproven(), unproven());
    let pool = |admission: &Arc<Admission>| admission.draw_in("main").unwrap().pool.bytes;
    assert_eq!(pool(&one), 310 - 4 * FIXED, "the fixed parts are the open window");
    let mut large = tokio_test::task::spawn(one.admit(ask("a", 600)));
    assert!(large.poll().is_pending());
    assert_eq!(pool(&one), 600 - FIXED, "one that is larger than the window runs alone");
    lease(&one, Amount { bytes: 600 - FIXED, queries: 8 }, None);
    // While it is unproven, a larger one waits for some time for smaller ones.
    tokio::time::advance(Duration::from_secs(1)).await;
    one.snapshot();
    lease(&one, Amount { bytes: 600 - FIXED, queries: 8 }, None);
    let std::task::Poll::Ready(Ok(large)) = large.poll() else { panic!("it runs") };
    answered([large]);
    let proved = one.draw_in("main").unwrap();
    assert_eq!((proved.window.bytes, proved.pool.bytes), (1_200, 1_200 - 4 * FIXED));
    lease(&two, Amount::NONE, Some(proved.window));
    assert_eq!(pool(&two), 1_200 - 4 * FIXED, "without a query of its own");
    look(&one, &pressure(Signal::Memory, 1.0));
    lease(&two, Amount::NONE, Some(SharedWindow { cuts: 1, cause: 1, ..SharedWindow::default() }));
    assert_eq!(two.share("main"), Some((0.0, Some(Cut::Pressure(Signal::Memory)))), "and another's cut cuts");
}

#[tokio::test(start_paused = true)]
async fn the_places_of_the_database_are_leased_and_not_divided() {
    // Places that the database says it has, the slots that all proxies lease of, and the heavy queries of one that has them.
    for (places, pool, heavy) in [(None, 12, 11), (Some(100), 12, 11), (Some(20), 6, 7), (Some(4), 0, 1)] {
        let admission = one_of_four(true);
        look(&admission, &Distress { places, ..Distress::NONE });
        let leased = admission.draw_in("main").unwrap().pool;
        assert_eq!(leased.queries, pool, "{places:?}");
        lease(&admission, leased, None);
        assert_eq!(fill(&admission, &ask("a", 250)).len(), heavy, "{places:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_uses_its_own_part_of_the_window_proves_more() {
    let admission = unproven();
    let mut windows = Vec::new();
    for _ in 0..3 {
        answered(fill(&admission, &ask("a", 60)));
        windows.push(admission.draw_in("main").unwrap().window.bytes);
    }
    assert_eq!(windows, [370, 430, 490], "a fourth of the window is all that it can get");
    for _ in 0..9 {
        answered(fill(&admission, &ask("a", 60)));
    }
    assert_eq!(admission.draw_in("main").unwrap().window.bytes, 490, "half of it is not used");
}
