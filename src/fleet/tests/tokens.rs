//! Shared rates: interleavings of two proxies that draw tokens from a store with every fault, and the script beside its model.
//!
//! A meter counts the tokens that were spent, less those that have accrued: by time, and by jumps of the store's clock. It
//! is above the count if and only if more was spent in some time than the count and the rate over that time.

use fastrand::Rng;

use super::{
    super::{
        bucket::{Bucket, Terms},
        lease::Renewal,
        pool::{Pool, Terms as PoolTerms},
        store::{AskTokens, TOKENS, drawn, token_numbers},
        tokens::{Draw, Drawn, Draws},
    },
    script::spoil,
    server::Server,
    walk::{Machine, search, walk},
};
use crate::base::share::{Amount, TokenDemand};

/// One token accrues in each unit of time. Those of a count that lasts for longer than a jump of the clock show what the jump
/// alone gives away.
const TERMS: [Terms; 2] =
    [Terms { count: 4, per: 4, ttl: 2, skew: 1 }, Terms { count: 4, per: 16, ttl: 3, skew: 2 }];

/// The pool of seats beside a rate.
const fn seats(terms: &Terms) -> PoolTerms {
    PoolTerms { pool: Amount { bytes: 2, queries: 2 }, ttl: terms.ttl, skew: terms.skew, hold: 0 }
}
/// Messages under way for each proxy.
const MESSAGES: usize = 2;

#[derive(Clone, Debug)]
enum Message {
    Request(Draw),
    Answer(u64, Drawn),
}

#[derive(Clone, Debug, Default)]
struct Proxy {
    draws: Draws,
    tokens: u64,
    until: u64,
    messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Spends(usize),
    Asks(usize, u64, u64),
    Delivers(usize, usize),
    Loses(usize, usize),
    TimeGoes,
    ClockJumps,
    StoreForgets,
    StoreIsDumped,
    DumpIsRestored,
}

#[derive(Clone, Debug)]
struct World {
    now: u64,
    ahead: u64,
    run: u64,
    seats: Pool,
    seat_seq: u64,
    bucket: Bucket,
    dump: Option<(Pool, Bucket)>,
    proxies: [Proxy; 2],
    terms: Terms,
    /// A token counts for the time of the whole count, and each unit of time takes the count away.
    meter: u64,
    losses: u8,
}

impl World {
    fn new(terms: Terms, losses: u8) -> Self {
        let mut seats = Pool::default();
        seats.renew((0, 1), &self::seats(&terms), 9, &Renewal { seq: 1, ..Renewal::default() });
        let (bucket, proxies) = (Bucket::default(), Default::default());
        // Full already.
        let now = terms.ttl + terms.skew + terms.per;
        let (ahead, run, seat_seq, dump, meter) = (0, 1, 1, None, 0);
        Self { now, ahead, run, seats, seat_seq, bucket, dump, proxies, terms, meter, losses }
    }

    fn usable(&self, at: usize) -> u64 {
        let proxy = &self.proxies[at];
        if self.now < proxy.until { proxy.tokens } else { 0 }
    }

    /// The meter after one more unit of time.
    const fn accrued(&self) -> u64 {
        self.meter.saturating_sub(self.terms.count)
    }

    fn deliver(&mut self, at: usize, message: usize) {
        let usable = self.usable(at);
        match self.proxies[at].messages.remove(message) {
            Message::Request(request) => {
                let now = self.now + self.ahead;
                self.seat_seq += 1;
                let seat = Renewal { seq: self.seat_seq, ..Renewal::default() };
                self.seats.renew((now, self.run), &seats(&self.terms), at as u64, &seat);
                let answer = self.bucket.draw(now, &self.seats, &self.terms, at as u64, &request);
                self.proxies[at].messages.extend(answer.map(|answer| Message::Answer(request.seq, answer)));
            }
            Message::Answer(seq, answer) => {
                let proxy = &mut self.proxies[at];
                if let Some((grant, until)) = proxy.draws.answered(self.now, seq, &answer) {
                    (proxy.tokens, proxy.until) = (usable + grant, until);
                }
            }
        }
    }
}

