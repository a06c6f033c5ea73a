//! Verdicts added up: by tenant, by limit, by dashboard, and the worst cases. Bounded, however many queries there are.

use std::{cmp::Reverse, collections::HashMap};

use crate::{
    base::Estimate,
    journal::Record,
    limit::{LimitName, Refusal},
    promql::Fingerprint,
    proxy::replay::{Replayed, Verdict},
    rules::Rule,
};

/// Rows of one table; all further names share one.
const NAMES_MAX: usize = 1_000;
/// Distinct cases that are counted.
const CASES_MAX: usize = 10_000;
/// Characters of a query's text in a case.
const QUERY_CHARS: usize = 240;
/// Cases that a report shows.
const CASES_SHOWN: usize = 10;

/// Queries by their verdict then, and by the verdict now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub queries: u64,
    /// Those that would be admitted.
    pub admitted: u64,
    /// Those that would be refused, or whose answers would be stopped.
    pub refused: u64,
    /// Those of which too little is known.
    pub unknown: u64,
    /// Of the refused, those that were answered before.
    pub newly_refused: u64,
    /// Of the admitted, those that a limit on one query, a rate or a rule refused before.
    pub newly_admitted: u64,
    /// Those that would pass a limit in shadow mode.
    pub shadowed: u64,
    /// Those that would run in the slow lane.
    pub slow: u64,
    /// Those that a rule would cut.
    pub clamped: u64,
}

impl Tally {
    /// Adds another sum.
    pub(super) fn plus(&mut self, other: &Self) {
        self.queries += other.queries;
        self.admitted += other.admitted;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.newly_refused += other.newly_refused;
        self.newly_admitted += other.newly_admitted;
        self.shadowed += other.shadowed;
        self.slow += other.slow;
        self.clamped += other.clamped;
    }

    fn add(&mut self, record: &Record, replayed: &Replayed) {
        self.queries += 1;
        self.shadowed += u64::from(!replayed.shadowed.is_empty());
        self.slow += u64::from(replayed.slow);
        self.clamped += u64::from(replayed.clamped);
        match &replayed.verdict {
            Verdict::Admitted => {
                self.admitted += 1;
                self.newly_admitted += u64::from(replayable(&record.verdict));
            }
            Verdict::Refused(_) => {
                self.refused += 1;
                self.newly_refused += u64::from(record.ran());
            }
            Verdict::Unknown(_) => self.unknown += 1,
        }
    }
}

/// Tallies by name. Names beyond the room are added up in `others`.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    names: HashMap<Box<str>, Tally>,
    /// Of all other names together.
    pub others: Tally,
}

impl Groups {
    fn of(&mut self, name: &str) -> &mut Tally {
        if !self.names.contains_key(name) && self.names.len() < NAMES_MAX {
            self.names.insert(name.into(), Tally::default());
        }
        self.names.get_mut(name).unwrap_or(&mut self.others)
    }

    /// The names with their sums: those with the most refusals first, then by number of queries.
    pub fn sorted(&self) -> Vec<(&str, Tally)> {
        let mut rows: Vec<_> = self.names.iter().map(|(name, tally)| (&**name, *tally)).collect();
        rows.sort_by_key(|(name, t)| (Reverse((t.newly_refused, t.refused, t.queries)), *name));
        rows
    }
}

/// A query that would be refused, each time that it was asked.
#[derive(Clone, Debug)]
pub struct Case {
    /// The tenant that pays.
    pub tenant: String,
    /// The dashboard, or another actor inside the tenant.
    pub origin: String,
    /// The query, cut.
    pub query: String,
    /// The limit.
    pub limit: LimitName,
    /// The most that it asked for.
    pub observed: Estimate,
    /// The most that is allowed.
    pub max: u64,
    /// How often it was asked and would be refused.
    pub times: u64,
    /// How often of these it was answered before.
    pub ran: u64,
}

impl Case {
    /// How many times the limit it asks for.
    pub fn excess(&self) -> f64 {
        self.observed.value as f64 / self.max.max(1) as f64
    }
}

type CaseKey = (Box<str>, Fingerprint, LimitName);

/// Everything that a report says.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// All queries.
    pub total: Tally,
    /// By tenant; `unknown` where nobody said.
    pub tenants: Groups,
    /// By the limit that refuses, or that may.
    pub limits: Groups,
    /// By dashboard; `unknown` where nobody said.
    pub dashboards: Groups,
    /// By the rule that is about them, or that may be.
    pub rules: Groups,
    /// Queries that were refused then by the queue or the state of a backend, by its id: not replayed.
    pub not_replayed: Groups,
    /// Arrival of the first query and of the last, milliseconds since the epoch.
    pub span: Option<(i64, i64)>,
    cases: HashMap<CaseKey, Case>,
}

