//! Interleavings of a small fleet: two proxies, a pool of two queries, a store that restarts, forgets and is rolled back,
//! messages that are lost, late and out of order, and a clock of the store that jumps. Time goes in whole units, in which
//! the time to live is 2 and the greatest jump of the clock 1. Every interleaving of a few steps is looked at, and
//! walks of many more, chosen by a seed.

use super::{
    super::{
        lease::{Answer, Lease, Renewal},
        pool::{Pool, Terms},
    },
    walk::{Machine, search, walk},
};
use crate::base::share::{Amount, Demand, SharedWindow};

const POOL: u64 = 2;
const TERMS: Terms = Terms { pool: amount(POOL), ttl: 2, skew: 1, hold: 3 };
/// Messages under way for each proxy.
const MESSAGES: usize = 2;
/// Units of time after which a walk ends.
const TIME_MAX: u64 = 40;
const FOREVER: u64 = 2 * TIME_MAX;

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

/// One step; the numbers are those of a proxy and of one of its messages.
#[derive(Clone, Copy, Debug)]
enum Step {
    Starts(usize),
    Ends(usize),
    Renews(usize, u64),
    Delivers(usize, usize),
    Loses(usize, usize),
    TimeGoes,
    ClockJumps,
    StoreForgets,
    StoreIsDumped,
    DumpIsRestored,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    /// The store's clock runs ahead by this.
    ahead: u64,
    run: u64,
    /// The pool of seats, of which every proxy renews its own before all others.
    seats: Pool,
    seat_seq: u64,
    pool: Pool,
    dump: Option<(Pool, Pool)>,
    proxies: [Proxy; 2],
    /// Times that the store may still lose its memory.
    losses: u8,
    /// The longest time of a query, or [`FOREVER`] for what is used and never comes back: that of a quota.
    hold: u64,
}

impl Machine for World {
    type Step = Step;

    fn steps(&self) -> Vec<(u32, Step)> {
        let mut steps = Vec::new();
        for (at, proxy) in self.proxies.iter().enumerate() {
            if proxy.held() < proxy.lease.usable(self.now).bytes {
                steps.push((30, Step::Starts(at)));
            }
            if !proxy.running.is_empty() && self.hold < FOREVER {
                steps.push((5, Step::Ends(at)));
            }
            if proxy.messages.len() < MESSAGES {
                steps.extend([(3, Step::Renews(at, 0)), (10, Step::Renews(at, POOL))]);
            }
            for message in 0..proxy.messages.len() {
                steps.extend([(30, Step::Delivers(at, message)), (2, Step::Loses(at, message))]);
            }
        }
        // No query outlives the longest time that one may take.
        if self.now < TIME_MAX
            && self.proxies.iter().flat_map(|proxy| &proxy.running).all(|end| *end > self.now)
        {
            steps.push((12, Step::TimeGoes));
        }
        if self.ahead < TERMS.skew {
            steps.push((1, Step::ClockJumps));
        }
        if self.losses > 0 {
            steps.extend([(1, Step::StoreForgets), (2, Step::StoreIsDumped)]);
            steps.extend(self.dump.as_ref().map(|_| (2, Step::DumpIsRestored)));
        }
        steps
    }

    fn step(&mut self, step: Step) {
        let (now, held) = (self.now, |proxy: &Proxy| amount(proxy.held()));
        match step {
            Step::Starts(at) => self.proxies[at].running.push(now + self.hold),
            Step::Ends(at) => _ = self.proxies[at].running.remove(0),
            Step::Renews(at, wants) => {
                let proxy = &mut self.proxies[at];
                let held = held(proxy);
                let demand = Demand { held, wants: amount(wants).max(held), claim: (0, 0), weight: 1 };
                let request = proxy.lease.renew(now, demand, Amount::NONE, SharedWindow::default());
                proxy.messages.push(Message::Request(request));
            }
            Step::Delivers(at, message) => self.deliver(at, message),
            Step::Loses(at, message) => _ = self.proxies[at].messages.remove(message),
            Step::TimeGoes => self.now += 1,
            Step::ClockJumps => self.ahead += 1,
            Step::StoreForgets => self.restart((Pool::default(), Pool::default())),
            Step::StoreIsDumped => self.dump = Some((self.seats.clone(), self.pool.clone())),
            Step::DumpIsRestored => {
                let dump = self.dump.take().unwrap_or_default();
                self.restart(dump);
            }
        }
    }
}

impl World {
    /// With a store that has learned already, and a pool that nobody asked for yet.
    fn new(losses: u8) -> Self {
        let mut seats = Pool::default();
        seats.renew((0, 1), &TERMS, 9, &Renewal { seq: 1, ..Renewal::default() });
        let now = TERMS.ttl + TERMS.skew;
        let (pool, proxies) = (Pool::default(), Default::default());
        Self {
            now,
            ahead: 0,
            run: 1,
            seats,
            seat_seq: 1,
            pool,
            dump: None,
            proxies,
            losses,
            hold: TERMS.hold,
        }
    }

    fn restart(&mut self, dump: (Pool, Pool)) {
        ((self.seats, self.pool), self.run, self.losses) = (dump, self.run + 1, self.losses - 1);
    }

    fn deliver(&mut self, at: usize, message: usize) {
        match self.proxies[at].messages.remove(message) {
            Message::Request(request) => {
                let (at_store, id) = ((self.now + self.ahead, self.run), at as u64);
                self.seat_seq += 1;
                let seat = Renewal { seq: self.seat_seq, ..Renewal::default() };
                self.seats.renew(at_store, &TERMS, id, &seat);
                if self.pool == Pool::default() {
                    self.pool = Pool::beside(&self.seats);
                }
                let answer = self.pool.renew(at_store, &Terms { hold: self.hold, ..TERMS }, id, &request);
                self.proxies[at].messages.extend(answer.map(|answer| Message::Answer(request.seq, answer)));
            }
            Message::Answer(seq, answer) => _ = self.proxies[at].lease.answered(self.now, seq, &answer),
        }
    }

    /// What is leased now, over all proxies.
    fn leased(&self) -> u64 {
        self.proxies.iter().map(|proxy| proxy.lease.usable(self.now).bytes).sum()
    }

    /// What runs now, over all proxies.
    fn running(&self) -> u64 {
        self.proxies.iter().map(Proxy::held).sum()
    }
}

fn check(start: &World, sum: fn(&World) -> u64) {
    search(start, 10_000, sum, POOL);
    let full = (0..4_000).filter(|seed| walk(start, *seed, 150, sum, POOL) == POOL).count();
    assert!(full > 3_500, "{full} walks used all of the pool");
}

#[test]
fn no_interleaving_uses_more_than_a_quota_while_the_store_keeps_its_memory() {
    check(&World { hold: FOREVER, ..World::new(0) }, World::running);
}

#[test]
fn no_interleaving_grants_more_than_the_pool() {
    check(&World::new(3), World::leased);
}

#[test]
fn no_interleaving_runs_more_than_the_pool_while_the_store_keeps_its_memory() {
    check(&World::new(0), World::running);
}
