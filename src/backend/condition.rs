//! Whether a replica works, judged by its answers: values and a clock, no I/O.
//!
//! States: up => down, when it cannot be connected to or when two checks in a row fail; down => up, by a check that
//! passes and by nothing else, so that a dead replica does not flap. A replica that takes requests and does not answer
//! them is set aside for a while as long as another one works; else its next check decides, and comes at once.

use std::time::Duration;

use tokio::time::Instant;

/// Requests in a row without an answer before a replica that accepts connections is doubted.
const UNANSWERED_MAX: u32 = 3;
/// Checks that fail in a row before a replica is down: one lost packet is not an outage.
const FAILED_CHECKS_MAX: u32 = 2;
/// A replica is set aside for this long at first, and each time twice as long as before.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// The longest of these times.
const LONGEST_EJECTION: Duration = Duration::from_secs(60);

/// How a replica failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It could not be connected to: nothing listens there.
    Unreachable,
    /// It took the request and gave no (whole) answer, or one of its own failure: maybe the query's fault.
    Unanswered,
}

/// The known state of one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    down: bool,
    failed_checks: u32,
    /// Requests in a row.
    unanswered: u32,
    ejected_until: Option<Instant>,
    /// In a row.
    ejections: u32,
    /// Why the latest request or check failed; `None` once a check passed.
    last_error: Option<String>,
}

impl Condition {
    /// Whether requests should go to it.
    pub(super) fn works(&self, now: Instant) -> bool {
        !self.down && !self.is_ejected(now)
    }

    pub(super) const fn is_down(&self) -> bool {
        self.down
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Whether the next check should not wait for its turn.
    pub(super) const fn is_doubted(&self) -> bool {
        self.down || self.failed_checks > 0 || self.unanswered >= UNANSWERED_MAX
    }

    /// Whether a good answer changes anything.
    pub(super) const fn is_clean(&self) -> bool {
        self.unanswered == 0 && self.ejections == 0
    }

    /// It answered a request.
    pub(super) const fn answered(&mut self) {
        self.unanswered = 0;
        self.ejections = 0;
        self.ejected_until = None;
    }

    /// It failed a request; `others_work` says whether another replica can take its place.
    pub(super) fn failed(&mut self, how: Failure, why: String, others_work: bool, now: Instant) {
        self.last_error = Some(why);
        match how {
            Failure::Unreachable => self.down = true,
            Failure::Unanswered => {
                self.unanswered = self.unanswered.saturating_add(1);
                // Requests that were under way together fail together: they are one reason to wait longer, not many.
                if others_work && self.unanswered >= UNANSWERED_MAX && !self.is_ejected(now) {
                    let time = FIRST_EJECTION * (1 << self.ejections.min(16));
                    self.ejected_until = Some(now + time.min(LONGEST_EJECTION));
                    self.ejections += 1;
                    self.unanswered = 0;
                }
            }
        }
    }

    /// The outcome of a check.
    pub(super) fn checked(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.down = false;
                (self.failed_checks, self.unanswered) = (0, 0);
                self.last_error = None;
            }
            Err(why) => {
                self.failed_checks = self.failed_checks.saturating_add(1);
                self.down |= self.failed_checks >= FAILED_CHECKS_MAX;
                self.last_error = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> String {
        "it answers 503".to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_check_finds_a_dead_replica_up_again() {
        let (mut condition, mut now) = (Condition::default(), Instant::now());
        condition.failed(Failure::Unreachable, why(), false, now);
        for _ in 0..10 {
            assert!(!condition.works(now) && condition.is_doubted());
            // Neither time nor a single answer of a listener there changes it.
            now += Duration::from_secs(60);
            condition.answered();
            condition.checked(Err(why()));
        }
        assert_eq!(condition.last_error(), Some("it answers 503"));
        condition.checked(Ok(()));
        assert!(condition.works(now) && !condition.is_doubted() && condition.last_error().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_failed_check_is_no_outage_but_hurries_the_next() {
        let (mut condition, now) = (Condition::default(), Instant::now());
        condition.checked(Err(why()));
        assert!(condition.works(now) && condition.is_doubted());
        condition.checked(Ok(()));
        condition.checked(Err(why()));
        condition.checked(Err(why()));
        assert!(!condition.works(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_does_not_answer_is_ejected_only_beside_another() {
        let (mut alone, mut one, mut now) = (Condition::default(), Condition::default(), Instant::now());
        for _ in 0..5 {
            alone.failed(Failure::Unanswered, why(), false, now);
        }
        assert!(
            alone.works(now) && alone.is_doubted(),
            "what a query causes is not an outage: the check decides"
        );
        let mut times = Vec::new();
        for _ in 0..8 {
            for _ in 0..UNANSWERED_MAX {
                one.failed(Failure::Unanswered, why(), true, now);
            }
            let began = now;
            while !one.works(now) {
                now += Duration::from_millis(500);
            }
            times.push((now - began).as_secs());
            // A check that passes does not bring it back: it is the queries that fail.
            one.checked(Ok(()));
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60]);
        one.answered();
        assert!(one.is_clean() && one.works(now));
    }
}
