//! A budget that several proxies share: the fixed part, the leased part, and its end.

use super::{
    super::{Sharing, WaitReason},
    *,
};
use crate::base::share::{Amount, Demand};

/// One of four proxies before a budget of 3,200 bytes and 32 queries: 100 of the light lane's bytes and 4 of its slots, and
/// of the heavy lane 3,100 bytes and 16 slots, an eighth of which is fixed.
fn one_of_four(leased: bool) -> Arc<Admission> {
    let sharing = Sharing { replicas_max: std::num::NonZeroU64::new(4).unwrap(), leased };
    Admission::new(Policy { sharing, ..policy(3_200, 32, |_| {}) })
}

fn waits(admission: &Arc<Admission>) -> Vec<(WaitReason, u64)> {
    admission.snapshot().backends[0].reasons.clone()
}

const FIXED: u64 = 3_100 / 2 / 4;

#[tokio::test(start_paused = true)]
async fn the_fixed_part_needs_no_lease_and_more_waits_for_one() {
    let admission = one_of_four(true);
    let pools = admission.pools();
    assert_eq!((&*pools[0].0, pools[0].1), ("main", Amount { bytes: 3_100 - 4 * FIXED, queries: 8 }));
    let first = admission.admit(ask("a", FIXED)).now_or_never().unwrap().unwrap();
    let mut second = Box::pin(admission.admit(ask("a", 1_000)));
    assert!((&mut second).now_or_never().is_none());
    admission.lease_wanted().now_or_never().expect("the lease is wanted at once");
    assert_eq!(waits(&admission), [(WaitReason::Lease, 1)]);
    let (demand, load) = admission.draw_in("main").unwrap();
    assert_eq!(demand.held, Amount::NONE);
    assert_eq!(demand.wants, Amount { bytes: 1_000, queries: 0 });
    assert_eq!((demand.claim.1, load), (1_000 - FIXED, Amount { bytes: FIXED, queries: 1 }));
    let until = Instant::now() + Duration::from_secs(5);
    admission.set_leased("main", Amount { bytes: 1_000, queries: 0 }, until);
    let second = second.now_or_never().unwrap().unwrap();
    drop(first);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_the_clock_and_what_it_holds_runs_on() {
    let admission = one_of_four(true);
    let until = Instant::now() + Duration::from_secs(5);
    admission.set_leased("main", Amount { bytes: 1_000, queries: 8 }, until);
    let running = admission.admit(ask("a", FIXED + 400)).now_or_never().unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(admission.admit(ask("a", 50)).now_or_never().is_none(), "nobody has to say that it ended");
    let (demand, _) = admission.draw_in("main").unwrap();
    assert_eq!(demand.held, Amount { bytes: 400, queries: 0 });
    drop(running);
    assert!(admission.admit(ask("a", 50)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_drawn_in_starts_nothing_new() {
    let admission = one_of_four(true);
    let until = Instant::now() + Duration::from_secs(5);
    admission.set_leased("main", Amount { bytes: 1_000, queries: 8 }, until);
    let running = admission.admit(ask("a", FIXED + 400)).now_or_never().unwrap().unwrap();
    let held = Amount { bytes: 400, queries: 0 };
    assert_eq!(admission.draw_in("main").unwrap().0, Demand { held, wants: held, claim: (0, 0), weight: 1 });
    assert!(admission.admit(ask("a", 50)).now_or_never().is_none(), "the rest may be another's by now");
    drop(running);
    assert!(admission.admit(ask("a", FIXED + 400)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn light_queries_never_need_a_lease_and_all_proxies_together_keep_the_lane() {
    let admission = one_of_four(true);
    let heavy = fill(&admission, &ask("b", 300));
    // One in its lane, and one beside the heavy query.
    let light = fill(&admission, &ask("a", 25));
    assert_eq!((heavy.len(), light.len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_heaviest_query_is_the_pool_and_one_fixed_part_and_without_leases_an_equal_part() {
    for (leased, heaviest) in [(true, 3_100 - 3 * FIXED), (false, 3_100 / 4)] {
        let admission = one_of_four(leased);
        let refusal = admission.admit(ask("a", heaviest + 1)).now_or_never().unwrap().unwrap_err();
        assert_eq!((refusal.limit, refusal.max), (LimitName::BudgetNever, heaviest));
        let until = Instant::now() + Duration::from_secs(5);
        admission.set_leased("main", admission.pools().first().map_or(Amount::NONE, |pool| pool.1), until);
        assert!(admission.admit(ask("a", heaviest)).now_or_never().is_some(), "{leased}");
    }
}
