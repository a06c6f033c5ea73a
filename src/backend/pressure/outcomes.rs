//! Readings of distress from a backend's answers to forwarded queries.
//!
//! A failure is the request's own as long as nothing says otherwise: a text that the backend cannot evaluate fails
//! whenever it is asked. So only a query counts that was answered before and fails now, each query once, and only when
//! several queries of several tenants do so at the same time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{monitor::Reading, settings::Settings};
use crate::base::{ErrorKind, TenantId, distress::Signal};

/// How long an answer counts.
const WINDOW: Duration = Duration::from_secs(30);
/// That a query was answered is remembered for this to twice this time.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Time between two searches for answers that do not count any more, unless somebody reads them.
const SWEEP: Duration = Duration::from_secs(1);
/// Queries that are remembered, at most.
const QUERIES_MAX: usize = 4_096;
/// Fewer failing queries say nothing.
const QUERIES_LEAST: usize = 3;
/// Failures of fewer tenants say nothing, unless only one asks.
const TENANTS_LEAST: usize = 2;
/// The share of answers that had to wait inside the backend, at full pressure.
const WAITED_AT_FULL: f64 = 0.5;

/// How a backend answered one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its outcome.
    pub outcome: Outcome,
    /// The tenant that asked.
    pub tenant: TenantId,
    /// The same for queries that differ in their numbers only.
    pub fingerprint: u64,
    /// The backend says that it had to wait inside (`M3-Waited`).
    pub waited: bool,
}

/// The outcome of a query, as far as it says something about the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// The backend failed, or was late by its own clock or by ours.
    Failed,
    /// It says nothing about distress: the client's mistake, or its own impatience; and a backend that is not there at
    /// all, which the health checks find.
    Neither,
}

impl Outcome {
    /// By the status of the answer, or else why there was none; `impatient` when the client itself set a time.
    pub const fn of(answer: Result<u16, ErrorKind>, impatient: bool) -> Self {
        match answer {
            Ok(200..300) => Self::Answered,
            // 501 is about the question.
            Ok(500 | 502..600) | Err(ErrorKind::UpstreamTimeout) if !impatient => Self::Failed,
            _ => Self::Neither,
        }
    }
}

/// The latest answer to one query.
#[derive(Clone, Debug)]
struct Latest {
    at: Instant,
    tenant: TenantId,
    failed: bool,
    waited: bool,
}

/// The answers of the last half minute, and which queries were answered before.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    latest: HashMap<u64, Latest, RandomState>,
    /// Queries answered since `turned`, and in the time before.
    answered: [HashSet<u64, RandomState>; 2],
    turned: Option<Instant>,
    /// When those that do not count any more were last looked for.
    swept: Option<Instant>,
    /// The backend has said of an answer that it waited.
    says_waits: bool,
}

impl Outcomes {
    pub(super) fn add(&mut self, answer: &Answer, now: Instant) {
        if answer.outcome == Outcome::Neither {
            return;
        }
        // To look at thousands with every answer would cost more than to answer.
        if self.swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
            self.forget(now);
        }
        let failed = answer.outcome == Outcome::Failed;
        let [fresh, _] = &mut self.answered;
        if !failed && fresh.len() < QUERIES_MAX {
            fresh.insert(answer.fingerprint);
        }
        self.says_waits |= answer.waited;
        if self.latest.len() < QUERIES_MAX || self.latest.contains_key(&answer.fingerprint) {
            let latest = Latest { at: now, tenant: answer.tenant.clone(), failed, waited: answer.waited };
            self.latest.insert(answer.fingerprint, latest);
        }
    }

    /// The pressure of all outcomes. Too few of them are ease, not silence: nobody asks.
    pub(super) fn read(&mut self, settings: &Settings, now: Instant) -> impl Iterator<Item = Reading> {
        self.forget(now);
        let was_answered = |query: &u64| self.answered.iter().any(|set| set.contains(query));
        let counted: Vec<_> = self.latest.iter().filter(|(query, _)| was_answered(query)).collect();
        let tenants = |failed_only: bool| {
            let those = counted.iter().filter(|(_, latest)| latest.failed || !failed_only);
            those.map(|(_, latest)| &latest.tenant).collect::<HashSet<_>>().len()
        };
        let failed = counted.iter().filter(|(_, latest)| latest.failed).count();
        let is_the_moment = failed >= QUERIES_LEAST && tenants(true) >= TENANTS_LEAST.min(tenants(false));
        let share = |n: usize| if counted.is_empty() { 0.0 } else { n as f64 / counted.len() as f64 };
        let errors = settings.errors_at_full.map(|full| {
            let failed = if is_the_moment { share(failed) } else { 0.0 };
            Reading::new(Signal::Outcomes, failed, full)
        });
        let waits = self.says_waits.then(|| {
            let waited = counted.iter().filter(|(_, latest)| latest.waited).count();
            let waited = if waited < QUERIES_LEAST { 0 } else { waited };
            Reading::new(Signal::Saturation, share(waited), WAITED_AT_FULL)
        });
        [errors, waits].into_iter().flatten()
    }

    fn forget(&mut self, now: Instant) {
        self.swept = Some(now);
        self.latest.retain(|_, latest| now.saturating_duration_since(latest.at) <= WINDOW);
        let turned = *self.turned.get_or_insert(now);
        if now.saturating_duration_since(turned) > REMEMBERED {
            self.turned = Some(now);
            self.answered.swap(0, 1);
            self.answered[0].clear();
        }
    }
}
