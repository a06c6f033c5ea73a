//! Names from the wire, many threads, and reloads: nothing grows, leaks or forgets.

use std::num::NonZeroU64;

use fastrand::Rng;

use super::*;
use crate::base::ErrorKind;

fn queries(count: u64, seconds: u64) -> Rates {
    let rate = NonZeroU64::new(count).map(|count| Rate { count, per: Duration::from_secs(seconds) });
    Rates { queries: RateLimit { rate, mode: Mode::Enforce }, ..Rates::default() }
}

#[tokio::test(start_paused = true)]
async fn random_tenants_are_forgotten_when_idle_and_share_an_account_when_not() {
    let mut policy = policy(1 << 40, 100_000, |tenant| tenant.rate = queries(5, 60));
    policy.tenants_max = 100;
    policy.tenants.insert(tenant("named"), Arc::default());
    let admission = Admission::new(policy);
    let _held = admission.admit(ask("first", 7)).await.unwrap();
    // Nobody is idle before the minute is over: tenants beyond the room share one account, and its rate.
    let mut refused = 0;
    for i in 0..3000 {
        refused += usize::from(admission.admit(ask(&format!("t{i}"), 1)).await.is_err());
        assert!(admission.snapshot().tenants_known <= 100);
    }
    assert_eq!(refused, 3000 - 99 - 5);
    assert!(admission.admit(ask("named", 1)).await.is_ok());
    // Then they are forgotten one by one, but for those with queries in flight.
    tokio::time::advance(Duration::from_secs(61)).await;
    for i in 0..3000 {
        assert_eq!(admission.admit(ask(&format!("u{i}"), 1)).await.is_ok(), i < 99 + 5, "{i}");
    }
    let snapshot = admission.snapshot();
    assert_eq!((snapshot.tenants_known, snapshot.tenants.len()), (101, 1));
    assert_eq!((snapshot.tenants[0].tenant.as_str(), snapshot.tenants[0].memory), ("first", 7));
}

