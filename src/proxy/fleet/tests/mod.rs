//! Proxies before one budget, with a real store or a model of one.

mod burst;
mod faults;
mod tenants;
mod traffic;

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use fastrand::Rng;
use tokio::task::JoinSet;

use super::*;
use crate::{
    base::{Confidence, Estimate, QueryCost, TenantId},
    cost::History,
    fleet::tests::{model::Model, server::Server},
    limit::{
        AdmissionRequest, Admitted, BackendBudget, Charged, Limit, Policy, QueuePolicy, Refusal, Sharing,
        SlowLane, TenantPolicy,
    },
    proxy::{log::ActiveQueries, rules::QueryRules},
};

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 1_024 * MIB;
const REPLICAS: u64 = 4;
/// The heavy lane, and the part of it that each proxy has for itself.
const HEAVY: u64 = BUDGET / 32 * 31;
const FIXED: u64 = HEAVY / 10 / REPLICAS;

/// One proxy's admission and its place in the fleet.
struct Member {
    admission: Arc<Admission>,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    counts: Arc<SharedCounts>,
}

impl Member {
    fn join(server: &Server) -> Self {
        Self::with(server, 64, TenantPolicy::default())
    }

    /// Before a budget of this number of queries, with these limits for every tenant.
    fn with(server: &Server, queries: u64, limits: TenantPolicy) -> Self {
        Self::by(&server.url(), queries, limits)
    }

    /// The same with a store at this URL.
    fn by(url: &str, queries: u64, limits: TenantPolicy) -> Self {
        let store = Store::new(url, "test", format!("{:016x}", random())).unwrap();
        Self::at(store, queries, limits, (REPLICAS, 100))
    }

    /// At any store, one of this number of proxies; this part of its window, in percent, is open without proof.
    fn at(store: Store, queries: u64, limits: TenantPolicy, (replicas_max, unproven): (u64, u8)) -> Self {
        Self::before(&["main".into()], store, queries, limits, (replicas_max, unproven))
    }

    /// The same before each of these backends.
    fn before(
        backends: &[Arc<str>],
        store: Store,
        queries: u64,
        limits: TenantPolicy,
        (replicas_max, unproven): (u64, u8),
    ) -> Self {
        let sharing =
            Sharing { replicas_max: NonZeroU64::new(replicas_max).unwrap(), leased: replicas_max > 1 };
        let budget = |name: &Arc<str>| BackendBudget {
            name: Arc::clone(name),
            memory: Limit::enforce(BUDGET),
            queries: Limit::enforce(queries),
            slow: SlowLane::default(),
            unproven_percent: unproven,
            linger: Duration::ZERO,
        };
        let queue = QueuePolicy { wait: Duration::from_secs(30), ..QueuePolicy::default() };
        let default = Arc::new(TenantPolicy { queue, ..limits });
        let backends = backends.iter().map(budget).collect();
        let admission = Admission::new(Policy { default, backends, sharing, ..Policy::default() });
        let fleet = Arc::new(Fleet::default());
        let settings = settings(replicas_max, 2);
        let metrics = Arc::new(Metrics::new(10).unwrap());
        let counts = Arc::<SharedCounts>::default();
        let subjects = Subjects {
            active: ActiveQueries::new(0, || 0),
            rules: Arc::new(QueryRules::new(Vec::new(), Arc::clone(&metrics), || 0)),
            history: Arc::new(History::new(1)),
            counts: Arc::clone(&counts),
            metrics: Arc::clone(&metrics),
            clock: || 0,
        };
        if replicas_max > 1 {
            fleet.join_at(store, format!("{:016x}", random()), &settings, &admission, subjects);
        }
        Self { admission, fleet, metrics, counts }
    }

    /// One of two proxies, at a model of the store.
    fn modelled(model: &Arc<Model>, number: u64) -> Self {
        let store = Store::modelled(model, format!("{number:x}"));
        Self::at(store, 64, TenantPolicy::default(), (2, 100))
    }

    async fn admit(&self, bytes: u64) -> Result<Admitted, Refusal> {
        admit(&self.admission, bytes).await
    }