impl Machine for World {
    type Step = Step;

    fn steps(&self) -> Vec<(u32, Step)> {
        let mut steps = vec![(12, Step::TimeGoes)];
        for (at, proxy) in self.proxies.iter().enumerate() {
            if self.usable(at) > 0 {
                steps.push((20, Step::Spends(at)));
            }
            if proxy.messages.len() < MESSAGES {
                steps.extend([
                    (3, Step::Asks(at, 0, 0)),
                    (8, Step::Asks(at, 4, 0)),
                    (3, Step::Asks(at, 1, 4)),
                ]);
            }
            for message in 0..proxy.messages.len() {
                steps.extend([(30, Step::Delivers(at, message)), (2, Step::Loses(at, message))]);
            }
        }
        if self.ahead < self.terms.skew {
            steps.push((1, Step::ClockJumps));
        }
        if self.losses > 0 {
            steps.extend([(1, Step::StoreForgets), (2, Step::StoreIsDumped)]);
            steps.extend(self.dump.as_ref().map(|_| (2, Step::DumpIsRestored)));
        }
        steps
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Spends(at) => {
                self.proxies[at].tokens = self.usable(at) - 1;
                self.meter += self.terms.per;
            }
            Step::Asks(at, wants, claim) => {
                let (now, demand) = (self.now, TokenDemand { stock: self.usable(at), wants, claim });
                let request = self.proxies[at].draws.ask(now, demand);
                self.proxies[at].messages.push(Message::Request(request));
            }
            Step::Delivers(at, message) => self.deliver(at, message),
            Step::Loses(at, message) => _ = self.proxies[at].messages.remove(message),
            Step::TimeGoes => (self.now, self.meter) = (self.now + 1, self.accrued()),
            Step::ClockJumps => (self.ahead, self.meter) = (self.ahead + 1, self.accrued()),
            Step::StoreForgets => {
                (self.seats, self.bucket, self.losses) =
                    (Pool::default(), Bucket::default(), self.losses - 1);
            }
            Step::StoreIsDumped => self.dump = Some((self.seats.clone(), self.bucket.clone())),
            Step::DumpIsRestored => {
                if let Some(dump) = self.dump.take() {
                    ((self.seats, self.bucket), self.run, self.losses) =
                        (dump, self.run + 1, self.losses - 1);
                }
            }
        }
    }
}

#[test]
fn no_interleaving_spends_more_than_the_rate_in_any_time() {
    for (terms, losses) in TERMS.into_iter().flat_map(|terms| [(terms, 0), (terms, 3)]) {
        let (start, bound) = (World::new(terms, losses), terms.count * terms.per);
        let spent = |world: &World| world.meter;
        search(&start, 10_000, spent, bound);
        let full = (0..4_000).filter(|seed| walk(&start, *seed, 150, spent, bound) == bound).count();
        assert!(full > 300, "{terms:?}: {full} walks spent the whole count at once");
    }
}

