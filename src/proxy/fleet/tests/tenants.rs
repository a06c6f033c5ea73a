//! Two proxies that share a tenant's limits over a real store, which is killed in the end.

use parking_lot::Mutex;

use super::*;
use crate::limit::{InFlight, Mode, Rate, RateLimit};

/// Of all proxies together: queries in flight, and queries in `PER`.
const IN_FLIGHT: u64 = 40;
const COUNT: u64 = 200;
const PER: Duration = Duration::from_secs(4);
/// The parts of each proxy that need no store.
const FIXED_IN_FLIGHT: u64 = IN_FLIGHT / 2 / REPLICAS;
const FIXED_COUNT: u64 = COUNT / 2 / REPLICAS;

fn limits(in_flight: u64, count: u64) -> TenantPolicy {
    let mut limits = TenantPolicy {
        in_flight: InFlight { queries: Limit::enforce(in_flight), memory: Limit::UNLIMITED },
        ..TenantPolicy::default()
    };
    let rate = NonZeroU64::new(count).map(|count| Rate { count, per: PER });
    limits.rate.queries = RateLimit { rate, mode: Mode::Enforce };
    limits
}

/// Queries of one tenant at two proxies, each of which may be idle.
struct Load {
    members: [Member; 2],
    idle: [Arc<AtomicBool>; 2],
    workers: JoinSet<()>,
    /// When each query of tenant `rate` began.
    begun: Arc<Mutex<Vec<Instant>>>,
    /// The most queries of tenant `slots` in flight since this was asked last: of all, and of the first proxy.
    most: Arc<[AtomicU64; 2]>,
}

impl Load {
    /// Tenant `slots` has more queries at each proxy than may run, and tenant `rate` asks more often than it may.
    fn start(server: &Server) -> Self {
        let members = [(); 2].map(|()| Member::with(server, 4_000, limits(IN_FLIGHT, 0)));
        let rated = [(); 2].map(|()| Member::with(server, 4_000, limits(0, COUNT)));
        let idle = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let begun = Arc::new(Mutex::new(Vec::new()));
        let mut workers = JoinSet::new();
        for ((member, rated), idle) in members.iter().zip(rated).zip(&idle) {
            for _ in 0..2 * IN_FLIGHT {
                workers.spawn(holds_a_slot(Arc::clone(&member.admission), Arc::clone(idle)));
            }
            workers.spawn(asks_often(rated, Arc::clone(idle), Arc::clone(&begun)));
        }
        let most = Arc::new([const { AtomicU64::new(0) }; 2]);
        let admissions = members.each_ref().map(|member| Arc::clone(&member.admission));
        workers.spawn(looks(admissions, Arc::clone(&most)));
        Self { members, idle, workers, begun, most }
    }

    /// Lets a time pass. Gives the most queries that were in flight at once, over all proxies and at the first, and the
    /// number of those that began for the rate.
    async fn during(&self, time: Duration) -> (u64, u64, u64) {
        let before = self.begun.lock().len();
        self.most.iter().for_each(|most| most.store(0, Relaxed));
        sleep(time).await;
        let [all, first] = self.most.each_ref().map(|most| most.load(Relaxed));
        assert!(all <= IN_FLIGHT, "{all} queries at once");
        (all, first, (self.begun.lock().len() - before) as u64)
    }

    /// The most that was begun above the rate in any time; no more than the count.
    fn meter(&self) -> f64 {
        let (mut meter, mut most, mut last) = (0.0_f64, 0.0_f64, None);
        for at in self.begun.lock().iter() {
            let leaked = last.map_or(0.0, |last: Instant| at.saturating_duration_since(last).as_secs_f64());
            meter = (meter - leaked * COUNT as f64 / PER.as_secs_f64()).max(0.0) + 1.0;
            (most, last) = (most.max(meter), Some(*at));
        }
        most
    }
}

