//! Ways to shut others out, each tried against a victim whose wait is measured.

use fastrand::Rng;
use tokio::task::JoinHandle;

use super::*;

const MIB: u64 = 1 << 20;
const WHOLE: u64 = 1024 * MIB;
/// The largest light query, and the largest of all.
const LIGHT: u64 = WHOLE / 128;
const MOST: u64 = WHOLE / 32 * 31;

/// The default configuration in small: a reserve for rules, a tenth of the budget open, and a backend that works on for
/// a client that left.
fn defaults(change: impl FnOnce(&mut Policy)) -> Arc<Admission> {
    let mut policy = policy(WHOLE, 20, |_| {});
    policy.backends[0].unproven_percent = 10;
    policy.backends[0].linger = Duration::from_secs(3);
    policy.classes = vec![ClassPolicy { name: "rules".into(), reserve_percent: 20 }];
    change(&mut policy);
    Admission::new(policy)
}

/// The outcome of a query that runs: for how long, and how it ends.
#[derive(Clone, Copy)]
struct Run(Duration, End);

/// Has queries asked one after the other on some connections, for ever.
fn flood(
    admission: &Arc<Admission>,
    connections: usize,
    seed: u64,
    next: impl Fn(&mut Rng) -> (AdmissionRequest, Run) + Send + Sync + 'static,
) -> Vec<JoinHandle<()>> {
    let next = Arc::new(next);
    let one = |connection: usize| {
        let (admission, next) = (Arc::clone(admission), Arc::clone(&next));
        let mut rng = Rng::with_seed(seed * 1_000 + connection as u64);
        tokio::spawn(async move {
            loop {
                let (request, Run(lasts, end)) = next(&mut rng);
                let Ok(admitted) = admission.admit(request).await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                tokio::time::sleep(lasts).await;
                admitted.permit.settle(Actual { end, ..Actual::default() });
            }
        })
    };
    (0..connections).map(one).collect()
}

