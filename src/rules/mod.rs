//! Floor 2: rules that an operator sets against single queries. A [`Rule`] is a plain value, and whether it matches is a
//! pure function of a query and a clock.
//!
//! ```text
//! RuleSpec (YAML, admin API) ─ read ─▶ Rule ─┐
//!                                    RuleSet ┴ find(Subject, now) ─▶ the first rule that matches and has not expired
//! ```

mod changes;
mod glob;
mod hours;
mod metric;
mod spec;
mod subject;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use regex::Regex;

pub use self::{
    changes::{Change, Changes, Versioned},
    spec::{ActionName, ClampSpec, MatchSpec, RuleSpec, SpanSpec},
    subject::Subject,
};
use self::{glob::Glob, hours::Hours, metric::MetricName};
use crate::base::{TenantPattern, time::EvalTimes};

/// Rules in the configuration and over the admin API, each: every query is held against all of them.
pub const RULES_MAX: usize = 200;

/// The action on a query that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is refused.
    Refuse,
    /// It is counted and logged as one that would be refused, and runs.
    Shadow,
    /// It runs in the slow lane.
    Slow,
    /// It is cut to this and runs.
    Clamp(Clamp),
}

impl Action {
    /// The word for metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Shadow => "shadow",
            Self::Slow => "slow",
            Self::Clamp(_) => "clamp",
        }
    }
}

/// The ceilings to which a query is cut; `None` leaves it unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clamp {
    /// Milliseconds that a graph or a listing spans at most; the newest stay.
    pub range_ms: Option<u64>,
    /// Milliseconds between two points of a graph at least.
    pub step_ms: Option<u64>,
    /// Series in the answer at most, as the parameter `limit`.
    pub limit: Option<u64>,
}

impl Clamp {
    /// The times of a query that is cut; `is_graph` has a step.
    #[must_use]
    pub fn cut(self, times: EvalTimes, is_graph: bool) -> EvalTimes {
        let spans = times.end.saturating_sub(times.start).max(0) as u64;
        let range = self.range_ms.filter(|max| spans > *max);
        let start = range.map_or(times.start, |max| times.end.saturating_sub_unsigned(max));
        let step = self.step_ms.filter(|_| is_graph).map_or(times.step, |least| least.max(times.step));
        EvalTimes { start, step, ..times }
    }

    /// Whether a query that was cut still spans more than it may: one evaluation cannot be cut.
    pub fn still_spans_more(self, range_ms: u64) -> bool {
        self.range_ms.is_some_and(|max| range_ms > max.next_multiple_of(1_000))
    }
}

/// An interval of a duration, both ends left out, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beyond {
    longer_than: Option<u64>,
    shorter_than: Option<u64>,
}

impl Beyond {
    fn is_any(self) -> bool {
        self == Self::default()
    }

    fn has(self, ms: u64) -> bool {
        self.longer_than.is_none_or(|bound| ms > bound) && self.shorter_than.is_none_or(|bound| ms < bound)
    }
}

/// The text of a query: the same in any layout.
#[derive(Clone, Debug)]
struct ExactText {
    /// White space around it taken off.
    written: String,
    /// In the printer's layout, where it can be read.
    canonical: Option<String>,
}

/// The conditions on a query; all that are given have to match.
#[derive(Clone, Debug, Default)]
struct Matchers {
    fingerprint: Option<String>,
    query: Option<ExactText>,
    regex: Option<Regex>,
    metric: Option<MetricName>,
    nameless: bool,
    range: Beyond,
    step: Beyond,
    window: Beyond,
    tenant: Option<TenantPattern>,
    class: Option<Glob>,
    dashboard: Option<Glob>,
    panel: Option<Glob>,
    user: Option<Glob>,
    user_agent: Option<Glob>,
    endpoint: Option<String>,
    hours: Option<Hours>,
}

/// A rule as it is obeyed.
#[derive(Clone, Debug)]
pub struct Rule {
    /// As it was written, with the time of its expiry worked out.
    pub spec: RuleSpec,
    /// The action on a query.
    pub action: Action,
    /// From when on it does nothing, milliseconds since the epoch; `None` for one of the configuration that stays.
    pub expires_ms: Option<i64>,
    matchers: Matchers,
}

impl Rule {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }

    /// Whether it says something of this query; `None` where something that decides is not known of it.
    pub fn matches(&self, subject: &Subject<'_>, now_ms: i64) -> Option<bool> {
        if self.is_expired(now_ms) { Some(false) } else { self.matchers.matches(subject, now_ms) }
    }

    /// For people: the reason, the owner, and the end.
    pub fn sentence(&self) -> String {
        let RuleSpec { name, reason, owner, expires, .. } = &self.spec;
        let reason = if reason.is_empty() { "no reason given" } else { reason };
        let owner = if owner.is_empty() { "no owner".to_owned() } else { format!("owner: {owner}") };
        let expires = expires.as_deref().map_or_else(|| "never".to_owned(), |at| format!("at {at}"));
        format!("rule `{name}` ({reason}; {owner}; expires {expires})")
    }
}

/// Rules in their order: those set over the admin API, the newest first, then those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// Set over the admin API.
    pub at_run_time: Vec<Arc<Rule>>,
    /// Of the configuration.
    pub configured: Vec<Arc<Rule>>,
}

impl RuleSet {
    /// All of them, in the order in which they are held against a query.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.at_run_time.iter().chain(&self.configured)
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.at_run_time.is_empty() && self.configured.is_empty()
    }

    /// The first rule that matches a query, of which everything is known.
    pub fn find(&self, subject: &Subject<'_>, now_ms: i64) -> Option<&Arc<Rule>> {
        self.iter().find(|rule| rule.matches(subject, now_ms) == Some(true))
    }
}
