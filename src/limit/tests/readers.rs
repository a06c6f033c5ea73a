//! Clients that do not read, and clients that leave.

use super::*;

const MIB: u64 = 1 << 20;

fn admission(unproven_percent: u8, linger: u64) -> Arc<Admission> {
    let mut policy = policy(1024 * MIB, 8, |_| {});
    policy.backends[0].unproven_percent = unproven_percent;
    policy.backends[0].linger = Duration::from_secs(linger);
    Admission::new(policy)
}

#[tokio::test(start_paused = true)]
async fn what_proves_an_estimate_is_the_backends_part_and_not_the_clients() {
    let admission = admission(10, 0);
    let reading = admission.admit(ask("a", 97 * MIB)).await.unwrap();
    let mut next = Box::pin(admission.admit(ask("b", 90 * MIB)));
    assert!((&mut next).now_or_never().is_none(), "the window is in use");
    assert!(reading.permit.handle().stalled());
    let next = next.now_or_never().expect("the slot and the window are free").unwrap();
    let held = admission.snapshot().backends[0].clone();
    assert_eq!((held.stalled, held.memory), ((1, 97 * MIB), 187 * MIB), "the memory stays booked");
    reading.permit.handle().backend_done(true);
    assert!(reading.permit.handle().stalled(), "it holds no slot any more");
    assert_eq!(admission.snapshot().backends[0].memory, 90 * MIB);
    let tenants = admission.snapshot().tenants;
    assert_eq!(
        tenants.iter().map(|tenant| tenant.queries).collect::<Vec<_>>(),
        [1, 1],
        "the client still reads"
    );
    drop((reading, next));
    assert_eq!(admission.snapshot().tenants, []);
}

#[tokio::test(start_paused = true)]
async fn slow_readers_give_their_slots_to_others_within_the_budget() {
    // A tenant that is alone may fill every slot, as far as its own limit goes.
    let limited = policy(1024 * MIB, 8, |tenant| tenant.in_flight.queries = Limit::enforce(8));
    let alone = Admission::new(limited);
    let all = fill(&alone, &ask("slow", MIB));
    assert!(alone.admit(ask("other", MIB)).now_or_never().is_none());
    assert!(all.len() == 8 && all.iter().all(|one| one.permit.handle().stalled()));
    assert!(alone.admit(ask("other", MIB)).now_or_never().is_some());

    // Without such a limit there is one for all that stall, and where others ask as well it never has all slots.
    let admission = admission(100, 0);
    drop(admission.admit(ask("other", MIB)).await);
    let stalled = || {
        let running = fill(&admission, &ask("slow", MIB));
        let stalled = running.iter().filter(|one| one.permit.handle().stalled()).count();
        (stalled, running)
    };
    let (stalled, all): (Vec<_>, Vec<_>) = (0..3).map(|_| stalled()).unzip();
    assert_eq!(stalled, [6, 2, 0]);
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    assert!(admission.admit(ask("other", MIB)).now_or_never().is_some());
    // Their bytes are not given away twice.
    all.truncate(8);
    let large = admission.admit(ask("other", 990 * MIB)).now_or_never();
    assert!(large.is_none());
    assert_eq!(admission.snapshot().backends[0].reasons, []);
    drop(all);
    assert!(admission.admit(ask("other", 990 * MIB)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_charge_of_a_client_that_left_lasts_as_long_as_the_backend_may_work_on_it() {
    let admission = admission(100, 3);
    // 2.5 times the budget asked for and given up, again and again.
    for _ in 0..10 {
        let running = fill(&admission, &ask("a", 240 * MIB));
        assert!(admission.snapshot().backends[0].memory <= 1024 * MIB);
        drop(running);
    }
    let held = admission.snapshot().backends[0].clone();
    assert_eq!((held.memory, held.lingering), (4 * 240 * MIB, 4));
    let start = Instant::now();
    let next = admission.admit(ask("b", 500 * MIB)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    // One that was answered, or that the backend ended, is over at once; a light one nearly.
    answered([next]);
    let failed = admission.admit(ask("b", 900 * MIB)).now_or_never().unwrap().unwrap();
    failed.permit.settle(Actual { end: End::Failed, ..Actual::default() });
    drop(admission.admit(ask("b", MIB)).await);
    assert_eq!(admission.snapshot().backends[0].memory, MIB);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(admission.snapshot().tenants, []);
}
