//! `lease.lua` in a real server, against its model in Rust.

use fastrand::Rng;

use super::super::{
    lease::Renewal,
    pool::{Pool, Terms},
    store::{Ask, SCRIPT, answer, numbers},
};
use super::server::Server;
use crate::base::share::{Amount, Demand, SharedWindow};

/// A request as a proxy in any state may send it.
fn request(rng: &mut Rng, seq: u64) -> Renewal {
    let amount = |rng: &mut Rng| {
        let magnitude = rng.u32(1..42);
        Amount { bytes: rng.u64(0..1 << magnitude), queries: rng.u64(0..30) }
    };
    let held = if rng.bool() { Amount::NONE } else { amount(rng) };
    let wants = if rng.u8(0..4) == 0 { held } else { held.plus(amount(rng)) };
    let claim = if rng.bool() { (rng.u64(0..3), rng.u64(0..1 << 41)) } else { (0, 0) };
    let has = held.min(amount(rng));
    Renewal {
        has,
        seq: seq.saturating_sub(u64::from(rng.u8(0..10) == 0)),
        epoch: if rng.u8(0..40) == 0 { rng.u64(0..6) } else { 0 },
        demand: Demand { held, wants, claim, weight: rng.u64(1..50) },
        load: amount(rng),
        terms: rng.u64(0..2),
        window: SharedWindow {
            cuts: rng.u64(0..3),
            cause: rng.u64(0..3),
            bytes: amount(rng).bytes,
            grown: if rng.bool() { 0 } else { amount(rng).bytes },
        },
    }
}

/// Puts something else in the place of a key that a script wrote.
pub(super) fn spoil(connection: &mut redis::Connection, key: &str, rng: &mut Rng) {
    let odd = [
        "",
        "none",
        "1 2",
        "-1 2 3 4 5 6 7 8 9 10 11 12 13",
        "nan 2 3 4 5 6 7 8 9 10 11 12 13",
        "inf 2 3 4 5 6 7 8 9 10 11 12 13",
        "1e300 2 3 4 5 6 7 8 9 10 11 12 13",
        &"1 ".repeat(1_000),
    ];
    if rng.u8(0..4) == 0 {
        redis::cmd("SET").arg(key).arg("x").exec(connection).unwrap();
    } else {
        let (field, text) = (if rng.bool() { "~" } else { "ghost" }, odd[rng.usize(..odd.len())]);
        redis::cmd("HSET").arg(key).arg(field).arg(text).exec(connection).unwrap();
    }
}

#[test]
fn the_script_agrees_with_the_model() {
    let Some(server) = Server::start("the_script_agrees_with_the_model") else { return };
    // The test's clock in place of the server's.
    let (ours, theirs) = ("{tonumber(ARGV[26]), 0}", "redis.call('TIME')");
    assert_eq!(SCRIPT.matches(theirs).count(), 1);
    let script = redis::Script::new(&SCRIPT.replace(theirs, ours));
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let (mut kept_parts, mut seats) = (0, None);
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let hold = rng.u64(0..30) * 1_000;
        let size = Amount { bytes: rng.u64(0..1 << 40), queries: rng.u64(0..60) };
        let terms = Terms { pool: size, ttl: 5_000, skew: 2_000, hold };
        let (mut pool, mut now, mut run) = (Pool::default(), 1_000_000, 1);
        for seq in 2..100 {
            // At times nobody renews for a time to live, or the clock is set back.
            now += rng.u64(0..4) + 10 * u64::from(rng.u8(0..30) == 0);
            now -= 60 * u64::from(rng.u8(0..40) == 0);
            run += u64::from(rng.u8(0..50) == 0);
            let (id, renewal) = (rng.u64(0..5), request(&mut rng, seq));
            let ask = Ask { pool: String::new(), size, hold_ms: hold, renewal };
            let mut call = script.prepare_invoke();
            // Every third pool begins beside the one before.
            let seats = seats.as_ref().filter(|_| seed % 3 == 0);
            let is_spoilt = seq > 2 && rng.u8(0..30) == 0;
            if is_spoilt {
                spoil(&mut connection, &format!("pool{seed}"), &mut rng);
                pool = Pool::default();
            } else if let Some(seats) = seats.filter(|_| pool == Pool::default()) {
                pool = Pool::beside(seats);
            }
            call.key(format!("pool{seed}"));
            if seats.is_some() {
                call.key(format!("pool{}", seed - 1));
            }
            call.arg(id);
            for number in numbers(&ask, run, terms.ttl, terms.skew) {
                call.arg(number);
            }
            let got: Vec<u64> = call.arg(now).invoke(&mut connection).unwrap();
            let mut expected = pool.renew((now * 1_000, run), &terms, id, &renewal);
            if let Some(answer) = &mut expected {
                answer.unreadable = is_spoilt;
            }
            assert_eq!(answer(&got), expected, "seed {seed}, request {seq}: {renewal:?}");
            kept_parts += u64::from(expected.is_some_and(|answer| answer.grant != renewal.demand.held));
        }
        seats = Some(pool);
    }
    assert!(kept_parts > 500, "{kept_parts} grants were more than what was held");
}

#[test]
fn a_lease_of_a_clock_that_was_ahead_ends_in_time() {
    let Some(server) = Server::start("a_lease_of_a_clock_that_was_ahead_ends_in_time") else { return };
    let script = redis::Script::new(&SCRIPT.replace("redis.call('TIME')", "{tonumber(ARGV[26]), 0}"));
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let size = Amount { bytes: 1_000, queries: 10 };
    let mut grant = |now: u64, id: u64, seq: u64| {
        let demand = Demand { held: Amount::NONE, wants: size, claim: (0, 0), weight: 1 };
        let renewal = Renewal { seq, demand, ..Renewal::default() };
        let ask = Ask { pool: String::new(), size, hold_ms: 3_000, renewal };
        let mut call = script.prepare_invoke();
        call.key("pool").arg(id);
        for number in numbers(&ask, 1, 5_000, 2_000) {
            call.arg(number);
        }
        answer(&call.arg(now).invoke::<Vec<u64>>(&mut connection).unwrap()).unwrap().grant
    };
    let (now, ahead) = (1_000_000, 3_600);
    grant(now + ahead - 8, 1, 1);
    assert_eq!(grant(now + ahead, 1, 2), size);
    // The first proxy is killed, and the clock is set right: 7 s and the 3 s for which its lease is held count from now.
    assert_eq!(grant(now, 2, 1), Amount::NONE);
    assert_eq!(grant(now + 9, 2, 2), Amount::NONE);
    assert_eq!(grant(now + 10, 2, 3), size);
}
