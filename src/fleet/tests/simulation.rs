//! Fairness between the tenants of a whole fleet, on a clock of steps: every tenant always has a query waiting at each proxy
//! that it sends to, and a proxy lets its tenants run in turn, as its queue does.

use std::collections::VecDeque;

use fastrand::Rng;

use super::super::{
    lease::{Lease, Renewal},
    pool::{Pool, Terms},
};
use crate::base::share::{Amount, Demand, SharedWindow};

/// A proxy in whose queue somebody waits renews after every step, of 100 ms.
const STEP_MS: u64 = 100;
const TERMS: Terms =
    Terms { pool: Amount { bytes: 1_000_000, queries: 1_000_000 }, ttl: 5_000, skew: 2_000, hold: 10_000 };

struct Proxy {
    lease: Lease,
    /// Its tenants, in the order of their turns, and when each had its last.
    tenants: VecDeque<(usize, u64)>,
    /// The end of each query, its tenant and its bytes.
    running: Vec<(u64, usize, u64)>,
    /// The bytes of the next query.
    next: u64,
}

impl Proxy {
    fn held(&self) -> Amount {
        let bytes = self.running.iter().map(|(_, _, bytes)| bytes).sum();
        Amount { bytes, queries: self.running.len() as u64 }
    }
}

struct Fleet {
    rng: Rng,
    pool: Pool,
    proxies: Vec<Proxy>,
    now: u64,
    /// Byte-seconds that each tenant was given.
    served: Vec<u64>,
}

impl Fleet {
    /// A fleet of which each proxy has these tenants.
    fn new(tenants: &[Vec<usize>]) -> Self {
        let proxy = |tenants: &Vec<usize>| Proxy {
            lease: Lease::default(),
            tenants: tenants.iter().map(|tenant| (*tenant, 0)).collect(),
            running: Vec::new(),
            next: 1_000,
        };
        let most = tenants.iter().flatten().max().map_or(0, |most| most + 1);
        let proxies = tenants.iter().map(proxy).collect();
        // With a store that has learned already.
        let (rng, mut pool) = (Rng::with_seed(1), Pool::default());
        pool.renew((0, 1), &TERMS, u64::MAX, &Renewal { seq: 1, ..Renewal::default() });
        Self { rng, pool, proxies, now: TERMS.ttl + TERMS.skew, served: vec![0; most] }
    }

    fn step(&mut self, at: usize) {
        let (now, proxy) = (self.now, &mut self.proxies[at]);
        proxy.running.retain(|(end, ..)| *end > now);
        let held = proxy.held();
        let weight = proxy.tenants.len() as u64;
        // Of each tenant several queries wait.
        let waiting = Amount { bytes: weight * 20_000, queries: weight * 4 };
        let claim = (now - proxy.tenants[0].1, proxy.next);
        let demand = Demand { held, wants: held.plus(waiting), claim, weight };
        let request = proxy.lease.renew(now, demand, held, SharedWindow::default());
        let answer = self.pool.renew((now, 1), &TERMS, at as u64, &request).expect("in order");
        proxy.lease.answered(now, request.seq, &answer);
        while proxy.held().bytes + proxy.next <= proxy.lease.usable(now).bytes {
            let (lasts, tenant) = (self.rng.u64(2..30) * STEP_MS, proxy.tenants[0].0);
            proxy.tenants[0].1 = now;
            proxy.tenants.rotate_left(1);
            proxy.running.push((now + lasts, tenant, proxy.next));
            self.served[tenant] += proxy.next * lasts;
            proxy.next = self.rng.u64(1_000..10_000);
        }
    }

    /// Runs for this time, and gives the bytes held at its end.
    fn run(&mut self, ms: u64) -> u64 {
        for _ in 0..ms / STEP_MS {
            (0..self.proxies.len()).for_each(|at| self.step(at));
            self.now += STEP_MS;
            assert!(self.held() <= TERMS.pool.bytes);
        }
        self.held()
    }

    fn held(&self) -> u64 {
        self.proxies.iter().map(|proxy| proxy.held().bytes).sum()
    }

    /// How many times as much the first tenant was given as the second.
    fn ratio(&self, one: usize, other: usize) -> f64 {
        self.served[one] as f64 / self.served[other] as f64
    }
}

#[test]
fn tenants_get_the_same_wherever_they_send_to() {
    // One tenant alone at a proxy, and nine at the other.
    let mut fleet = Fleet::new(&[vec![0], (1..10).collect()]);
    fleet.run(120_000);
    for tenant in 1..10 {
        assert!((0.75..1.34).contains(&fleet.ratio(0, tenant)), "{:?}", fleet.served);
    }
}

#[test]
fn a_tenant_gains_at_most_by_the_number_of_its_proxies() {
    let one_each = (1..9).collect::<Vec<_>>();
    let tenants = one_each.chunks(2).map(|own| [&[0], own].concat()).collect::<Vec<_>>();
    let mut fleet = Fleet::new(&tenants);
    fleet.run(120_000);
    for tenant in 1..9 {
        assert!((0.8..4.8).contains(&fleet.ratio(0, tenant)), "{:?}", fleet.served);
    }
}

#[test]
fn what_a_dead_proxy_held_is_used_again_and_the_pool_is_nearly_full_all_the_time() {
    let mut fleet = Fleet::new(&[vec![0, 1], vec![2, 3], vec![4, 5], vec![6, 7]]);
    assert!(fleet.run(30_000) > TERMS.pool.bytes / 100 * 8);
    for proxy in &mut fleet.proxies {
        let more: Vec<_> = proxy.tenants.iter().copied().cycle().take(20).collect();
        proxy.tenants = more.into();
    }
    let before = fleet.run(30_000);
    assert!(before > TERMS.pool.bytes / 10 * 8, "{before}");
    fleet.proxies.pop();
    let after = fleet.run(TERMS.ttl + TERMS.skew + TERMS.hold + 5_000);
    assert!(after > TERMS.pool.bytes / 10 * 8, "{after}");
}

#[test]
fn two_hundred_proxies_and_ten_thousand_tenants_use_the_pool_though_a_fair_part_holds_no_query() {
    let mut rng = Rng::with_seed(7);
    // Between one tenant and a hundred at each.
    let mut next = 0;
    let tenants: Vec<Vec<_>> = (0..200)
        .map(|_| {
            let own = next..next + rng.usize(1..100);
            next = own.end;
            own.collect()
        })
        .collect();
    let mut fleet = Fleet::new(&tenants);
    let held = fleet.run(3_000);
    assert!(held > TERMS.pool.bytes / 5 * 2, "{held} over {next} tenants");
}
