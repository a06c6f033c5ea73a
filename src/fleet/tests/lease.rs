//! The rules of leases, one by one.

use super::super::{
    lease::{Answer, Lease},
    pool::{Pool, Terms},
};
use crate::base::share::{Amount, Demand, SharedWindow};

const TERMS: Terms =
    Terms { pool: Amount { bytes: 1_000, queries: 100 }, ttl: 5_000, skew: 2_000, hold: 60_000 };

fn amount(bytes: u64) -> Amount {
    Amount { bytes, queries: bytes.div_ceil(10) }
}

fn demand(held: u64, wants: u64) -> Demand {
    Demand { held: amount(held), wants: amount(wants), claim: (0, 0), weight: 1 }
}

/// A store past its learning phase, and a clock.
struct Fleet {
    pool: Pool,
    leases: [Lease; 4],
    now: u64,
    run: u64,
}

impl Fleet {
    fn new() -> Self {
        let mut fleet = Self { pool: Pool::default(), leases: [Lease::default(); 4], now: 0, run: 7 };
        fleet.renew(0, demand(0, 0));
        fleet.now = TERMS.ttl + TERMS.skew;
        fleet
    }

    /// One round trip; gives the answer.
    fn renew(&mut self, proxy: usize, demand: Demand) -> Answer {
        let request = self.leases[proxy].renew(self.now, demand, Amount::NONE, SharedWindow::default());
        let answer = self.pool.renew((self.now, self.run), &TERMS, proxy as u64, &request).expect("in order");
        assert!(self.leases[proxy].answered(self.now, request.seq, &answer));
        answer
    }

    fn usable(&self, proxy: usize) -> u64 {
        self.leases[proxy].usable(self.now).bytes
    }
}

#[test]
fn who_asks_alone_gets_all_that_it_wants_and_two_share() {
    let mut fleet = Fleet::new();
    assert_eq!(fleet.renew(0, demand(0, 5_000)).grant.bytes, 1_000);
    assert_eq!(fleet.renew(1, demand(0, 5_000)).grant.bytes, 0, "all of it is given away");
    // The unused part of the first's lease comes back at its next renewal, the used part as its queries end.
    assert_eq!(fleet.renew(0, demand(300, 5_000)).grant.bytes, 500);
    assert_eq!(fleet.renew(1, demand(0, 5_000)).grant.bytes, 500);
    let heavy = Demand { weight: 3, ..demand(500, 5_000) };
    assert_eq!(fleet.renew(1, heavy).grant.bytes, 500);
    assert_eq!(fleet.renew(0, demand(500, 5_000)).grant.bytes, 250, "it holds more, and begins nothing new");
    assert_eq!(fleet.renew(1, heavy).grant.bytes, 500, "what it holds counts");
    assert_eq!(fleet.renew(0, demand(200, 5_000)).grant.bytes, 250);
    assert_eq!(fleet.renew(1, heavy).grant.bytes, 750);
    assert_eq!(fleet.renew(0, demand(0, 0)).grant.bytes, 0);
    assert_eq!(fleet.renew(1, demand(700, 5_000)).grant.bytes, 1_000);
}

#[test]
fn parts_go_by_weight_and_what_one_does_not_want_is_the_others() {
    let mut fleet = Fleet::new();
    let heavy = Demand { weight: 3, ..demand(0, 5_000) };
    for _ in 0..2 {
        fleet.renew(0, demand(0, 5_000));
        fleet.renew(1, heavy);
        fleet.renew(2, demand(0, 200));
    }
    assert_eq!([0, 1, 2].map(|proxy| fleet.usable(proxy)), [200, 600, 200]);
}

#[test]
fn the_heaviest_query_needs_the_pool_and_not_a_part_of_it() {
    let mut fleet = Fleet::new();
    for proxy in [0, 1, 2] {
        fleet.renew(proxy, demand(0, 300));
    }
    let heaviest = Demand { claim: (100, 900), ..demand(0, 900) };
    assert_eq!(fleet.renew(3, heaviest).grant.bytes, 100);
    // Others have queries of that kind as well, and come later.
    let later = Demand { claim: (9, 1_200), ..demand(300, 1_200) };
    for (proxy, left) in [(0, 33), (1, 33), (2, 34)] {
        fleet.now += 1;
        assert_eq!(fleet.renew(proxy, later).grant.bytes, left, "it holds 300, and begins nothing new");
    }
    let ended = Demand { claim: (9, 900), ..demand(0, 900) };
    for proxy in [0, 1, 2] {
        assert_eq!(fleet.renew(proxy, ended).grant.bytes, 0, "a part would be of no use");
    }
    assert_eq!(fleet.renew(3, heaviest).grant.bytes, 900);
    // It runs, and its successor takes the place behind the others.
    let next = Demand { claim: (2, 1_800), ..demand(900, 1_800) };
    fleet.now += 1;
    assert_eq!(fleet.renew(3, next).grant.bytes, 100);
    let next = Demand { claim: (2, 900), ..demand(0, 900) };
    for _ in 0..2 {
        for proxy in 0..3 {
            fleet.renew(proxy, ended);
        }
        fleet.renew(3, next);
    }
    assert_eq!(fleet.renew(0, ended).grant.bytes, 900, "the one that has waited longest");
}