    /// Waits until the store answers and has learned.
    async fn until_ready(&self) {
        let is_ready = |status: &FleetStatus| status.connected && !status.learning;
        while !self.fleet.status().is_some_and(|status| is_ready(&status)) {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Those of a fleet of this many proxies, whose queries run for this many seconds at most.
fn settings(replicas_max: u64, longest: u64) -> Settings {
    Settings {
        url: String::new(),
        name: "test".to_owned(),
        id: "test".to_owned(),
        replicas_max,
        timeout: Duration::from_millis(250),
        longest_query: Duration::from_secs(longest),
    }
}

async fn admit(admission: &Arc<Admission>, bytes: u64) -> Result<Admitted, Refusal> {
    admit_of(admission, "a", bytes).await
}

async fn admit_of(admission: &Arc<Admission>, tenant: &str, bytes: u64) -> Result<Admitted, Refusal> {
    admit_at(admission, "main".into(), tenant, bytes).await
}

async fn admit_at(
    admission: &Arc<Admission>,
    backend: Arc<str>,
    tenant: &str,
    bytes: u64,
) -> Result<Admitted, Refusal> {
    let request = AdmissionRequest {
        payers: [TenantId::new(tenant).unwrap()].into(),
        actor: "actor".into(),
        class: None,
        backend,
        cost: QueryCost { memory: Estimate::new(bytes, Confidence::UpperBound), ..QueryCost::NOTHING },
        deadline: Instant::now() + Duration::from_secs(30),
        charged: Charged::Nothing,
        slow: false,
        tag: 0,
    };
    admission.admit(request).await
}

#[tokio::test(start_paused = true)]
async fn a_reload_reaches_the_leases_and_a_dead_proxys_seat_is_no_finding() {
    let model = Arc::new(Model::new(Duration::from_millis(1)));
    let join = |number| Member::modelled(&model, number);
    let members: Vec<_> = (1..=3).map(join).collect();
    // Longest time of a query after the reload, and that for which the leases count: queries of before run on.
    for (seconds, counts) in [(300, 300_000), (1, 300_000)] {
        for member in &members {
            member.fleet.reload(&settings(2, seconds));
        }
        sleep(2 * EVERY).await;
        assert_eq!(model.hold_ms("backend:main"), Some(counts));
    }
    let crowded = || members[0].fleet.status().is_some_and(|status| status.crowded);
    assert!(!crowded(), "one of the three seats may be a dead proxy's");
    sleep(SEAT_LIFE).await;
    assert!(crowded());
    for member in &members {
        member.fleet.reload(&settings(3, 1));
    }
    sleep(2 * EVERY).await;
    assert!(!crowded());
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_proxy_that_is_gone_is_said_until_it_is_anothers() {
    let model = Arc::new(Model::new(Duration::from_millis(1)));
    let join = |number| Member::modelled(&model, number);
    let [gone, stays] = [1, 2].map(join);
    // The store learns for 7 s.
    sleep(Duration::from_secs(8)).await;
    let fixed = HEAVY / 10 / 2;
    let _query = gone.admit(fixed + 100 * MIB).await.unwrap();
    sleep(2 * EVERY).await;
    let said = || stays.fleet.status().unwrap().gone;
    assert_eq!(said(), BTreeMap::new());
    model.isolate(1);
    // Its time to live of 7 s, and then the longest query of 2 s.
    for (seconds, bytes) in [(5, None), (3, Some(100 * MIB)), (3, None)] {
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(said().get("main").copied(), bytes);
    }
}

#[tokio::test]
async fn the_heaviest_query_runs_wherever_it_comes_and_light_ones_make_no_round_trip() {
    let Some(server) = Server::start("the_heaviest_query_runs_wherever_it_comes") else { return };
    let members: Vec<_> = (0..3).map(|_| Member::join(&server)).collect();
    for member in &members {
        let light = member.admit(MIB).await.unwrap();
        assert_eq!(light.waited, Duration::ZERO, "while the store learns");
        member.until_ready().await;
    }
    let heaviest = HEAVY - (REPLICAS - 1) * FIXED;
    for member in &members {
        let began = Instant::now();
        let query = member.admit(heaviest).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        sleep(2 * EVERY).await;
        for other in &members {
            let own = other.admission.take_peak("main").unwrap();
            let all = other.fleet.load_of_all("main", Load { heavy_bytes: 0, queries: 0, ..own });
            let runs_here = Arc::ptr_eq(&member.admission, &other.admission);
            assert_eq!(all.heavy_bytes, if runs_here { 0 } else { heaviest }, "every proxy knows of it");
        }
        drop(query);
    }
    assert_eq!(members[0].fleet.status().unwrap().proxies, 3);
    members[2].fleet.leave().await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(members[0].fleet.status().unwrap().proxies, 2);
}

#[tokio::test]
async fn every_proxy_takes_the_highest_pressure_of_all_until_it_is_old() {
    let Some(server) = Server::start("every_proxy_takes_the_highest_pressure_of_all") else { return };
    let members: Vec<_> = (0..2).map(|_| Member::join(&server)).collect();
    for member in &members {
        member.until_ready().await;
    }
    let read = |member: &Member, pressure| {
        let worst = member.fleet.worst_pressure("main", Some((Signal::Saturation, pressure)));
        worst.map(|(_, pressure)| pressure)
    };
    let began = Instant::now();
    while read(&members[1], 0.1) != Some(0.9) {
        assert_eq!(read(&members[0], 0.9), Some(0.9));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let fell = Instant::now();
    while read(&members[1], 0.1) != Some(0.1) {
        assert_eq!(read(&members[0], 0.2), Some(0.2), "its own is not taken for another's");
        assert!(fell.elapsed() < Duration::from_secs(5), "{:?}", fell.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
}
