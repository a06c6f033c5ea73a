//! What the answers to forwarded queries say, and what they must not say.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::super::{Answer, Outcome, Settings, Signal, answers::Answers};
use crate::base::{Confidence, ErrorKind, Estimate};

/// Answers on a timeline of their own.
struct Client {
    answers: Answers,
    now: Instant,
    rng: Rng,
}

impl Client {
    fn new() -> Self {
        Self { answers: Answers::default(), now: Instant::now(), rng: Rng::with_seed(3) }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn answer(&mut self, outcome: Outcome) {
        self.answers.add(&Answer { outcome, took: Duration::ZERO, cost: None, waited: false }, self.now);
    }

    /// `n` queries over as many tenths of a second, a share of which fails.
    fn failing(&mut self, n: usize, share: f64) {
        for i in 0..n {
            self.pass(0.1);
            let fails = (i as f64 * share).fract() < share;
            self.answer(if fails { Outcome::Failed } else { Outcome::Answered });
        }
    }

    /// A query of so many samples, at so many nanoseconds each and up to half as many more, `slower` times as slow.
    fn reads(&mut self, samples: u64, nanos: f64, slower: f64) {
        let took = (0.002 + samples as f64 * nanos * 1e-9) * slower * (1.0 + 0.5 * self.rng.f64());
        let cost = Estimate::new(samples, Confidence::Exact);
        let answer = Answer {
            outcome: Outcome::Answered,
            took: Duration::from_secs_f64(took),
            cost: Some(cost),
            waited: false,
        };
        self.answers.add(&answer, self.now);
    }

    fn says(&mut self, signal: Signal) -> Option<f64> {
        let readings = self.answers.read(&Settings::default(), self.now);
        readings.into_iter().find(|reading| reading.signal == signal).map(|reading| reading.pressure)
    }
}

#[test]
fn outcomes_blame_who_is_to_blame() {
    use Outcome::{Answered, Failed, Neither};
    for (answer, impatient, outcome) in [
        (Ok(200), false, Answered),
        (Ok(204), true, Answered),
        (Ok(400), false, Neither),
        (Ok(422), false, Neither),
        (Ok(429), false, Neither),
        (Ok(500), false, Failed),
        (Ok(501), false, Neither),
        (Ok(503), false, Failed),
        (Ok(503), true, Neither),
        (Err(ErrorKind::UpstreamTimeout), false, Failed),
        (Err(ErrorKind::UpstreamTimeout), true, Neither),
        (Err(ErrorKind::UpstreamDead), false, Neither),
    ] {
        assert_eq!(Outcome::of(answer, impatient), outcome, "{answer:?} {impatient}");
    }
}

#[test]
fn failures_count_as_a_share_and_not_when_they_are_few() {
    let errors = |n, share| {
        let mut client = Client::new();
        client.failing(n, share);
        client.says(Signal::Errors).unwrap()
    };
    assert_eq!(errors(19, 1.0), 0.0);
    assert_eq!(errors(20, 1.0), 0.97);
    assert!((errors(200, 0.1) - 0.2).abs() < 0.02, "{}", errors(200, 0.1));
    assert_eq!(errors(200, 0.6), 0.97);
    let mut client = Client::new();
    client.failing(100, 1.0);
    for _ in 0..10_000 {
        client.answer(Outcome::Neither);
    }
    assert_eq!(client.says(Signal::Errors), Some(0.97), "a client's mistakes hide nothing");
    client.pass(31.0);
    assert_eq!(client.says(Signal::Errors), Some(0.0), "and it is forgotten");
    for _ in 0..10_000 {
        client.answer(Outcome::Neither);
    }
    assert_eq!(client.says(Signal::Errors), Some(0.0));
}

#[test]
fn waits_inside_the_backend_count_where_it_tells() {
    let mut client = Client::new();
    client.failing(100, 0.0);
    assert_eq!(client.says(Signal::Waited), None);
    for _ in 0..50 {
        let answer = Answer { outcome: Outcome::Answered, took: Duration::ZERO, cost: None, waited: true };
        client.answers.add(&answer, client.now);
    }
    let waited = client.says(Signal::Waited).unwrap();
    assert!(waited > 0.6 && waited < 0.7, "{waited}");
}

#[test]
fn another_mix_of_queries_is_no_distress_but_slowness_is() {
    let mut client = Client::new();
    let sizes = [1_000, 300_000, 4_000_000, 40_000_000, 400_000_000];
    let nanos = |size| if size > 10_000_000 { 120.0 } else { 30.0 };
    let mut worst: f64 = 0.0;
    // Light ones for a while, then heavy ones, then all together; the heavier the slower, each in its way.
    for phase in [&sizes[..2], &sizes[3..], &sizes[..], &sizes[4..], &sizes[..1]] {
        for i in 0..1_200 {
            client.pass(0.1);
            let size = phase[i % phase.len()];
            client.reads(size, nanos(size), 1.0);
            worst = worst.max(client.says(Signal::Latency).unwrap());
        }
    }
    assert!(worst < 0.2, "{worst}");
    // Everything takes twenty times as long; the time that nobody feels takes a little off that.
    for i in 0..300 {
        client.pass(0.1);
        let size = sizes[2 + i % 3];
        client.reads(size, nanos(size), 20.0);
    }
    let slow = client.says(Signal::Latency).unwrap();
    assert!(slow > 0.85, "{slow}");
    // Nobody asks any more: there is nothing to say.
    client.pass(120.0);
    assert_eq!(client.says(Signal::Latency), Some(0.0));
}

#[test]
fn what_nobody_feels_does_not_count() {
    let mut client = Client::new();
    for slower in [1.0, 8.0] {
        for _ in 0..600 {
            client.pass(0.1);
            client.reads(1_000, 40.0, slower);
        }
    }
    assert!(client.says(Signal::Latency).unwrap() < 0.2);
}

#[test]
fn distress_is_not_usual_within_minutes_but_a_slower_disk_is_within_hours() {
    let mut client = Client::new();
    let minutes = |client: &mut Client, minutes: usize, slower| {
        for _ in 0..minutes * 60 {
            client.pass(1.0);
            client.reads(10_000_000, 40.0, slower);
            client.says(Signal::Latency);
        }
        client.says(Signal::Latency).unwrap()
    };
    assert!(minutes(&mut client, 30, 1.0) < 0.1);
    assert!(minutes(&mut client, 2, 8.0) > 0.85);
    assert!(minutes(&mut client, 8, 8.0) > 0.70);
    assert!(minutes(&mut client, 600, 8.0) < 0.2);
}

#[test]
fn guesses_are_no_yardstick() {
    let mut client = Client::new();
    for slower in [1.0, 100.0] {
        for _ in 0..600 {
            client.pass(0.1);
            let took = Duration::from_secs_f64(0.1 * slower);
            let cost = Some(Estimate::new(1_000_000, Confidence::Assumed));
            let answer = Answer { outcome: Outcome::Answered, took, cost, waited: false };
            client.answers.add(&answer, client.now);
        }
    }
    assert_eq!(client.says(Signal::Latency), Some(0.0));
}
