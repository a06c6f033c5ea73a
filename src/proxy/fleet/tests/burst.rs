//! Heavy work of a fleet beside that of one proxy with the whole budget: a burst of half a minute on a stopped clock, with
//! the real admission and the real rounds, and a model of the store.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    base::distress::Distress,
    limit::{Actual, End, InFlight},
};

const BURST: Duration = Duration::from_secs(30);
/// Clients that ask again once they have their answer.
const CLIENTS: u64 = 20;

/// Where a balancer sends the burst.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Even,
    One,
    /// To another proxy every five seconds.
    Moving,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    spread: Spread,
    /// The least part of one proxy's work, where it comes to all proxies and where it comes to one.
    least: [f64; 2],
    /// MiB of a query, from and to.
    size: (u64, u64),
    /// Parts that a query is sent in, and how long one takes at most, in milliseconds.
    parts: u64,
    part_ms: u64,
}

struct Burst {
    load: Load,
    members: Vec<Member>,
    began: Instant,
    asked: AtomicUsize,
    /// Byte-milliseconds of the parts that were answered.
    done: AtomicU64,
    /// The most in flight at once: before the first answer, and ever.
    most: [AtomicU64; 2],
}

impl Burst {
    async fn run(load: Load, proxies: u64, latency: Duration) -> Arc<Self> {
        let model = Arc::new(Model::new(latency));
        let member = |number| {
            let store = Store::modelled(&model, format!("{number:x}"));
            // As the budget's, so that a query needs two leases.
            let in_flight = InFlight { queries: Limit::enforce(128), memory: Limit::enforce(BUDGET) };
            Member::at(store, 128, TenantPolicy { in_flight, ..TenantPolicy::default() }, (proxies, 10))
        };
        let members: Vec<_> = (1..=proxies).map(member).collect();
        sleep(Duration::from_secs(10)).await;
        let burst = Arc::new(Self {
            load,
            members,
            began: Instant::now(),
            asked: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            most: Default::default(),
        });
        let mut tasks = JoinSet::new();
        for seed in 0..CLIENTS {
            tasks.spawn(Arc::clone(&burst).client(seed));
        }
        tasks.spawn(Arc::clone(&burst).supervise());
        sleep(BURST).await;
        burst
    }

    fn place(&self) -> &Member {
        let turn = match self.load.spread {
            Spread::Even => self.asked.fetch_add(1, Relaxed),
            Spread::One => 0,
            Spread::Moving => self.began.elapsed().as_secs() as usize / 5,
        };
        &self.members[turn % self.members.len()]
    }

    async fn client(self: Arc<Self>, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let Load { size, parts, part_ms, .. } = self.load;
        loop {
            let bytes = rng.u64(size.0..=size.1) * MIB;
            let Ok(admitted) = self.place().admit(bytes).await else { continue };
            for part in 1..=parts {
                let takes = rng.u64(part_ms / 2..=part_ms);
                sleep(Duration::from_millis(takes)).await;
                self.done.fetch_add(bytes / MIB * takes, Relaxed);
                if part < parts {
                    admitted.permit.part_done();
                }
            }
            admitted.permit.settle(Actual { end: End::Answered, ..Actual::default() });
        }
    }

    /// Looks at a database that is well, and sums what all have in flight there.
    async fn supervise(self: Arc<Self>) {
        for turn in 0_u64.. {
            let held = self.members.iter().map(|member| member.admission.snapshot().backends[0].memory).sum();
            self.most[usize::from(self.done.load(Relaxed) > 0)].fetch_max(held, Relaxed);
            for member in self.members.iter().filter(|_| turn % 100 == 0) {
                let peak = member.admission.take_peak("main").unwrap();
                member.admission.observe("main", &Distress::NONE, peak);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// No proxy can use the fixed part of another: a tenth of the lane, over all proxies. Where all work comes to one, that tenth
/// is missing; where three or four queries fill the lane, one of them does not fit beside it, and more is missing.
const LOADS: [Load; 4] = [
    // Parts of 40 % of the budget: each is larger than the window, so that the first proves it alone.
    Load { spread: Spread::Even, least: [0.95; 2], size: (409, 409), parts: 4, part_ms: 2_400 },
    Load { spread: Spread::Even, least: [0.8; 2], size: (200, 409), parts: 1, part_ms: 2_400 },
    Load { spread: Spread::Even, least: [0.9, 0.8], size: (30, 200), parts: 1, part_ms: 1_500 },
    Load { spread: Spread::Even, least: [0.9, 0.85], size: (9, 30), parts: 1, part_ms: 1_000 },
];

#[tokio::test(start_paused = true)]
async fn heavy_work_of_a_fleet_is_nine_tenths_of_one_proxys_wherever_it_comes() {
    let latency = Duration::from_millis(2);
    let mut missed = Vec::new();
    for load in LOADS {
        let alone = Burst::run(Load { spread: Spread::One, ..load }, 1, latency).await;
        for spread in [Spread::Even, Spread::One, Spread::Moving] {
            for proxies in [2, 4, 8] {
                let fleet = Burst::run(Load { spread, ..load }, proxies, latency).await;
                let [first, most] = fleet.most.each_ref().map(|most| most.load(Relaxed) / MIB);
                assert!(most <= BUDGET / MIB, "{spread:?} {load:?} {proxies}: {most} MiB at once");
                // One that is larger than the window runs alone, beside those within the fixed parts.
                let unproven = HEAVY / 10 / MIB;
                let open = unproven.max(load.size.1) + unproven / proxies * (proxies - 1);
                assert!(first <= open, "{spread:?} {load:?} {proxies}: {first} MiB without proof");
                let ratio = fleet.done.load(Relaxed) as f64 / alone.done.load(Relaxed) as f64;
                if ratio < load.least[usize::from(!matches!(spread, Spread::Even))] {
                    missed.push((ratio, proxies, spread, load));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