impl Summary {
    /// Adds one query.
    pub fn add(&mut self, record: &Record, replayed: &Replayed) {
        self.total.add(record, replayed);
        self.tenants.of(named(&record.tenant)).add(record, replayed);
        self.dashboards.of(named(&record.dashboard)).add(record, replayed);
        let (first, last) = self.span.unwrap_or((record.at_ms, record.at_ms));
        self.span = Some((first.min(record.at_ms), last.max(record.at_ms)));
        if depends_on_the_moment(&record.verdict) {
            self.not_replayed.of(&record.verdict).add(record, replayed);
        }
        if let Some(rule) = &replayed.rule {
            self.rules.of(&rule_name(rule)).add(record, replayed);
        }
        match &replayed.verdict {
            Verdict::Admitted => {}
            Verdict::Refused(refusal) => {
                self.limits.of(refusal.limit.id()).add(record, replayed);
                self.case(record, refusal);
            }
            Verdict::Unknown(limit) => {
                let id = limit.as_ref().map_or("unknown", |refusal| refusal.limit.id());
                self.limits.of(id).add(record, replayed);
            }
        }
    }

    fn case(&mut self, record: &Record, refusal: &Refusal) {
        let of_text = || Fingerprint::of_bytes(b"text", &[record.query.as_bytes()]);
        let fingerprint = record.fingerprint.unwrap_or_else(of_text);
        let key = (Box::from(&*record.tenant), fingerprint, refusal.limit);
        if self.cases.len() >= CASES_MAX && !self.cases.contains_key(&key) {
            return;
        }
        let case = self.cases.entry(key).or_insert_with(|| Case {
            tenant: named(&record.tenant).to_owned(),
            origin: origin(record),
            query: cut(record),
            limit: refusal.limit,
            observed: refusal.observed,
            max: refusal.max,
            times: 0,
            ran: 0,
        });
        case.times += 1;
        case.ran += u64::from(record.ran());
        if refusal.observed.value > case.observed.value {
            (case.observed, case.max) = (refusal.observed, refusal.max);
            case.query = cut(record);
        }
    }

    /// The cases that are furthest above their limit; those that were answered before go first.
    pub fn worst(&self) -> Vec<&Case> {
        let mut cases: Vec<_> = self.cases.values().collect();
        cases.sort_by(|a, b| {
            let rank = |case: &Case| (case.ran > 0, case.excess());
            let ((a_ran, a_excess), (b_ran, b_excess)) = (rank(a), rank(b));
            b_ran.cmp(&a_ran).then(b_excess.total_cmp(&a_excess)).then_with(|| a.query.cmp(&b.query))
        });
        cases.truncate(CASES_SHOWN);
        cases
    }
}

/// A name as reports show it.
pub(super) fn named(name: &str) -> &str {
    if name.is_empty() { "unknown" } else { name }
}

/// Where a query came from, the most specific that is known.
pub(super) fn origin(record: &Record) -> String {
    match (record.dashboard.known(), record.panel.known(), record.user.known(), record.rule.known()) {
        (Some(dashboard), Some(panel), ..) => format!("dashboard {dashboard}, panel {panel}"),
        (Some(dashboard), None, ..) => format!("dashboard {dashboard}"),
        (None, _, Some(user), _) => format!("user {user}"),
        (None, _, None, Some(rule)) => format!("rule {rule}"),
        _ => named(&record.actor).to_owned(),
    }
}

fn cut(record: &Record) -> String {
    match (record.query.known(), record.fingerprint) {
        (Some(text), _) => match text.char_indices().nth(QUERY_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        },
        (None, Some(fingerprint)) => format!("fingerprint {fingerprint}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// A rule and its reason.
fn rule_name(rule: &Rule) -> String {
    let (name, reason) = (rule.name(), &rule.spec.reason);
    if reason.is_empty() { name.to_owned() } else { format!("{name} ({reason})") }
}

/// Whether a recorded verdict was that of a limit on one query, a rate, a quota or a rule.
pub(super) fn replayable(verdict: &str) -> bool {
    let limits = [
        LimitName::BudgetNever,
        LimitName::RateQueries,
        LimitName::RateSamples,
        LimitName::QuotaQueries,
        LimitName::QuotaSamples,
        LimitName::Blocked,
    ];
    verdict.starts_with("weir-max-") || limits.iter().any(|limit| limit.id() == verdict)
}

/// Whether a recorded verdict was that of a queue or a backend's state.
fn depends_on_the_moment(verdict: &str) -> bool {
    let limits = [
        LimitName::QueueFull,
        LimitName::QueueTimeout,
        LimitName::BackendSick,
        LimitName::ShuttingDown,
        LimitName::Cancelled,
        LimitName::Killed,
    ];
    limits.iter().any(|limit| limit.id() == verdict)
}