/// Asks again and again, each query with a second of work: the longest wait, or `None` where one did not run.
async fn longest(admission: &Arc<Admission>, request: impl Fn() -> AdmissionRequest) -> Option<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let admitted = admission.admit(request()).await.ok()?;
        longest = longest.max(admitted.waited);
        tokio::time::sleep(Duration::from_millis(10)).await;
        answered([admitted]);
    }
    Some(longest)
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_floods_the_light_lane_and_leaves_keeps_nobody_waiting() {
    for seed in 0..4 {
        let admission = defaults(|_| {});
        // Heavy ones wait, so that the light lane is all that there is.
        flood(&admission, 4, seed, |rng| {
            (ask("heavy", WHOLE / 2), Run(millis(rng, 500..3_000), End::Answered))
        });
        flood(&admission, 40, seed, |rng| (ask("flood", LIGHT), Run(millis(rng, 1..50), End::Abandoned)));
        drop(admission.admit(ask("other", MIB)).await);
        let waited = longest(&admission, || ask("other", MIB)).await;
        assert_eq!(waited, Some(Duration::ZERO), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn heavy_queries_that_wait_take_no_place_from_light_ones() {
    let admission = defaults(|policy| policy.waiting_max = 30);
    flood(&admission, 60, 1, |rng| {
        let tenant = format!("t{}", rng.u8(0..20));
        (ask(&tenant, WHOLE / 3), Run(millis(rng, 500..3_000), End::Answered))
    });
    flood(&admission, 20, 1, |rng| {
        (ask(&format!("l{}", rng.u8(0..9)), LIGHT), Run(millis(rng, 1..50), End::Answered))
    });
    let waited = longest(&admission, || ask("other", LIGHT)).await;
    assert!(waited.is_some_and(|waited| waited < Duration::from_millis(500)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_class_with_a_reserve_of_0_is_a_class_like_any_other() {
    for class in [None, Some("rules")] {
        let admission = defaults(|policy| policy.classes[0].reserve_percent = 0);
        flood(&admission, 30, 2, |rng| (ask("a", WHOLE / 12), Run(millis(rng, 100..900), End::Answered)));
        let request = || AdmissionRequest { class: class.map(Arc::from), ..ask("b", WHOLE / 12) };
        let waited = longest(&admission, request).await;
        assert!(waited.is_some_and(|waited| waited < Duration::from_secs(2)), "{class:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_in_which_nothing_is_light_runs_all_that_fits() {
    for memory in [1, 2, 31, 32, 127, 128, 200] {
        let admission = defaults(|policy| policy.backends = vec![budget("main", memory, 20)]);
        let most = memory - memory / 32;
        flood(&admission, 10, memory, move |rng| {
            (ask("a", rng.u64(1..=most)), Run(millis(rng, 1..100), End::Answered))
        });
        for bytes in [1, most.div_ceil(2), most] {
            let waited = longest(&admission, || ask("b", bytes)).await;
            assert!(waited.is_some_and(|waited| waited < Duration::from_secs(6)), "{bytes}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn estimates_that_equal_the_window_fit_it() {
    let admission = defaults(|_| {});
    let window = admission.snapshot().backends[0].window.unwrap();
    let one = admission.admit(ask("a", window)).now_or_never().expect("it is no more than the window");
    assert!(admission.admit(ask("b", LIGHT + 1)).now_or_never().is_none());
    answered(one);
    let admission = defaults(|policy| policy.classes.clear());
    let half = admission.admit(ask("a", window / 2)).now_or_never().unwrap();
    let rest = admission.admit(ask("b", window - window / 2)).now_or_never();
    answered([half.unwrap(), rest.expect("they equal it together").unwrap()]);
    assert_eq!(admission.snapshot().backends[0].window, Some(2 * window));
}

#[tokio::test(start_paused = true)]
async fn a_reload_during_a_cut_opens_nothing_and_shuts_nobody_out() {
    let with = |memory: Limit| {
        let mut policy = policy(WHOLE, 20, |_| {});
        policy.backends[0].memory = memory;
        policy.backends[0].unproven_percent = 10;
        policy
    };
    let admission = Admission::new(with(Limit::enforce(WHOLE)));
    for round in 0..6 {
        let running = admission.admit(ask("a", WHOLE / 2)).await.unwrap();
        look(&admission, &Distress { underestimate: 20.0, ..Distress::NONE });
        let cut = admission.snapshot().backends[0].window.unwrap();
        assert!(cut <= MOST / 10, "{round}: {cut}");
        // Wider, then unlimited, then as it was.
        admission.reload(with(Limit::enforce(4 * WHOLE)));
        let wider = admission.snapshot().backends[0].window.unwrap();
        assert!(wider.abs_diff(4 * cut) <= 4, "{round}: {wider} is another share than {cut}");
        if round % 2 == 1 {
            admission.reload(with(Limit::UNLIMITED));
        }
        admission.reload(with(Limit::enforce(WHOLE)));
        let window = admission.snapshot().backends[0].window.unwrap();
        assert!(window <= MOST / 10, "{round}: unproven load gets {window}");
        answered([running]);
        let waited = longest(&admission, || ask("b", MOST)).await;
        assert!(waited.is_some_and(|waited| waited <= Duration::from_millis(100)), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn endless_rules_within_their_reserve_of_a_window_cut_to_a_twentieth_let_others_run() {
    let admission = defaults(|policy| policy.backends[0].unproven_percent = 100);
    let running = fill(&admission, &ask("a", WHOLE / 10));
    look(&admission, &Distress { underestimate: 20.0, ..Distress::NONE });
    answered(running);
    // Each is nearly all of the reserve, a fifth of a twentieth of the budget.
    flood(&admission, 8, 3, |rng| {
        (of_class("rules", ask("rules", WHOLE / 110)), Run(millis(rng, 50..400), End::Failed))
    });
    for part in [2, 10, 60] {
        let waited = longest(&admission, || ask("other", WHOLE / part)).await;
        assert!(waited.is_some_and(|waited| waited < Duration::from_secs(8)), "a {part}th: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_backend_holds_up_nobody_at_another() {
    let admission = defaults(|policy| {
        policy.backends.push(budget("frozen", WHOLE, 20));
        Arc::make_mut(&mut policy.default).in_flight.queries = Limit::enforce(30);
    });
    let frozen = |name: &str, bytes| AdmissionRequest { backend: "frozen".into(), ..ask(name, bytes) };
    let never = Duration::from_secs(3_600);
    for bytes in [MIB, WHOLE / 40] {
        flood(&admission, 40, 4, move |_| (frozen("a", bytes), Run(never, End::Failed)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (name, bytes) in [("a", MIB), ("b", MIB), ("b", WHOLE / 2), ("a", WHOLE / 2)] {
        let waited = longest(&admission, || ask(name, bytes)).await;
        assert!(waited.is_some_and(|waited| waited <= Duration::from_millis(100)), "{name}: {waited:?}");
    }
    admission.set_alive("frozen", false);
    let shown = admission.snapshot();
    assert_eq!(shown.backends[1].waiting, 0, "those that waited know it at once");
}

/// Queries whose client reads nothing until it is cut off: after half a minute, or ten seconds if that is not booked.
async fn reads_nothing(admission: Arc<Admission>, bytes: u64, begins: Duration) {
    tokio::time::sleep(begins).await;
    loop {
        let admitted = admission.admit(ask("slow", bytes)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(admitted) = admitted else { continue };
        let booked = admitted.permit.handle().stalled();
        tokio::time::sleep(Duration::from_secs(if booked { 30 } else { 10 })).await;
        admitted.permit.settle(Actual { end: End::Failed, ..Actual::default() });
    }
}

#[tokio::test(start_paused = true)]
async fn slow_readers_in_every_lane_shut_out_neither_the_largest_query_nor_light_ones() {
    let admission = defaults(|policy| {
        policy.backends[0].unproven_percent = 100;
        Arc::make_mut(&mut policy.default).queue.wait = Duration::from_secs(120);
    });
    drop(admission.admit(ask("other", MIB)).await);
    for bytes in [MIB, LIGHT, WHOLE / 20] {
        for number in 0..10 {
            tokio::spawn(reads_nothing(Arc::clone(&admission), bytes, Duration::from_secs(3 * number)));
        }
    }
    tokio::time::sleep(Duration::from_secs(35)).await;
    let light = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { longest(&admission, || ask("other", MIB)).await }
    });
    let most = admission.admit(ask("other", MOST)).await;
    let waited = most.map(|admitted| admitted.waited);
    assert!(waited.as_ref().is_ok_and(|waited| *waited < Duration::from_secs(100)), "{waited:?}");
    let waited = light.await.unwrap();
    assert!(waited.is_some_and(|waited| waited < Duration::from_secs(1)), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn while_clients_leave_before_anything_is_proved_others_run_within_their_deadline() {
    for seed in 0..4 {
        let admission = defaults(|policy| {
            policy.backends[0].linger = Duration::from_secs(1);
            Arc::make_mut(&mut policy.default).queue.wait = Duration::from_secs(20);
        });
        flood(&admission, 20, seed, |rng| {
            (ask("leaves", WHOLE / 25 - rng.u64(0..MIB)), Run(millis(rng, 100..1_000), End::Abandoned))
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        // A large one lets smaller ones go first for half of the time that it may wait, which its client bounds here.
        for part in [8, 10, 20] {
            let deadline = || Instant::now() + Duration::from_secs(9);
            let request = || AdmissionRequest { deadline: deadline(), ..ask("stays", WHOLE / part) };
            let waited = longest(&admission, request).await;
            assert!(waited.is_some_and(|waited| waited < Duration::from_secs(9)), "a {part}th: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_light_query_in_the_heavy_lane_keeps_no_heavy_one_out() {
    let admission = defaults(|_| {});
    // More light ones than their lane has slots, each of which takes a minute.
    let mut light = fill(&admission, &ask("a", MIB));
    answered(light.split_off(15));
    assert_eq!(admission.snapshot().backends[0].lanes[1].queries, 7);
    let one = admission.admit(ask("b", WHOLE / 2)).now_or_never();
    assert!(one.is_none(), "nothing is proved: it lets smaller ones go first for a moment");
    let one = admission.admit(ask("b", WHOLE / 2)).await.unwrap();
    assert!(one.waited <= Duration::from_millis(100), "{:?}", one.waited);
    answered(light);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ends_what_is_over_and_forgets_nothing() {
    let mut rng = Rng::with_seed(6);
    for jump in [1, 60, 3_600, 1_000_000] {
        let admission = defaults(|_| {});
        let running = fill(&admission, &ask("a", WHOLE / 30));
        let mut waiting: Vec<_> =
            (0..10).map(|_| Box::pin(admission.admit(ask("b", rng.u64(WHOLE / 50..WHOLE / 2))))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        look(&admission, &pressure(Signal::Memory, 0.9));
        drop(running);
        tokio::time::advance(Duration::from_secs(jump)).await;
        look(&admission, &pressure(Signal::Memory, 0.9));
        for one in waiting {
            // Some waited for too long; those that run end at once.
            if let Ok(admitted) = one.await {
                answered([admitted]);
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let left = admission.snapshot();
        assert_eq!(
            (left.backends[0].memory, left.backends[0].waiting, left.tenants.len()),
            (0, 0, 0),
            "{jump}"
        );
        let waited = longest(&admission, || ask("c", MOST)).await;
        assert!(waited.is_some_and(|waited| waited <= Duration::from_millis(100)), "{jump}: {waited:?}");
    }
}
