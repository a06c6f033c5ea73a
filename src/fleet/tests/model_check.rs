//! Every interleaving of a small fleet: two proxies, a pool of two queries, a store that restarts, forgets and is rolled
//! back, messages that are lost, late and out of order, and a clock of the store that jumps. Time goes in whole units, in
//! which the time to live is 2 and the greatest jump of the clock 1.

use std::collections::{HashSet, VecDeque};

use super::super::{
    lease::{Answer, Lease, Others, Renewal},
    pool::{Pool, Terms},
};
use crate::base::share::{Amount, Demand};

const POOL: u64 = 2;
const TERMS: Terms = Terms { pool: amount(POOL), ttl: 2, skew: 1, hold: 1 };
/// Messages under way for each proxy.
const MESSAGES: usize = 2;
/// Units of time that are looked at.
const TIME_MAX: u64 = 12;

const fn amount(n: u64) -> Amount {
    Amount { bytes: n, queries: n }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Request(Renewal),
    Answer(u64, Answer),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Proxy {
    lease: Lease,
    /// When each of its queries has to be over.
    running: Vec<u64>,
    messages: Vec<Message>,
}

impl Proxy {
    fn held(&self) -> u64 {
        self.running.len() as u64
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    /// The store's clock runs ahead by this.
    ahead: u64,
    run: u64,
    pool: Pool,
    dump: Option<Pool>,
    proxies: [Proxy; 2],
    /// Times that the store may still lose its memory.
    losses: u8,
}

impl World {
    /// With a store that has learned already.
    fn new(losses: u8) -> Self {
        let mut pool = Pool::default();
        pool.renew((0, 1), &TERMS, 9, &Renewal { seq: 1, ..Renewal::default() });
        let now = TERMS.ttl + TERMS.skew;
        Self { now, ahead: 0, run: 1, pool, dump: None, proxies: Default::default(), losses }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// What may happen next.
    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..2 {
            self.proxy_acts(at, &mut all);
            for message in 0..self.proxies[at].messages.len() {
                all.push(self.with(|world| _ = world.proxies[at].messages.remove(message)));
                all.push(self.with(|world| world.deliver(at, message)));
            }
        }
        // No query outlives the longest time that one may take.
        if self.now < TIME_MAX && self.proxies.iter().all(|proxy| proxy.running.iter().all(|end| *end > self.now)) {
            all.push(self.with(|world| world.now += 1));
        }
        if self.ahead < TERMS.skew {
            all.push(self.with(|world| world.ahead += 1));
        }
        if self.losses > 0 {
            let lose = |pool: Pool| {
                self.with(|world| {
                    (world.pool, world.run, world.losses) = (pool, world.run + 1, world.losses - 1);
                })
            };
            all.push(lose(Pool::default()));
            all.extend(self.dump.clone().map(lose));
            if self.dump.is_none() {
                all.push(self.with(|world| world.dump = Some(world.pool.clone())));
            }
        }
        all
    }

    fn proxy_acts(&self, at: usize, all: &mut Vec<Self>) {
        let proxy = &self.proxies[at];
        if proxy.held() < proxy.lease.usable(self.now).bytes {
            all.push(self.with(|world| {
                let end = world.now + TERMS.hold;
                world.proxies[at].running.push(end);
            }));
        }
        if !proxy.running.is_empty() {
            all.push(self.with(|world| _ = world.proxies[at].running.remove(0)));
        }
        if proxy.messages.len() < MESSAGES {
            for wants in [0, POOL] {
                all.push(self.with(|world| {
                    let held = world.proxies[at].held();
                    let demand = Demand {
                        held: amount(held),
                        wants: amount(wants.max(held)),
                        claim: (0, 0),
                        weight: 1,
                    };
                    let proxy = &mut world.proxies[at];
                    let request = proxy.lease.renew(self.now, demand, Others::NONE);
                    proxy.messages.push(Message::Request(request));
                }));
            }
        }
    }

    fn deliver(&mut self, at: usize, message: usize) {
        match self.proxies[at].messages.remove(message) {
            Message::Request(request) => {
                let answer = self.pool.renew((self.now + self.ahead, self.run), &TERMS, at as u64, &request);
                self.proxies[at].messages.extend(answer.map(|answer| Message::Answer(request.seq, answer)));
            }
            Message::Answer(seq, answer) => _ = self.proxies[at].lease.answered(self.now, seq, &answer),
        }
    }

    /// Leases that are good now, and queries in flight.
    fn sums(&self) -> (u64, u64) {
        let sum = |of: &dyn Fn(&Proxy) -> u64| self.proxies.iter().map(of).sum();
        (sum(&|proxy| proxy.lease.usable(self.now).bytes), sum(&Proxy::held))
    }
}

/// Looks at up to `most` states, those first that take the fewest steps; gives their number.
fn search(start: World, most: usize, wrong: impl Fn(&World) -> bool) -> usize {
    let (mut seen, mut queue) = (HashSet::new(), VecDeque::from([start]));
    while let Some(world) = queue.pop_front() {
        assert!(!wrong(&world), "{world:#?}");
        for next in world.next() {
            if seen.len() < most && seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    seen.len()
}

/// Walks at random, far beyond the steps that a search reaches.
fn walk(start: &World, seed: u64, steps: usize, wrong: impl Fn(&World) -> bool) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = start.clone();
    for _ in 0..steps {
        let Some(next) = rng.choice(world.next()) else { return };
        world = next;
        assert!(!wrong(&world), "seed {seed}: {world:#?}");
    }
}

const STATES: usize = 25_000;
const WALKS: u64 = 600;

#[test]
fn no_interleaving_grants_more_than_the_pool() {
    let wrong = |world: &World| world.sums().0 > POOL;
    assert_eq!(search(World::new(2), STATES, wrong), STATES);
    (0..WALKS).for_each(|seed| walk(&World::new(2), seed, 120, wrong));
}

#[test]
fn no_interleaving_runs_more_than_the_pool_while_the_store_keeps_its_memory() {
    let wrong = |world: &World| world.sums().1 > POOL;
    assert_eq!(search(World::new(0), STATES, wrong), STATES);
    (0..WALKS).for_each(|seed| walk(&World::new(0), seed, 120, wrong));
}
