//! The light lane, reserves, and pressure: the light lane stays open, and heavy queries give way first.

use super::*;
use crate::base::ErrorKind;

/// Bytes of the whole budget.
const WHOLE: u64 = 1_000_000;
/// The most that a light query needs.
const LIGHT: u64 = WHOLE / 128;
const HEAVY: u64 = WHOLE / 10;

/// Classes `rules` and `boards` with these reserves.
fn reserving(reserves: [u8; 2], slots: u64) -> Arc<Admission> {
    let mut policy = policy(WHOLE, slots, |_| {});
    let names = ["rules", "boards"];
    policy.classes = (names.iter().zip(reserves))
        .map(|(name, reserve_percent)| ClassPolicy { name: (*name).into(), reserve_percent })
        .collect();
    Admission::new(policy)
}

#[tokio::test(start_paused = true)]
async fn reserves_are_shares_of_the_window_whatever_it_is() {
    // The size to which the window is cut; queries of a hundredth of the budget that no class and `rules` get alone.
    for (cut, unreserved, rules) in [(1.0, 67, 87), (2.0, 33, 43), (4.0, 16, 21), (10.0, 6, 8)] {
        let admission = reserving([20, 10], 1_000);
        let first = fill(&admission, &ask("a", WHOLE / 100));
        look(&admission, &Distress { underestimate: cut, ..Distress::NONE });
        drop(first);
        let others = fill(&admission, &ask("a", WHOLE / 100));
        assert_eq!(others.len(), unreserved, "cut by {cut}");
        drop(others);
        let mine = fill(&admission, &of_class("rules", ask("a", WHOLE / 100)));
        assert_eq!(mine.len(), rules, "cut by {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reserve_is_free_for_its_class_when_others_took_all_they_could() {
    let admission = reserving([20, 0], 1_000);
    let _others = fill(&admission, &ask("a", WHOLE / 100));
    let mut next = Box::pin(admission.admit(ask("b", WHOLE / 100)));
    assert!((&mut next).now_or_never().is_none());
    assert_eq!(admission.snapshot().backends[0].reasons, [(WaitReason::Reserve, 1)]);
    // Queries of the class pass the one that waits, as far as their reserve goes.
    let rules = fill(&admission, &of_class("rules", ask("c", WHOLE / 100)));
    assert_eq!(rules.len(), 19);
    // But not for ever: two seconds later the one that is next is next.
    drop(rules);
    let _rule = admission.admit(of_class("rules", ask("c", WHOLE / 100))).now_or_never().unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(admission.admit(of_class("rules", ask("c", WHOLE / 100))).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reserve_takes_the_last_slot_from_nobody() {
    for reserves in [[50, 50], [100, 0]] {
        let admission = reserving(reserves, 2);
        assert!(admission.admit(ask("a", HEAVY)).now_or_never().is_some());
        assert!(admission.admit(ask("a", LIGHT)).now_or_never().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn light_queries_run_under_any_pressure() {
    let admission = reserving([0, 0], 20);
    drop(admission.admit(ask("b", LIGHT)).await);
    let running = fill(&admission, &ask("a", HEAVY));
    // 7 of the 10 heavy slots: one tenant's part.
    assert_eq!(running.len(), 7);
    look(&admission, &pressure(Signal::Memory, 1.0));
    assert_eq!(admission.snapshot().backends[0].window, Some(0));
    // The light lane holds four of the largest, three of one tenant's, and seven of its small ones.
    let largest = fill(&admission, &ask("b", LIGHT));
    assert_eq!((largest.len(), fill(&admission, &ask("c", LIGHT)).len()), (3, 1));
    drop(largest);
    assert_eq!(fill(&admission, &ask("b", LIGHT / 10)).len(), 7);
    // Heavy ones wait and are not refused; their snapshots name the reason.
    let request = ask("b", HEAVY);
    let refusal = admission.admit(request.clone()).await.unwrap_err();
    assert_eq!((refusal.kind, refusal.limit), (ErrorKind::QueueTimeout, LimitName::QueueTimeout));
    assert_eq!(
        refusal.waiting_for.map(|waited| waited.reason),
        Some(WaitReason::Cut(Cut::Pressure(Signal::Memory)))
    );
    assert_eq!(refusal.scope, Scope::Backend("main".into()));
    assert!(refusal.message().contains("cut by pressure on its memory"), "{}", refusal.message());
    let behind = AdmissionRequest { deadline: Instant::now() + Duration::from_secs(1), ..request.clone() };
    let (_, refusal) = tokio::join!(admission.admit(request.clone()), admission.admit(behind));
    let message = refusal.unwrap_err().message();
    let why = "its turn among heavy queries, of which the first waits for the window for heavy queries, cut by pressure";
    assert!(message.contains(why), "{message}");
    drop(running);
    assert!(admission.admit(request).now_or_never().is_some(), "and one runs as soon as nothing else does");
}

#[tokio::test(start_paused = true)]
async fn one_tenant_does_not_fill_the_light_lane_and_may_use_heavy_slots_that_nobody_waits_for() {
    let admission = reserving([0, 0], 20);
    let small = LIGHT / 100;
    let mine = fill(&admission, &ask("a", small));
    assert_eq!(mine.len(), 20, "nobody else asks");
    drop(mine);
    drop(admission.admit(ask("b", small)).await);
    let mine = fill(&admission, &ask("a", small));
    assert_eq!(mine.len(), 14, "three quarters of each lane's ten");
    let theirs = fill(&admission, &ask("b", small));
    assert_eq!(theirs.len(), 6);
    drop(mine);
    // Slots of the heavy lane are not lent while a heavy query waits for one.
    let heavy = fill(&admission, &ask("c", HEAVY / 2));
    let mut waits = Box::pin(admission.admit(ask("c", HEAVY / 2)));
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(heavy.len(), 7);
    let light = fill(&admission, &ask("d", small));
    drop((waits, heavy, light, theirs));
}

#[tokio::test(start_paused = true)]
async fn nothing_runs_or_waits_at_a_dead_backend_and_everything_when_it_is_back() {
    let admission = reserving([0, 0], 2);
    let _running = admission.admit(ask("a", HEAVY)).await.unwrap();
    let mut waiting = Box::pin(admission.admit(ask("b", HEAVY)));
    assert!((&mut waiting).now_or_never().is_none());
    admission.set_alive("main", false);
    assert_eq!(waiting.await.unwrap_err().kind, ErrorKind::BackendSick);
    for bytes in [1, HEAVY] {
        let refusal = admission.admit(ask("b", bytes)).await.unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.retry_after),
            (ErrorKind::BackendSick, Some(Duration::from_secs(1)))
        );
    }
    assert_eq!(admission.share("main"), Some((0.0, None)));
    admission.set_alive("main", true);
    assert!(admission.admit(ask("b", LIGHT)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn heavy_queries_leave_light_ones_half_of_the_places_of_the_database_itself() {
    // Places that the database says it has, and heavy queries that run there at a time.
    for (places, heavy) in
        [(None, 10), (Some(100), 10), (Some(20), 10), (Some(5), 3), (Some(4), 2), (Some(1), 1)]
    {
        let admission = reserving([0, 0], 20);
        look(&admission, &Distress { places, ..Distress::NONE });
        // One look without them says nothing new.
        look(&admission, &Distress::NONE);
        let running = fill(&admission, &ask("a", HEAVY / 2));
        assert_eq!(running.len(), heavy, "{places:?}");
        let shown = admission.snapshot().backends[0].clone();
        assert_eq!(
            (shown.lanes[1].slots, shown.queries_capacity),
            (Some(heavy as u64), Some(10 + heavy as u64))
        );
        drop(running);
        // Light ones are done soon wherever they wait.
        assert_eq!(fill(&admission, &ask("a", LIGHT / 10)).len(), 20, "{places:?}");
    }
}