#[tokio::test(start_paused = true)]
async fn a_rate_survives_reloads_that_do_not_change_it() {
    let make = |queue_length| {
        policy(1000, 10, |tenant| {
            tenant.rate = queries(1, 60);
            tenant.queue.length = queue_length;
        })
    };
    let admission = Admission::new(make(1));
    admission.admit(ask("a", 1)).await.unwrap();
    admission.reload(make(2));
    assert_eq!(admission.admit(ask("a", 1)).await.unwrap_err().kind, ErrorKind::RateLimited);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_beyond_the_estimate_is_paid_by_the_next() {
    let samples = RateLimit {
        rate: NonZeroU64::new(1000).map(|count| Rate { count, per: Duration::from_secs(10) }),
        mode: Mode::Enforce,
    };
    let admission =
        Admission::new(policy(1000, 10, |tenant| tenant.rate = Rates { samples, ..Rates::default() }));
    let of = |samples| {
        let cost = QueryCost { samples: Estimate::exact(samples), ..QueryCost::NOTHING };
        AdmissionRequest { cost, ..ask("a", 1) }
    };
    admission.admit(of(100)).await.unwrap().permit.settle(Actual { samples: Some(800), end: End::Answered });
    let refusal = admission.admit(of(300)).await.unwrap_err();
    assert_eq!((refusal.limit, refusal.kind), (LimitName::RateSamples, ErrorKind::RateLimited));
    tokio::time::advance(Duration::from_secs(1)).await;
    admission.admit(of(300)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn permits_count_over_reloads_and_come_back_where_they_were_taken() {
    let two = |names: [&str; 2], max| Policy {
        backends: names.map(|name| budget(name, max, 10)).into(),
        ..Policy::default()
    };
    let admission = Admission::new(two(["x", "y"], 1000));
    let on = |backend: &str, bytes| AdmissionRequest { backend: backend.into(), ..ask("a", bytes) };
    let on_x = admission.admit(on("x", 600)).await.unwrap();
    // The order changes, the budget shrinks below the bytes in flight, and then the backend goes.
    admission.reload(two(["y", "x"], 500));
    assert!(admission.admit(on("x", 300)).now_or_never().is_none(), "x is over its budget");
    assert!(admission.admit(on("y", 300)).now_or_never().is_some());
    let mut waiting = Box::pin(admission.admit(on("x", 300)));
    assert!((&mut waiting).now_or_never().is_none());
    drop(on_x);
    assert!(waiting.await.is_ok());
    let last = admission.admit(on("x", 300)).await.unwrap();
    admission.reload(two(["y", "z"], 500));
    let names = |snapshot: Snapshot| snapshot.backends.iter().map(|b| b.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(admission.snapshot()), ["y", "z", "x"]);
    drop(last);
    assert_eq!(names(admission.snapshot()), ["y", "z"]);
    assert_eq!(admission.admit(on("x", 300)).await.unwrap_err().kind, ErrorKind::BackendSick);
}

#[tokio::test(start_paused = true)]
async fn a_reload_lets_run_who_has_room_now() {
    let admission = Admission::new(policy(1000, 1, |_| {}));
    let _held = admission.admit(ask("a", 1)).await.unwrap();
    let mut waiting = Box::pin(admission.admit(ask("b", 1)));
    assert!((&mut waiting).now_or_never().is_none());
    admission.reload(policy(1000, 2, |_| {}));
    assert!(waiting.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_refused_as_never_runs_on_an_idle_backend() {
    let mut rng = Rng::with_seed(5);
    for _ in 0..3000 {
        let memory = rng.u64(1..5000);
        let mut policy = policy(memory, rng.u64(1..30), |tenant| {
            tenant.in_flight = InFlight {
                queries: Limit::enforce(rng.u64(0..10)),
                memory: Limit::enforce(rng.u64(0..5000)),
            };
        });
        policy.classes =
            ["x", "y"].map(|name| ClassPolicy { name: name.into(), reserve_percent: rng.u8(0..=50) }).into();
        let class = [Some("x".into()), Some("y".into()), None][rng.usize(0..3)].clone();
        let asked = AdmissionRequest { class, ..ask("a", rng.u64(0..=memory + 1)) };
        match Admission::new(policy.clone()).admit(asked.clone()).now_or_never() {
            Some(Ok(_)) => {}
            Some(Err(refusal)) => assert_eq!(refusal.limit, LimitName::BudgetNever),
            None => panic!("{asked:?} waits for nothing under {policy:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_leaks_when_many_threads_ask_wait_and_leave() {
    let admission = Admission::new(policy(1000, 6, |tenant| tenant.in_flight.queries = Limit::enforce(3)));
    let mut rng = Rng::with_seed(11);
    let mut tasks = Vec::new();
    for _ in 0..3000 {
        let admission = Arc::clone(&admission);
        let ask = ask(&format!("t{}", rng.u8(0..6)), rng.u64(1..400));
        let yields = rng.u8(0..4);
        tasks.push(tokio::spawn(async move {
            let admitted = admission.admit(ask).await;
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            drop(admitted);
        }));
        if rng.u8(0..3) == 0 {
            tasks[rng.usize(0..tasks.len())].abort();
        }
    }
    for task in tasks {
        // An aborted one is as good as a finished one.
        let _ = task.await;
    }
    let left = admission.snapshot();
    assert_eq!(left.tenants, []);
    assert_eq!((left.backends[0].queries, left.backends[0].memory, left.backends[0].waiting), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn two_split_queries_of_one_tenant_run_beside_its_light_ones() {
    let whole = 2048 << 20;
    let mut policy = policy(whole, 20, |tenant| tenant.in_flight.memory = Limit::enforce(whole / 5 * 4));
    policy.backends[0].unproven_percent = 100;
    let split = policy.memory_thresholds(&tenant("a"), None, "main", Some(40)).split.unwrap();
    let admission = Admission::new(policy);
    let _light = admission.admit(ask("a", 8 << 20)).await.unwrap();
    let _one = admission.admit(ask("a", split)).await.unwrap();
    let two = admission.admit(ask("a", split)).await.unwrap();
    assert_eq!(two.waited, Duration::ZERO);
}
