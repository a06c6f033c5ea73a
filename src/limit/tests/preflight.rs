//! The verdicts on single queries.

use super::*;
use crate::base::ErrorKind;

fn now_or_refused(admission: &Arc<Admission>, ask: AdmissionRequest) -> Option<Result<Admitted, Refusal>> {
    admission.admit(ask).now_or_never()
}

#[tokio::test(start_paused = true)]
async fn a_permit_holds_its_share_until_it_is_dropped() {
    let admission = Admission::new(policy(100, 10, |_| {}));
    let first = admission.admit(ask("a", 60)).await.unwrap();
    assert_eq!(first.waited, Duration::ZERO);
    assert!(now_or_refused(&admission, ask("b", 60)).is_none());
    let second = now_or_refused(&admission, ask("b", 37)).unwrap().unwrap();
    let held = admission.snapshot();
    assert_eq!((held.backends[0].memory, held.backends[0].queries, held.backends[0].waiting), (97, 2, 0));
    first.permit.settle(Actual::default());
    drop(second);
    let left = admission.snapshot();
    assert_eq!((left.backends[0].memory, left.backends[0].queries), (0, 0));
    assert_eq!(left.tenants, []);
}

#[tokio::test(start_paused = true)]
async fn who_waits_runs_when_there_is_room_and_not_before() {
    let admission = Admission::new(policy(100, 10, |_| {}));
    let first = admission.admit(ask("a", 60)).await.unwrap();
    let waiting = tokio::spawn({
        let admission = Arc::clone(&admission);
        async move { admission.admit(ask("b", 60)).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    drop(first);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(second.waited, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_time_or_the_clients() {
    let admission = Admission::new(policy(100, 10, |_| {}));
    let _first = admission.admit(ask("a", 60)).await.unwrap();
    for (patience, want) in [(3600, 10), (4, 4)] {
        let start = Instant::now();
        let hasty = AdmissionRequest { deadline: start + Duration::from_secs(patience), ..ask("b", 60) };
        let refusal = admission.admit(hasty).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(want));
        assert_eq!((refusal.kind, refusal.limit), (ErrorKind::QueueTimeout, LimitName::QueueTimeout));
        assert_eq!(refusal.scope, Scope::Backend("main".into()));
        assert!(refusal.retry_after.is_some());
        assert_eq!(admission.snapshot().backends[0].waiting, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let admission = Admission::new(policy(100, 1, |tenant| tenant.queue.length = 2));
    let _running = admission.admit(ask("a", 1)).await.unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(admission.admit(ask("a", 1)))).collect();
    for wait in &mut waiting {
        assert!(wait.now_or_never().is_none());
    }
    let refusal = now_or_refused(&admission, ask("a", 1)).unwrap().unwrap_err();
    assert_eq!((refusal.kind.status(), refusal.limit), (503, LimitName::QueueFull));
    drop(waiting);
    assert_eq!(admission.snapshot().backends[0].waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn one_actor_does_not_fill_the_queue_of_its_tenant() {
    let admission = Admission::new(policy(100, 1, |tenant| tenant.queue.length = 4));
    let of = |actor: &str| AdmissionRequest { actor: actor.into(), ..ask("a", 1) };
    let _running = admission.admit(of("greedy")).await.unwrap();
    let mut greedy: Vec<_> = (0..4).map(|_| Box::pin(admission.admit(of("greedy")))).collect();
    for wait in &mut greedy {
        assert!(wait.now_or_never().is_none());
    }
    let mut modest: Vec<_> = (0..2).map(|_| Box::pin(admission.admit(of("modest")))).collect();
    for wait in &mut modest {
        assert!(wait.now_or_never().is_none(), "waits in a place of the other's");
    }
    for displaced in greedy.drain(2..) {
        assert_eq!(displaced.now_or_never().unwrap().unwrap_err().limit, LimitName::QueueFull);
    }
    for actor in ["greedy", "modest"] {
        let refusal = now_or_refused(&admission, of(actor)).unwrap().unwrap_err();
        assert_eq!(refusal.limit, LimitName::QueueFull, "{actor} has its half");
    }
    assert_eq!(admission.snapshot().tenants[0].waiting, 4);
    drop((greedy, modest));
    assert_eq!(admission.snapshot().backends[0].waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_to_wait_spends_no_rate() {
    let admission = Admission::new(policy(100, 1, |tenant| {
        tenant.queue.length = 1;
        let count = std::num::NonZeroU64::new(3).unwrap();
        let rate = Some(Rate { count, per: Duration::from_secs(3600) });
        tenant.rate.queries = RateLimit { rate, mode: Mode::Enforce };
    }));
    let running = admission.admit(ask("a", 1)).await.unwrap();
    let mut waiting = Box::pin(admission.admit(ask("a", 1)));
    assert!((&mut waiting).now_or_never().is_none());
    for _ in 0..10 {
        let refusal = now_or_refused(&admission, ask("a", 1)).unwrap().unwrap_err();
        assert_eq!(refusal.limit, LimitName::QueueFull);
    }
    drop(running);
    drop(waiting.await.unwrap());
    assert!(now_or_refused(&admission, ask("a", 1)).unwrap().is_ok(), "the third of three");
}

#[tokio::test(start_paused = true)]
async fn names_of_old_configurations_do_not_pile_up() {
    let with_names = |round: usize| {
        let mut policy = policy(100, 10, |_| {});
        policy.tenants_max = 8;
        let own = Arc::clone(&policy.default);
        policy.tenants = (0..10).map(|n| (tenant(&format!("named-{round}-{n}")), Arc::clone(&own))).collect();
        policy
    };
    let admission = Admission::new(with_names(0));
    for round in 0..50 {
        admission.reload(with_names(round));
        tokio::time::advance(Duration::from_secs(60)).await;
        for n in 0..10 {
            drop(admission.admit(ask(&format!("named-{round}-{n}"), 1)).await.unwrap());
            drop(admission.admit(ask(&format!("wire-{round}-{n}"), 1)).await.unwrap());
        }
    }
    let known = admission.snapshot().tenants_known;
    assert!(known <= 8 + 2 * 10, "{known}");
}

#[tokio::test(start_paused = true)]
async fn what_can_never_fit_is_refused_at_once() {
    let admission = Admission::new(policy(100, 10, |tenant| tenant.in_flight.memory = Limit::enforce(50)));
    for (memory, want) in [(51, Scope::Tenant(tenant("a"))), (u64::MAX, Scope::Tenant(tenant("a")))] {
        let refusal = admission.admit(ask("a", memory)).await.unwrap_err();
        assert_eq!((refusal.limit, refusal.scope), (LimitName::BudgetNever, want));
        assert_eq!((refusal.kind.status(), refusal.retry_after), (422, None));
    }
}

#[tokio::test(start_paused = true)]
async fn rates_say_when_to_come_back_or_never() {
    let rate = |count, seconds| RateLimit {
        rate: Some(Rate {
            count: std::num::NonZeroU64::new(count).unwrap(),
            per: Duration::from_secs(seconds),
        }),
        mode: Mode::Enforce,
    };
    let admission = Admission::new(policy(100, 10, |tenant| {
        tenant.rate = Rates { queries: rate(2, 1), samples: rate(50_000_000_000, 60) };
    }));
    let of = |samples| {
        let cost = QueryCost { samples: Estimate::exact(samples), ..QueryCost::NOTHING };
        AdmissionRequest { cost, ..ask("a", 1) }
    };
    let never = admission.admit(of(50_000_000_001)).await.unwrap_err();
    assert_eq!((never.limit, never.kind), (LimitName::RateSamples, ErrorKind::LimitExceeded));
    admission.admit(of(50_000_000_000)).await.unwrap();
    let not_yet = admission.admit(of(0)).await.unwrap_err();
    assert_eq!((not_yet.limit, not_yet.kind), (LimitName::RateQueries, ErrorKind::RateLimited));
    assert_eq!(not_yet.retry_after, Some(Duration::from_millis(500)));
    tokio::time::advance(Duration::from_secs(1)).await;
    let not_yet = admission.admit(of(25_000_000_000)).await.unwrap_err();
    assert_eq!((not_yet.limit, not_yet.kind), (LimitName::RateSamples, ErrorKind::RateLimited));
    let wait = not_yet.retry_after.unwrap();
    assert!(wait > Duration::from_secs(28) && wait < Duration::from_secs(30), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn shadow_reports_and_lets_run() {
    let mut policy = policy(100, 1, |tenant| {
        tenant.in_flight.queries = Limit::enforce(1).with_mode(Mode::Shadow);
        tenant.per_query.memory = Limit::enforce(5).with_mode(Mode::Shadow);
    });
    let main = &mut policy.backends[0];
    (main.memory.mode, main.queries.mode) = (Mode::Shadow, Mode::Shadow);
    let admission = Admission::new(policy);
    let first = admission.admit(ask("a", 6)).await.unwrap();
    let second = admission.admit(ask("a", 101)).await.unwrap();
    let names = |admitted: &Admitted| admitted.shadowed.iter().map(|hit| hit.limit).collect::<Vec<_>>();
    assert_eq!(names(&first), [LimitName::MaxMemory]);
    assert_eq!(
        names(&second),
        [
            LimitName::MaxMemory,
            LimitName::BudgetNever,
            LimitName::InFlightQueries,
            LimitName::InFlightQueries,
            LimitName::InFlightMemory
        ]
    );
}

fn rate_of(count: u64) -> RateLimit {
    let count = std::num::NonZeroU64::new(count).unwrap();
    RateLimit { rate: Some(Rate { count, per: Duration::from_secs(3600) }), mode: Mode::Enforce }
}

#[tokio::test(start_paused = true)]
async fn of_several_payers_all_are_counted_or_none() {
    let mut policy = policy(1_000, 100, |_| {});
    for (name, count) in [("a", 3), ("b", 1)] {
        let mut one = TenantPolicy::default();
        one.rate.queries = rate_of(count);
        policy.tenants.insert(tenant(name), Arc::new(one));
    }
    let admission = Admission::new(policy);
    let (both, a) = ([tenant("a"), tenant("b")], [tenant("a")]);
    assert!(admission.check_rate(&both).is_ok());
    for _ in 0..5 {
        assert_eq!(admission.check_rate(&both).unwrap_err().scope, Scope::Tenant(tenant("b")));
        let asked = AdmissionRequest { payers: both.to_vec().into(), ..ask("a", 1) };
        assert_eq!(now_or_refused(&admission, asked).unwrap().unwrap_err().scope, Scope::Tenant(tenant("b")));
    }
    let left = (0..5).filter(|_| admission.check_rate(&a).is_ok()).count();
    assert_eq!(left, 2, "the first payer lost nothing to refusals of the second");
}

#[tokio::test(start_paused = true)]
async fn a_count_is_given_back_as_often_as_the_rate_allows() {
    let admission = Admission::new(policy(1_000, 100, |tenant| tenant.rate.queries = rate_of(10)));
    let a = [tenant("a")];
    let mut taken = 0;
    while admission.check_rate(&a).is_ok() {
        admission.give_rate_back(&a);
        taken += 1;
    }
    assert_eq!(taken, 20);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(admission.check_rate(&a).is_ok());
    admission.give_rate_back(&a);
    assert_eq!(
        (0..30).filter(|_| admission.check_rate(&a).is_ok()).count(),
        10,
        "never more than a full one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_named_after_the_tenant_whose_it_is() {
    let mut policy = policy(100, 1, |tenant| tenant.queue.length = 100);
    let mut narrow = TenantPolicy::default();
    narrow.queue.length = 1;
    policy.tenants.insert(tenant("narrow"), Arc::new(narrow));
    let admission = Admission::new(policy);
    let _running = admission.admit(ask("other", 1)).await.unwrap();
    let both = || AdmissionRequest { payers: [tenant("a"), tenant("narrow")].to_vec().into(), ..ask("a", 1) };
    let mut waiting = Box::pin(admission.admit(both()));
    assert!((&mut waiting).now_or_never().is_none());
    let refusal = now_or_refused(&admission, both()).unwrap().unwrap_err();
    assert_eq!((refusal.limit, refusal.max), (LimitName::QueueFull, 1));
    assert_eq!(refusal.scope, Scope::Tenant(tenant("narrow")));
}

/// Its query never began, so that its backend has nothing to notice.
#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_takes_is_free_at_once() {
    let mut policy = policy(100, 1, |_| {});
    policy.backends[0].linger = Duration::from_secs(3);
    let admission = Admission::new(policy);
    let running = admission.admit(ask("a", 90)).await.unwrap();
    let mut waiting = Box::pin(admission.admit(ask("b", 90)));
    assert!((&mut waiting).now_or_never().is_none());
    answered([running]);
    assert_eq!(admission.snapshot().backends[0].queries, 1, "it was handed over");
    drop(waiting);
    assert_eq!(admission.snapshot().backends[0].queries, 0);
}

/// Timers that an earlier alarm replaced stayed behind, and each armed another one.
#[tokio::test(start_paused = true)]
async fn one_timer_at_a_time_is_under_way() {
    let mut policy = policy(100, 100, |_| {});
    policy.backends[0].linger = Duration::from_millis(100);
    policy.backends.push(BackendBudget { linger: Duration::from_secs(60), ..budget("slow", 1 << 30, 1_000) });
    let admission = Admission::new(policy);
    for _ in 0..50 {
        for (backend, bytes) in [("slow", 10 << 20), ("main", 90)] {
            drop(
                admission
                    .admit(AdmissionRequest { backend: backend.into(), ..ask("a", bytes) })
                    .await
                    .unwrap(),
            );
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        let timers = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert!(timers <= 1, "{timers} timers");
    }
}
