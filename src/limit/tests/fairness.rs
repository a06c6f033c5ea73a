//! The order of the queue between tenants, actors and classes.

use fastrand::Rng;

use super::*;

const MIB: u64 = 1 << 20;

/// Runs a query for this time; returns the wait and the verdict.
fn run(
    admission: &Arc<Admission>,
    ask: AdmissionRequest,
    lasts: Duration,
) -> tokio::task::JoinHandle<Option<Duration>> {
    let admission = Arc::clone(admission);
    tokio::spawn(async move {
        let admitted = admission.admit(ask).await.ok()?;
        tokio::time::sleep(lasts).await;
        drop(admitted.permit);
        Some(admitted.waited)
    })
}

/// The wait that one in a hundred passes.
fn p99(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

/// 200 heavy queries of one actor, light ones of another: the waits of the light ones.
async fn heavy_against_light(
    admission: Arc<Admission>,
    heavy: AdmissionRequest,
    light: AdmissionRequest,
) -> Vec<Duration> {
    let mut rng = Rng::with_seed(3);
    for _ in 0..200 {
        drop(run(&admission, heavy.clone(), Duration::from_millis(rng.u64(2_000..6_000))));
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(admission.snapshot().backends[0].waiting > 100);
    let mut light_ones = Vec::new();
    for _ in 0..1000 {
        light_ones.push(run(&admission, light.clone(), Duration::from_millis(rng.u64(2..12))));
        tokio::time::sleep(Duration::from_millis(rng.u64(2..20))).await;
    }
    let mut waits = Vec::new();
    for one in light_ones {
        waits.push(one.await.unwrap().expect("no light query is refused"));
    }
    waits
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_200_heavy_queries_does_not_slow_the_light_ones_of_another() {
    // By memory, by slots, and with a tenant that may take the whole backend.
    for (weight, tenant_queries, tenant_memory) in
        [(512 * MIB, 20, 2048 * MIB), (64 * MIB, 20, 4096 * MIB), (1024 * MIB, 100, 4096 * MIB)]
    {
        let admission = Admission::new(policy(4096 * MIB, 20, |tenant| {
            tenant.in_flight =
                InFlight { queries: Limit::enforce(tenant_queries), memory: Limit::enforce(tenant_memory) };
            tenant.queue = QueuePolicy { length: 1000, wait: Duration::from_secs(600) };
        }));
        let waits = heavy_against_light(admission, ask("heavy", weight), ask("light", 2 * MIB)).await;
        let p99 = p99(waits);
        assert!(p99 < Duration::from_millis(50), "{weight}: p99 is {p99:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_with_heavy_queries_does_not_slow_the_light_ones_of_the_same_tenant() {
    let admission = Admission::new(policy(4096 * MIB, 20, |tenant| {
        tenant.in_flight = InFlight { queries: Limit::enforce(20), memory: Limit::enforce(2048 * MIB) };
        tenant.queue = QueuePolicy { length: 1000, wait: Duration::from_secs(600) };
    }));
    let light = AdmissionRequest { actor: "light".into(), ..ask("one", 2 * MIB) };
    let p99 = p99(heavy_against_light(admission, ask("one", 100 * MIB), light).await);
    assert!(p99 < Duration::from_millis(50), "p99 is {p99:?}");
}

#[tokio::test(start_paused = true)]
async fn tenants_that_ask_for_the_same_get_the_same() {
    let admission = Admission::new(policy(4096 * MIB, 14, |tenant| {
        tenant.queue = QueuePolicy { length: 1000, wait: Duration::from_secs(600) };
    }));
    // One asks ten times as often, in halves of the size.
    let mut running = Vec::new();
    for (name, count, weight) in [("many", 400, 100), ("few", 40, 200)] {
        for _ in 0..count {
            running.push((name, run(&admission, ask(name, weight * MIB), Duration::from_secs(1))));
        }
    }
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    let done = |tenant| running.iter().filter(|(name, query)| *name == tenant && query.is_finished()).count();
    let (many, few) = (done("many") as f64, done("few") as f64);
    // 7 of 14 slots go to queries that are not light; the first are taken before anybody waits.
    assert!(many + few > 60.0, "{many} and {few}");
    let ratio = (many - 7.0) / (few * 2.0);
    assert!((0.8..1.25).contains(&ratio), "{many} and {few}");
}

#[tokio::test(start_paused = true)]
async fn a_dear_query_gets_its_turn_among_many_middling_ones() {
    let admission = Admission::new(policy(1000 * MIB, 100, |tenant| {
        tenant.queue = QueuePolicy { length: 10_000, wait: Duration::from_secs(600) };
    }));
    let mut rng = Rng::with_seed(1);
    let mut dear = None;
    for i in 0..3000 {
        if i == 100 {
            dear = Some(run(&admission, ask("dear", 800 * MIB), Duration::from_secs(1)));
        }
        drop(run(&admission, ask("middling", 90 * MIB), Duration::from_millis(rng.u64(100..300))));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let dear = dear.unwrap();
    assert!(dear.is_finished(), "the dear query starves");
    assert!(dear.await.unwrap().unwrap() < Duration::from_secs(5));
}
