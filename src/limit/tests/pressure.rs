//! What a budget under pressure is still for.

use futures_util::FutureExt;

use super::*;
use crate::base::ErrorKind;

/// Bytes of the whole budget.
const WHOLE: u64 = 1_000_000;

/// Classes `rules` and `boards` with these reserves, and a backend of which pressure leaves this share.
fn shrunk(reserves: [u8; 2], slots: u64, share: f64) -> Arc<Admission> {
    let mut policy = policy(WHOLE, slots, |_| {});
    let names = ["rules", "boards"];
    policy.classes = (names.iter().zip(reserves))
        .map(|(name, reserve_percent)| ClassPolicy { name: (*name).into(), reserve_percent })
        .collect();
    let admission = Admission::new(policy);
    admission.allow(BackendId(0), Allowance::Share(share));
    admission
}

/// How much of the budget queries of a class get together when they ask until there is no more, in one size.
fn takes(admission: &Arc<Admission>, class: ClassId, size: u64) -> (u64, Vec<Admitted>) {
    let mut running = Vec::new();
    while let Some(Ok(admitted)) = admission.admit(Ask { class, ..ask("a", size) }).now_or_never() {
        running.push(admitted);
    }
    (running.len() as u64 * size, running)
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_shrinks_last() {
    let size = WHOLE / 100;
    // Reserves of 20 % and 10 %; what the unreserved, the first and the second class get, each alone, in percent.
    for (share, unreserved, rules, boards) in [
        (1.0, 70, 90, 80),
        (0.6, 30, 50, 40),
        (0.4, 10, 30, 20),
        (0.3, 0, 20, 10),
        (0.15, 0, 10, 5),
        (0.05, 0, 3, 1),
    ] {
        let alone = |class| {
            let got = takes(&shrunk([20, 10], 1_000, share), class, size).0 / size;
            // What is for light queries only goes off, and a query is taken or left whole.
            move |expected: u64| (got <= expected && got + 4 >= expected, got)
        };
        for (class, expected) in [(ClassId::NONE, unreserved), (ClassId(0), rules), (ClassId(1), boards)] {
            let (right, got) = alone(class)(expected);
            assert!(right, "share {share}, {class:?}: {got} of {expected}");
        }
        // And each has its own after the others took all they could.
        let admission = shrunk([20, 10], 1_000, share);
        let others = takes(&admission, ClassId::NONE, size);
        let first = takes(&admission, ClassId(0), size).0 / size;
        let reserve = (share / 0.3_f64).min(1.0) * 20.0;
        assert!(
            first as f64 >= (reserve - 4.0).max(0.0),
            "share {share}: {first} of {reserve}, {}",
            others.0
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_slot_under_pressure_is_for_whom_it_is_reserved() {
    let admission = shrunk([20, 0], 20, 0.05);
    assert!(admission.admit(ask("a", 20_000)).now_or_never().is_none());
    let rule = admission.admit(Ask { class: ClassId(0), ..ask("a", 20_000) });
    assert!(rule.now_or_never().is_some());
    // Without pressure, reserves leave everybody one.
    let admission = shrunk([50, 50], 2, 1.0);
    assert!(admission.admit(ask("a", 0)).now_or_never().is_some());
}

/// A light query needs a 128th of the budget at most.
const LIGHT: u64 = WHOLE / 128;
const HEAVY: u64 = WHOLE / 10;

#[tokio::test(start_paused = true)]
async fn light_queries_run_though_what_ran_before_fills_all_that_is_left() {
    for allowance in [Allowance::Share(0.1), Allowance::LightOnly] {
        let admission = shrunk([0, 0], 18, 1.0);
        // 9 of 10: what is for light queries goes off.
        let (_, running) = takes(&admission, ClassId::NONE, HEAVY);
        assert_eq!(running.len(), 9);
        admission.allow(BackendId(0), allowance);
        let light = |name: &str| admission.admit(ask(name, LIGHT)).now_or_never();
        // Half of the slots and a 32nd of the memory: four.
        let others: Vec<_> = (0..4).map(|i| light(&format!("b{i}")).expect("runs").unwrap()).collect();
        assert!(light("b4").is_none(), "{allowance:?}: the floor is full, and light ones wait");
        drop(others);
        // Who has as much as the floor already gets none of it while others run.
        let _other = light("b").expect("runs").unwrap();
        assert!(light("a").is_none(), "{allowance:?}");
        let snapshot = admission.snapshot();
        assert!(snapshot.backends[0].memory <= WHOLE);
        drop(running);
    }
}

#[tokio::test(start_paused = true)]
async fn at_full_pressure_heavy_ones_are_shed_and_light_ones_keep_their_place() {
    let admission = shrunk([0, 0], 40, 1.0);
    let (_, running) = takes(&admission, ClassId::NONE, HEAVY);
    let mut heavy = Box::pin(admission.admit(ask("b", HEAVY)));
    assert!((&mut heavy).now_or_never().is_none());
    admission.allow(BackendId(0), Allowance::LightOnly);
    assert_eq!(heavy.await.unwrap_err().kind, ErrorKind::BackendSick);
    assert_eq!(admission.admit(ask("b", HEAVY)).await.unwrap_err().kind, ErrorKind::BackendSick);
    let on_floor: Vec<_> =
        (0..4).map(|_| admission.admit(ask("b", LIGHT)).now_or_never().unwrap().unwrap()).collect();
    let mut light = Box::pin(admission.admit(ask("c", LIGHT)));
    assert!((&mut light).now_or_never().is_none());
    drop(running);
    assert!((&mut light).now_or_never().is_none(), "nothing is left but the floor");
    drop(on_floor);
    let light = light.await.unwrap();
    // Then not even that.
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(admission.admit(ask("b", LIGHT)))).collect();
    let ran: Vec<_> = waiting.iter_mut().filter_map(|wait| wait.as_mut().now_or_never()).collect();
    assert_eq!(ran.len(), 3);
    admission.allow(BackendId(0), Allowance::Nothing);
    let last = waiting.pop().unwrap();
    assert_eq!(last.await.unwrap_err().kind, ErrorKind::BackendSick);
    assert_eq!(admission.admit(ask("d", 1)).await.unwrap_err().kind, ErrorKind::BackendSick);
    drop((light, ran));
    admission.allow(BackendId(0), Allowance::Share(1.0));
    assert!(admission.admit(ask("b", HEAVY)).now_or_never().is_some());
}