async fn holds_a_slot(admission: Arc<Admission>, idle: Arc<AtomicBool>) {
    loop {
        if idle.load(Relaxed) {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        let admitted = admit_of(&admission, "slots", MIB).await;
        sleep(Duration::from_millis(20)).await;
        drop(admitted);
    }
}

async fn asks_often(member: Member, idle: Arc<AtomicBool>, begun: Arc<Mutex<Vec<Instant>>>) {
    loop {
        if !idle.load(Relaxed) {
            // Under one lock: in the order in which they began.
            let mut begun = begun.lock();
            if member.admission.check_rate(&[TenantId::new("rate").unwrap()]).is_ok() {
                begun.push(Instant::now());
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

async fn looks(admissions: [Arc<Admission>; 2], most: Arc<[AtomicU64; 2]>) {
    loop {
        let held = admissions
            .each_ref()
            .map(|admission| admission.snapshot().tenants.iter().map(|tenant| tenant.queries).sum::<u64>());
        most[0].fetch_max(held.iter().sum(), Relaxed);
        most[1].fetch_max(held[0], Relaxed);
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_tenants_limits_hold_for_two_proxies_and_leave_each_a_part_without_the_store() {
    let test = "a_tenants_limits_hold_for_two_proxies_and_leave_each_a_part_without_the_store";
    let Some(mut server) = Server::start(test) else { return };
    let load = Load::start(&server);
    for member in &load.members {
        member.until_ready().await;
    }
    load.during(Duration::from_secs(2)).await;
    let most_of = |proxies: u64, whole: u64, fixed: u64| whole - (REPLICAS - proxies) * fixed;
    let nearly = |whole: u64| whole * 9 / 10;
    let (both, _, begun) = load.during(PER).await;
    assert!(both >= nearly(most_of(2, IN_FLIGHT, FIXED_IN_FLIGHT)), "{both} at once");
    assert!(begun >= nearly(most_of(2, COUNT, FIXED_COUNT)), "{begun} began");
    // One is idle: the other gets all but the fixed parts of the others.
    load.idle[1].store(true, Relaxed);
    load.during(Duration::from_secs(3)).await;
    let (all, first, begun) = load.during(PER).await;
    assert_eq!(all, first);
    assert!(first >= nearly(most_of(1, IN_FLIGHT, FIXED_IN_FLIGHT)), "{first} at once");
    assert!(begun >= nearly(most_of(1, COUNT, FIXED_COUNT)), "{begun} began");
    server.kill();
    load.during(Duration::from_secs(6)).await;
    load.idle[1].store(false, Relaxed);
    let (both, _, begun) = load.during(PER).await;
    assert!(both == 2 * FIXED_IN_FLIGHT, "{both} at once without the store");
    assert!(begun >= nearly(2 * FIXED_COUNT) && begun <= 4 * FIXED_COUNT, "{begun} began without the store");
    assert!(load.meter() <= COUNT as f64, "{} more than the rate", load.meter());
    drop(load.workers);
}

#[tokio::test]
async fn light_queries_make_no_round_trip_and_a_heavy_one_has_its_lease_within_50_ms() {
    let test = "light_queries_make_no_round_trip_and_a_heavy_one_has_its_lease_within_50_ms";
    let Some(server) = Server::start(test) else { return };
    let member = Member::with(&server, 4_000, limits(IN_FLIGHT, 1_000_000));
    member.until_ready().await;
    let rounds = || {
        let text = member.metrics.encode().unwrap();
        let line =
            text.lines().find(|line| line.starts_with("weir_fleet_rounds_total{outcome=\"answered\"}"));
        line.and_then(|line| line.split(' ').next_back()?.parse::<u64>().ok()).unwrap()
    };
    let (before, scripts, began) = (rounds(), server.scripts_run(), Instant::now());
    for _ in 0..2_000 {
        drop(member.admit(MIB).await.unwrap());
        tokio::task::yield_now().await;
    }
    let (made, seconds) = (rounds() - before, began.elapsed().as_secs());
    assert!(made <= seconds + 1, "{made} round trips in {seconds} s");
    // A seat, a backend, a tenant, its rates and the topics of the board in each.
    let scripts = server.scripts_run() - scripts;
    assert!(scripts <= 16 * (seconds + 1), "{scripts} scripts for 2,000 queries in {seconds} s");
    let mut waits = Vec::new();
    for _ in 0..9 {
        // In the round between, the lease is given back.
        sleep(EVERY + Duration::from_millis(100)).await;
        waits.push(member.admit(2 * FIXED).await.unwrap().waited);
    }
    waits.sort_unstable();
    assert!(waits[0] > Duration::ZERO && waits[4] < Duration::from_millis(50), "{waits:?}");
}

/// Asks until the quota is used up; gives the number of queries that ran.
async fn uses_up(member: &Member) -> u64 {
    let (mut ran, mut last) = (0, Instant::now());
    // A refusal is final only when no round brought more.
    while last.elapsed() < 3 * EVERY {
        match admit_of(&member.admission, "quota", MIB).await {
            Ok(_) => (ran, last) = (ran + 1, Instant::now()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        sleep(Duration::from_millis(1)).await;
    }
    ran
}

#[tokio::test]
async fn proxies_use_up_a_quota_together_and_a_new_one_gets_no_more_than_its_own_part() {
    let test = "proxies_use_up_a_quota_together_and_a_new_one_gets_no_more_than_its_own_part";
    let Some(server) = Server::start(test) else { return };
    let (quota, part) = (4_000, 4_000 / 10 / REPLICAS);
    let mut limits = limits(0, 0);
    // Longer than the test, whenever it begins.
    let rate = NonZeroU64::new(quota).map(|count| Rate { count, per: Duration::from_secs(1 << 32) });
    limits.quota.queries = RateLimit { rate, mode: Mode::Enforce };
    let members = [(); 2].map(|()| Member::with(&server, 4_000, limits.clone()));
    for member in &members {
        member.until_ready().await;
    }
    let (first, second) = tokio::join!(uses_up(&members[0]), uses_up(&members[1]));
    let all = first + second;
    // But for the parts of two proxies that do not run, and with a tenth more in the slow lane.
    assert!(all >= quota - 2 * part && all <= quota, "{first} and {second}");
    for member in &members {
        let (_, used) = member.admission.quotas_used().remove(0);
        assert_eq!(used.all, all, "every proxy knows of it");
    }
    let third = Member::with(&server, 4_000, limits);
    third.until_ready().await;
    assert!(uses_up(&third).await <= 2 * part);
}
