//! Readings from the answers to forwarded queries, and the answers that must give none.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{Answer, Outcome, Settings, outcomes::Outcomes};
use crate::base::{ErrorKind, TenantId, distress::Signal};

/// Answers on a timeline of their own.
struct Client {
    outcomes: Outcomes,
    now: Instant,
}

impl Client {
    fn new() -> Self {
        Self { outcomes: Outcomes::default(), now: Instant::now() }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Sends each of these queries of a tenant this number of times.
    fn ask(&mut self, tenant: &str, queries: std::ops::Range<u64>, times: usize, outcome: Outcome) {
        let tenant = TenantId::new(tenant).unwrap();
        for query in std::iter::repeat_n(queries, times).flatten() {
            self.pass(0.01);
            let answer = Answer { outcome, tenant: tenant.clone(), fingerprint: query, waited: false };
            self.outcomes.add(&answer, self.now);
        }
    }

    fn says(&mut self, signal: Signal) -> Option<f64> {
        let settings = Settings::default();
        let mut readings = self.outcomes.read(&settings, self.now);
        readings.find(|reading| reading.signal == signal).map(|reading| reading.pressure)
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
        (Ok(504), true, Neither),
        (Err(ErrorKind::UpstreamTimeout), false, Failed),
        (Err(ErrorKind::UpstreamTimeout), true, Neither),
        (Err(ErrorKind::UpstreamDead), false, Neither),
    ] {
        assert_eq!(Outcome::of(answer, impatient), outcome, "{answer:?} {impatient}");
    }
}

#[test]
fn a_query_that_was_never_answered_fails_by_itself() {
    let mut client = Client::new();
    client.ask("a", 0..20, 1, Outcome::Answered);
    client.ask("b", 20..40, 1, Outcome::Answered);
    // Forty 502s of one broken panel; forty texts that the backend cannot evaluate.
    client.ask("a", 100..101, 40, Outcome::Failed);
    client.ask("b", 101..141, 1, Outcome::Failed);
    assert_eq!(client.says(Signal::Outcomes), Some(0.0));
}

#[test]
fn failures_count_when_several_queries_of_several_tenants_fail_that_did_not_before() {
    let after = |failures: &[(&str, std::ops::Range<u64>)]| {
        let mut client = Client::new();
        client.ask("a", 0..10, 3, Outcome::Answered);
        client.ask("b", 10..20, 3, Outcome::Answered);
        for (tenant, queries) in failures {
            client.ask(tenant, queries.clone(), 5, Outcome::Failed);
        }
        client.says(Signal::Outcomes).unwrap()
    };
    assert_eq!(after(&[("a", 0..10)]), 0.0, "one tenant");
    assert_eq!(after(&[("a", 0..1), ("b", 10..11)]), 0.0, "two queries");
    let some = after(&[("a", 0..2), ("b", 10..13)]);
    assert!((some - 0.5).abs() < 1e-9, "five of twenty, of a half that is full pressure: {some}");
    assert_eq!(after(&[("a", 0..10), ("b", 10..20)]), 0.97);
}

#[test]
fn of_a_single_tenant_several_queries_are_enough_and_what_is_over_is_forgotten() {
    let mut client = Client::new();
    client.ask("a", 0..10, 1, Outcome::Answered);
    client.ask("a", 0..9, 1, Outcome::Failed);
    assert_eq!(client.says(Signal::Outcomes), Some(0.97));
    client.ask("a", 50..1_000, 1, Outcome::Neither);
    assert_eq!(client.says(Signal::Outcomes), Some(0.97), "a client's mistakes hide nothing");
    client.ask("a", 0..9, 1, Outcome::Answered);
    assert_eq!(client.says(Signal::Outcomes), Some(0.0), "answered again");
    client.ask("a", 0..9, 1, Outcome::Failed);
    client.pass(31.0);
    assert_eq!(client.says(Signal::Outcomes), Some(0.0), "nobody asks");
    // Not answered for ten minutes: nothing says that they ever were.
    for _ in 0..3 {
        client.pass(301.0);
        client.ask("a", 90..91, 1, Outcome::Answered);
    }
    client.ask("a", 0..9, 1, Outcome::Failed);
    assert_eq!(client.says(Signal::Outcomes), Some(0.0));
}

#[test]
fn waits_inside_the_backend_count_where_it_says_so() {
    let mut client = Client::new();
    client.ask("a", 0..10, 1, Outcome::Answered);
    assert_eq!(client.says(Signal::Saturation), None);
    let tenant = TenantId::new("a").unwrap();
    for query in 0..4 {
        let tenant = tenant.clone();
        let answer = Answer { outcome: Outcome::Answered, tenant, fingerprint: query, waited: true };
        client.outcomes.add(&answer, client.now);
    }
    assert_eq!(client.says(Signal::Saturation), Some(0.8));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut client = Client::new();
    for n in 0..20_000 {
        client.ask("a", n..n + 1, 1, Outcome::Answered);
    }
    assert!(format!("{:?}", client.outcomes).len() < 5_000_000);
}