#[test]
fn all_that_accrues_is_given_to_whom_uses_it_and_a_large_claim_is_met_as_a_whole() {
    let terms = Terms { count: 1_000, per: 10_000, ttl: 5_000, skew: 2_000 };
    let short = seats(&TERMS[0]);
    let (mut seats, mut bucket, mut draws) = (Pool::default(), Bucket::default(), [Draws::default(); 2]);
    let mut draw = |now: u64, at: usize, demand: TokenDemand| {
        seats.renew((now, 1), &short, 0, &Renewal { seq: now, ..Renewal::default() });
        let request = draws[at].ask(now, demand);
        bucket.draw(now, &seats, &terms, at as u64, &request).unwrap().grant
    };
    draw(1, 0, TokenDemand::default());
    // The store learns for as long as tokens may be out that it does not know of, and fills then.
    let began = short.ttl + short.skew + 1;
    let mut now = began + terms.per;
    assert_eq!(draw(now, 0, TokenDemand { stock: 0, wants: 100, claim: 950 }), 950);
    let mut spent = 0;
    for _ in 0..20 {
        now += 1_000;
        spent += draw(now, 0, TokenDemand { stock: 0, wants: 200, claim: 0 });
    }
    assert_eq!(
        spent,
        50 + 19 * 100,
        "what was left, and 100 in each second but the first, when 950 were out"
    );
    now += 5_000;
    assert_eq!(
        draw(now, 1, TokenDemand { stock: 0, wants: 0, claim: 600 }),
        0,
        "it takes no part of what it needs"
    );
    assert_eq!(draw(now, 0, TokenDemand { stock: 0, wants: 200, claim: 0 }), 200);
    now += 3_000;
    assert_eq!(draw(now, 1, TokenDemand { stock: 0, wants: 0, claim: 600 }), 600);
}

#[test]
fn the_script_for_tokens_agrees_with_the_model() {
    let Some(server) = Server::start("the_script_for_tokens_agrees_with_the_model") else { return };
    let (ours, theirs) = ("{tonumber(ARGV[10]), 0}", "redis.call('TIME')");
    assert_eq!(TOKENS.matches(theirs).count(), 1);
    let script = redis::Script::new(&TOKENS.replace(theirs, ours));
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut given = 0;
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let magnitude = rng.u32(1..40);
        let (count, per) = (1 + rng.u64(0..1 << magnitude), 1_000 * rng.u64(1..100));
        let terms = Terms { count, per, ttl: 5_000, skew: 2_000 };
        let (mut bucket, mut seats, mut now, mut run) = (Bucket::default(), Pool::default(), 1_000_000, 1);
        for seq in 2..100 {
            now = now + rng.u64(0..4) - 60 * u64::from(rng.u8(0..40) == 0);
            run += u64::from(rng.u8(0..50) == 0);
            seats.renew((now * 1_000, run), &self::seats(&terms), 1, &Renewal { seq, ..Renewal::default() });
            let (epoch, learning) = seats.memory();
            let text = format!("{epoch} {run} {learning}");
            redis::cmd("HSET").arg(format!("seats{seed}")).arg("~").arg(text).exec(&mut connection).unwrap();
            let amount = |rng: &mut Rng| if rng.bool() { 0 } else { rng.u64(0..=count) };
            let demand =
                TokenDemand { stock: amount(&mut rng), wants: amount(&mut rng), claim: amount(&mut rng) };
            let draw = Draw { seq: seq - u64::from(rng.u8(0..10) == 0), demand };
            let ask = AskTokens { bucket: String::new(), count, per_ms: per, draw };
            let id = rng.u64(0..4);
            let mut call = script.prepare_invoke();
            call.key(format!("rate{seed}")).key(format!("seats{seed}")).arg(id);
            for number in token_numbers(&ask, terms.ttl, terms.skew) {
                call.arg(number);
            }
            let is_spoilt = rng.u8(0..30) == 0;
            if is_spoilt {
                spoil(&mut connection, &format!("rate{seed}"), &mut rng);
                bucket = Bucket::unreadable(now * 1_000, &seats, &terms);
            }
            let got: Vec<u64> = call.arg(now).invoke(&mut connection).unwrap();
            let mut expected = bucket.draw(now * 1_000, &seats, &terms, id, &draw);
            if let Some(drawn) = &mut expected {
                drawn.unreadable = is_spoilt;
            }
            assert_eq!(drawn(&got), expected, "seed {seed}, request {seq}: {draw:?}");
            given += u64::from(expected.is_some_and(|answer| answer.grant > 0));
        }
    }
    assert!(given > 300, "tokens were given {given} times");
}