#[test]
fn queries_that_no_fair_part_holds_run_beside_each_other_as_far_as_the_pool_goes() {
    let mut fleet = Fleet::new();
    // Each runs one of 130 and has the next waiting: no fair part of 250 holds two.
    let began = fleet.now;
    for _ in 0..2 {
        for proxy in 0..4 {
            let waited = fleet.now - began - proxy as u64;
            fleet.renew(proxy, Demand { claim: (waited, 260), ..demand(130, 900) });
            fleet.now += 1;
        }
    }
    assert_eq!([0, 1, 2, 3].map(|proxy| fleet.usable(proxy)), [260, 260, 260, 130], "seven of 130");
}

#[test]
fn a_window_is_replaced_by_a_later_cut_grown_by_all_and_forgotten_with_the_last_proxy() {
    let mut fleet = Fleet::new();
    let say = |fleet: &mut Fleet, proxy: usize, cuts: u64, bytes: u64, grown: u64| {
        let window = SharedWindow { cuts, cause: cuts, bytes, grown };
        let request = fleet.leases[proxy].renew(fleet.now, demand(0, 0), amount(10), window);
        let answer = fleet.pool.renew((fleet.now, fleet.run), &TERMS, proxy as u64, &request).unwrap().window;
        (answer.cuts, answer.bytes)
    };
    assert_eq!(say(&mut fleet, 0, 0, 150, 50), (0, 150));
    assert_eq!(say(&mut fleet, 1, 0, 150, 50), (0, 200), "two growths add up");
    assert_eq!(say(&mut fleet, 2, 0, 100, 0), (0, 200), "and a new proxy has the proof of all");
    assert_eq!(say(&mut fleet, 0, 1, 80, 0), (1, 80));
    assert_eq!(say(&mut fleet, 1, 0, 300, 100), (1, 80), "it did not know of the cut");
    assert_eq!(say(&mut fleet, 1, 1, 90, 10), (1, 90));
    fleet.run += 1;
    assert_eq!(say(&mut fleet, 3, 0, 100, 0), (0, 100), "a store without memory has no window");
    assert_eq!(say(&mut fleet, 1, 1, 90, 0), (1, 90), "until a proxy that has one comes");
    fleet.now += TERMS.ttl + TERMS.skew;
    assert_eq!(say(&mut fleet, 3, 0, 100, 0), (0, 100), "nobody has renewed for so long");
}

#[test]
fn a_lost_answer_leaves_what_was_held_and_only_until_the_lease_ends() {
    let mut fleet = Fleet::new();
    fleet.renew(0, demand(0, 800));
    let request = fleet.leases[0].renew(fleet.now, demand(300, 800), Amount::NONE, SharedWindow::default());
    assert_eq!(fleet.usable(0), 300, "before the answer no more than what was promised");
    let late = fleet.pool.renew((fleet.now, 7), &TERMS, 0, &request).unwrap();
    fleet.now += TERMS.ttl;
    assert_eq!(fleet.usable(0), 0);
    assert!(!fleet.leases[0].answered(fleet.now, request.seq, &late), "its time is over");
    // The store keeps the grant as long as a query may run.
    assert_eq!(fleet.renew(1, demand(0, 1_000)).grant.bytes, 200);
    fleet.now += TERMS.skew + TERMS.hold;
    assert_eq!(fleet.renew(1, demand(0, 1_000)).grant.bytes, 1_000);
}

#[test]
fn requests_that_come_late_and_answers_of_older_epochs_are_refused() {
    let mut fleet = Fleet::new();
    let late = fleet.leases[0].renew(fleet.now, demand(0, 100), Amount::NONE, SharedWindow::default());
    fleet.renew(0, demand(0, 800));
    assert_eq!(fleet.pool.renew((fleet.now, 7), &TERMS, 0, &late), None);
    let old = fleet.pool.clone();
    fleet.run = 8;
    assert!(fleet.renew(0, demand(800, 800)).learning, "another run of the store");
    // The dump of an older state in the run of now: its epoch is behind the one that the proxy saw.
    fleet.pool = old;
    fleet.run = 7;
    let answer = fleet.renew(0, demand(800, 800));
    assert_eq!((answer.learning, answer.epoch), (true, 3));
    let request = fleet.leases[0].renew(fleet.now, demand(800, 800), Amount::NONE, SharedWindow::default());
    assert!(!fleet.leases[0].answered(fleet.now, request.seq, &Answer { epoch: 2, ..answer }));
}

#[test]
fn a_store_without_memory_grants_only_what_is_held_for_one_time_to_live() {
    let mut fleet = Fleet::new();
    fleet.renew(0, demand(0, 600));
    (fleet.pool, fleet.run) = (Pool::default(), 8);
    let answer = fleet.renew(1, demand(0, 1_000));
    assert_eq!((answer.grant, answer.learning), (Amount::NONE, true));
    assert_eq!(fleet.renew(0, demand(400, 900)).grant.bytes, 400);
    fleet.now += TERMS.ttl + TERMS.skew - 1;
    fleet.renew(0, demand(400, 900));
    assert!(fleet.renew(1, demand(0, 1_000)).learning);
    fleet.now += TERMS.ttl;
    assert_eq!(fleet.renew(1, demand(0, 1_000)).grant.bytes, 500);
}
