//! What a backend's answers to forwarded queries say about its distress: failures, waits, and latency against cost.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    latency::Latency,
    settings::Settings,
    signal::{Reading, Signal},
};
use crate::base::{ErrorKind, Estimate};

/// Answers are counted over so long.
const WINDOW: Duration = Duration::from_secs(30);
/// In steps of so long, so that a busy minute takes no more room than a quiet one.
const STEP: Duration = Duration::from_secs(3);
/// With fewer answers in the window, a share of them says nothing: two failures of three are a bad minute.
const LEAST: u32 = 20;
/// The share of answers that had to wait inside the backend, at full pressure.
const WAITED_AT_FULL: f64 = 0.5;

/// How a backend answered one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// What became of it.
    pub outcome: Outcome,
    /// From sending it to the head of the answer.
    pub took: Duration,
    /// Samples or points that it was expected to read, whichever are more; `None` where that says nothing about the
    /// time that it takes.
    pub cost: Option<Estimate>,
    /// The backend says that it had to wait inside (`M3-Waited`).
    pub waited: bool,
}

/// What became of a query, as far as it tells something about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// The backend failed, or was late by its own clock or by ours.
    Failed,
    /// Tells nothing about distress: the client's mistake, or less patience than the query needs; and a backend that is
    /// not there at all, which is for the health checks to say.
    Neither,
}

impl Outcome {
    /// By the status of the answer, or else why there was none; `impatient` when the time that the client itself had set
    /// was over by then.
    pub const fn of(answer: Result<u16, ErrorKind>, impatient: bool) -> Self {
        match answer {
            Ok(200..300) => Self::Answered,
            // 501 is about the question.
            Ok(500 | 502..600) | Err(ErrorKind::UpstreamTimeout) if !impatient => Self::Failed,
            _ => Self::Neither,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Step {
    began: Instant,
    answered: u32,
    failed: u32,
    waited: u32,
}

/// The answers of the last half minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    steps: VecDeque<Step>,
    latency: Latency,
    /// The backend has said of an answer that it waited.
    tells_waits: bool,
}

impl Answers {
    pub(super) fn add(&mut self, answer: &Answer, now: Instant) {
        if answer.outcome == Outcome::Neither {
            return;
        }
        self.forget(now);
        let is_new = self.steps.back().is_none_or(|step| now.saturating_duration_since(step.began) >= STEP);
        if is_new {
            self.steps.push_back(Step { began: now, answered: 0, failed: 0, waited: 0 });
        }
        let Some(step) = self.steps.back_mut() else { return };
        let failed = answer.outcome == Outcome::Failed;
        step.answered = step.answered.saturating_add(1);
        step.failed = step.failed.saturating_add(u32::from(failed));
        step.waited = step.waited.saturating_add(u32::from(answer.waited));
        self.tells_waits |= answer.waited;
        if let Some(cost) = answer.cost.filter(|_| !failed) {
            self.latency.add(answer.took, cost, now);
        }
    }

    /// What they say together. With too few of them that is ease, not silence: nobody asks.
    pub(super) fn read(&mut self, settings: &Settings, now: Instant) -> Vec<Reading> {
        self.forget(now);
        let sum = |of: fn(&Step) -> u32| self.steps.iter().map(|step| u64::from(of(step))).sum::<u64>();
        let answered = sum(|step| step.answered);
        let share = |n: u64| if answered < u64::from(LEAST) { 0.0 } else { n as f64 / answered as f64 };
        let errors = settings.errors_at_full.map(|full| {
            let failed = sum(|step| step.failed);
            Reading::new(Signal::Errors, share(failed), full)
        });
        let waits = self.tells_waits.then(|| {
            let waited = sum(|step| step.waited);
            Reading::new(Signal::Waited, share(waited), WAITED_AT_FULL)
        });
        let latency = settings.latency_at_full.map(|full| {
            // In doublings: from twice to four times as slow is as far as from once to twice.
            let doublings = self.latency.against_usual(full, now).max(1.0).log2();
            Reading::new(Signal::Latency, doublings, full.log2())
        });
        [errors, waits, latency].into_iter().flatten().collect()
    }

    fn forget(&mut self, now: Instant) {
        let over = |step: &Step| now.saturating_duration_since(step.began) > WINDOW;
        while self.steps.front().is_some_and(over) {
            self.steps.pop_front();
        }
    }
}
