//! The cases in which queries that fit were refused by an idle backend, each as it was seen.

use super::*;

const MIB: u64 = 1 << 20;

/// The default configuration in small: a reserve for rules, and a tenth of the budget open.
fn admission(memory: u64) -> Arc<Admission> {
    let mut policy = policy(memory, 20, |_| {});
    policy.backends[0].unproven_percent = 10;
    policy.backends[0].linger = Duration::from_secs(3);
    policy.classes = vec![ClassPolicy { name: "rules".into(), reserve_percent: 20 }];
    Admission::new(policy)
}

/// Runs one query to its end; how long it waited.
async fn runs(admission: &Arc<Admission>, request: AdmissionRequest) -> Duration {
    let admitted = admission.admit(request).await.unwrap();
    let waited = admitted.waited;
    answered([admitted]);
    waited
}

/// Every size that fits, in every class, one after the other.
async fn everything_runs(admission: &Arc<Admission>, memory: u64) {
    for class in [None, Some(Arc::from("rules")), Some(Arc::from("unknown"))] {
        for part in [1000, 128, 50, 10, 4, 2] {
            let request = AdmissionRequest { class: class.clone(), ..ask("a", memory / part) };
            assert!(runs(admission, request).await <= Duration::from_secs(1), "{class:?}: a {part}th");
        }
        let most = AdmissionRequest { class: class.clone(), ..ask("a", memory / 32 * 31) };
        assert!(runs(admission, most).await <= Duration::from_secs(1), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_was_seen_before_a_query_that_fits_runs_at_an_idle_backend() {
    let silent = Distress { silent: true, ceiling: Some(0.0), ..Distress::NONE };
    let seen = [
        // (a) Pressure just below the limit; (b) another client's query; (d) an error of 1.4; a process that stays at its limit.
        pressure(Signal::Saturation, 0.97),
        Distress { underestimate: 15.5, ..Distress::NONE },
        Distress { underestimate: 1.4, ..Distress::NONE },
        pressure(Signal::Memory, 1.0),
        silent,
    ];
    for memory in [4, 64, 128, 512, 4096] {
        for distress in seen {
            let admission = admission(memory * MIB);
            let burst = fill(&admission, &ask("b", memory * MIB / 20));
            for _ in 0..60 {
                look(&admission, &distress);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            answered(burst);
            // It is observed on with nothing in flight, and with the query tried now.
            for _ in 0..10 {
                look(&admission, &distress);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            everything_runs(&admission, memory * MIB).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_distress_that_never_ends_leaves_one_heavy_query_after_another() {
    let admission = admission(512 * MIB);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let running = admission.admit(ask("a", 256 * MIB)).await.unwrap();
        waits.push(running.waited);
        look(&admission, &Distress { underestimate: 15.5, ..pressure(Signal::Memory, 1.0) });
        answered([running]);
    }
    // As long as no estimate is believed, each lets smaller ones of its burst go first.
    assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(100)), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_large_query_beside_a_small_one_says_that_the_window_is_not_open_yet() {
    // (e) 256 MiB of 512 beside 27 MiB: every display showed room.
    let admission = admission(512 * MIB);
    let small = admission.admit(ask("b", 27 * MIB)).await.unwrap();
    let start = Instant::now();
    let request = AdmissionRequest { tag: 7, ..ask("a", 256 * MIB) };
    let mut waits = Box::pin(admission.admit(request));
    assert!((&mut waits).now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let shown = admission.snapshot().backends[0].clone();
    assert_eq!(
        (shown.reasons, shown.waiters),
        (vec![(WaitReason::Window, 1)], vec![(7, WaitReason::Window)])
    );
    assert_eq!(shown.window, Some(512 * MIB / 32 * 31 / 10));
    let refusal = waits.await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(10), "queue.wait, and no second more");
    assert!(refusal.message().contains("the window for heavy queries, which grows"), "{}", refusal.message());
    answered([small]);
    assert_eq!(runs(&admission, ask("a", 256 * MIB)).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reload_between_identifying_and_admitting_charges_the_right_accounts() {
    let with = |names: [&str; 2], classes: [&str; 2]| Policy {
        backends: names.map(|name| budget(name, 100 * MIB, 20)).into(),
        classes: classes.map(|name| ClassPolicy { name: name.into(), reserve_percent: 10 }).into(),
        ..Policy::default()
    };
    let admission = Admission::new(with(["a", "b"], ["x", "y"]));
    let request = AdmissionRequest { backend: "b".into(), ..of_class("y", ask("t", 50 * MIB)) };
    // Another order, and in the end without the first of each.
    admission.reload(with(["b", "a"], ["y", "x"]));
    let running = admission.admit(request.clone()).await.unwrap();
    let held = |name: &str| {
        let backends = admission.snapshot().backends;
        let backend = backends.iter().find(|backend| &*backend.name == name).cloned().unwrap();
        let reserve = backend.reserves.iter().find(|(class, _)| &**class == "y").map(|(_, free)| *free);
        (backend.memory, reserve)
    };
    let reserve = 100 * MIB / 32 * 31 / 10;
    assert_eq!((held("b").0, held("a")), (50 * MIB, (0, Some(reserve))));
    assert_eq!(held("b").1, Some(0), "it draws on its own class");
    admission.reload(Policy { backends: vec![budget("b", 100 * MIB, 20)], ..with(["b", "c"], ["y", "z"]) });
    drop(admission.admit(AdmissionRequest { deadline: Instant::now(), ..request }).await.unwrap_err());
    drop(running);
    assert_eq!(held("b").0, 0);
    let gone = AdmissionRequest { backend: "a".into(), ..ask("t", 1) };
    assert_eq!(admission.admit(gone).await.unwrap_err().limit, LimitName::BackendSick);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_own_tenant_says_so_and_holds_up_nobody() {
    let mut policy = policy(1024 * MIB, 20, |tenant| {
        tenant.in_flight.queries = Limit::enforce(2);
        tenant.queue.wait = Duration::from_secs(3);
    });
    policy.default =
        Arc::new(TenantPolicy { in_flight: policy.default.in_flight, ..(*policy.default).clone() });
    let admission = Admission::new(policy);
    let _mine = fill(&admission, &ask("a", 100 * MIB));
    let waits = admission.admit(ask("a", 100 * MIB));
    let (refusal, other) = tokio::join!(waits, admission.admit(ask("b", 100 * MIB)));
    let refusal = refusal.unwrap_err();
    assert_eq!(
        (refusal.waiting_for.map(|waited| waited.reason), refusal.scope.clone()),
        (Some(WaitReason::TenantQueries), Scope::Tenant(tenant("a")))
    );
    assert_eq!(other.unwrap().waited, Duration::ZERO);
}
