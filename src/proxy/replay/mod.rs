//! The verdicts of a configuration on queries that ran under another one, or that another program logged: the checks of
//! the live path over recorded numbers, without a database.
//!
//! ```text
//! priced by the same formulas ─▶ the recorded cost, split anew where the budget is another
//! anything else ─▶ its text, with the recorded counts of series, through the estimator
//! ```
//!
//! Rates run on the recorded times, and rules are held against the recorded queries. Budgets in flight are simulated
//! with the recorded durations, as far as these are known ([`RecordedLimits`]).

mod price;

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;

use super::{
    config::{Settings, enforced_on},
    query::layer::is_constant_text,
};
use crate::{
    base::{QueryCost, TenantId, tenant},
    cost::Model,
    journal::Record,
    limit::{
        self, Admission, LimitName, MemoryThresholds, Mode, PerQuery, Policy, Recorded, RecordedLimits,
        RecordedOutcome, Refusal, TenantPolicy,
    },
    promql::{self, enforce::LabelEnforcement},
    rules::{self, Action, Clamp, Rule},
};

/// Parsed queries that are kept.
const CACHED_QUERIES: u64 = 10_000;
/// Tenants and classes that are resolved once.
const OWNERS_MAX: usize = 10_000;

/// The verdict of a configuration on a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No limit on one query stands in its way.
    Admitted,
    /// This limit refuses it, or stops its answer.
    Refused(Refusal),
    /// Something is not known that decides: this limit may refuse it, or nothing at all can be said.
    Unknown(Option<Refusal>),
}

/// A query under another configuration.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The verdict now.
    pub verdict: Verdict,
    /// Limits and rules in shadow mode that it passes.
    pub shadowed: Vec<Refusal>,
    /// It would run in the slow lane.
    pub slow: bool,
    /// A rule would cut it.
    pub clamped: bool,
    /// The rule that is about it, or that may be.
    pub rule: Option<Arc<Rule>>,
    /// Its expected cost; `None` where it cannot be known.
    pub cost: Option<QueryCost>,
}

impl Replayed {
    /// A verdict, and nothing else.
    const fn of(verdict: Verdict) -> Self {
        Self { verdict, shadowed: Vec::new(), slow: false, clamped: false, rule: None, cost: None }
    }
}

/// A configuration that judges records.
#[derive(Debug)]
pub struct Replay {
    settings: Settings,
    policy: Arc<Policy>,
    admission: Arc<Admission>,
    over_time: RecordedLimits,
    cache: promql::Cache,
    owners: HashMap<(Box<str>, Box<str>), Arc<Owner>>,
}

/// Tenant and class of the query under this configuration.
#[derive(Debug)]
struct Owner {
    tenant: TenantId,
    payers: SmallVec<[TenantId; 1]>,
    class: Option<Arc<str>>,
    backend: Arc<str>,
    model: Model,
    policy: Arc<TenantPolicy>,
    thresholds: MemoryThresholds,
    /// The labels that its queries are confined to: records have the clients' texts.
    enforced: Option<Arc<LabelEnforcement>>,
}

impl Owner {
    fn limits(&self) -> &PerQuery {
        self.policy.per_query(self.class.as_deref())
    }
}

impl Replay {
    /// Obeys these settings; no backend is asked.
    pub fn new(mut settings: Settings) -> Self {
        let admission = Admission::new(std::mem::take(&mut settings.policy));
        let (policy, cache) = (Arc::clone(&admission.policy()), promql::Cache::new(CACHED_QUERIES));
        let over_time = RecordedLimits::new(Arc::clone(&policy));
        Self { settings, policy, admission, over_time, cache, owners: HashMap::new() }
    }

    /// The verdict of these settings on a query. Queries come in the order of their arrival.
    pub fn replay(&mut self, record: &Record) -> Replayed {
        let owner = self.owner(record);
        // Times are cut to milliseconds: one that ran gets the part that it may lack.
        self.over_time.advance(record.at_ms.saturating_add(i64::from(record.ran())));
        let is_free = &*record.verdict == "free";
        let mut shadowed = Vec::new();
        if is_rated(record) {
            match self.over_time.check_rate(&owner.payers) {
                // A query that costs nothing is counted, and let through.
                Err(refusal) if !is_free => return Replayed::of(Verdict::Refused(refusal)),
                Err(_) => {}
                Ok(passed) => shadowed = passed,
            }
        }
        let mut replayed = if is_free { Replayed::of(Verdict::Admitted) } else { self.ruled(record, &owner) };
        let is_blocked =
            matches!(&replayed.verdict, Verdict::Refused(refusal) if refusal.limit == LimitName::Blocked);
        if is_blocked && is_rated(record) {
            self.over_time.give_rate_back(&owner.payers);
        }
        if let (Verdict::Admitted, Some(cost)) = (&replayed.verdict, replayed.cost) {
            self.over_time(record, &owner, &cost, &mut replayed);
        }
        shadowed.append(&mut replayed.shadowed);
        Replayed { shadowed, ..replayed }
    }

    /// The verdict of the rules, and of the limits on one query.
    fn ruled(&self, record: &Record, owner: &Owner) -> Replayed {
        let Some((rule, is_known)) = self.rule(record, owner) else { return self.judged(record, owner) };
        let blocked = || Refusal::blocked(rule.name().into());
        let named = |replayed: Replayed| Replayed { rule: Some(Arc::clone(&rule)), ..replayed };
        if !is_known {
            let replayed = self.judged(record, owner);
            let is_refused = matches!(replayed.verdict, Verdict::Refused(_));
            let refuses = rule.action == Action::Refuse;
            let verdict = Verdict::Unknown(refuses.then(blocked));
            return if is_refused { replayed } else { named(Replayed { verdict, ..replayed }) };
        }
        named(match rule.action {
            Action::Refuse => Replayed::of(Verdict::Refused(blocked())),
            Action::Shadow => {
                let mut replayed = self.judged(record, owner);
                replayed.shadowed.push(blocked());
                replayed
            }
            Action::Slow => Replayed { slow: true, ..self.judged(record, owner) },
            Action::Clamp(to) => self.clamped(record, owner, to, blocked),
        })
    }

    /// The verdict on a query that a rule cuts.
    fn clamped(&self, record: &Record, owner: &Owner, to: Clamp, blocked: impl Fn() -> Refusal) -> Replayed {
        let has_range = !matches!(&*record.endpoint, "query" | "read");
        let cut = record.times.filter(|_| has_range).map(|times| to.cut(times, is_graph(record)));
        let is_changed = cut.is_some() && cut != record.times;
        let times = cut.or(record.times);
        let cut = Record { times, ..record.clone() };
        let is_too_long = self.subject(&cut, owner, |cut| cut.range_ms().map(|ms| to.still_spans_more(ms)));
        match is_too_long {
            Some(true) => Replayed::of(Verdict::Refused(blocked())),
            None if to.range_ms.is_some() => Replayed::of(Verdict::Unknown(Some(blocked()))),
            _ if is_changed => Replayed { clamped: true, ..self.priced_anew(&cut, owner) },
            _ => Replayed { clamped: to.limit.is_some(), ..self.judged(record, owner) },
        }
    }

    /// The limits over time on a query that passes all others, and its lane.
    fn over_time(&mut self, record: &Record, owner: &Owner, cost: &QueryCost, replayed: &mut Replayed) {
        let soft = limit::soft(&owner.policy, &owner.tenant, owner.class.as_deref(), cost, Mode::Enforce);
        replayed.slow |= soft.is_some();
        if !is_rated(record) {
            return;
        }
        // As the live path: a query that a quota refuses is on no rate.
        let checked = self.over_time.check_quotas(&owner.payers, cost.samples);
        let taken = checked.and_then(|(passed, is_slow)| {
            replayed.shadowed.extend(passed);
            replayed.slow |= is_slow;
            self.over_time.take_samples(&owner.payers, cost.samples)
        });
        match taken {
            Ok(passed) => replayed.shadowed.extend(passed),
            Err(refusal) => {
                replayed.verdict = Verdict::Refused(refusal);
                return;
            }
        }
        self.over_time.debit(&owner.payers, cost.samples, record.actual.samples_read);
        let ran = &*record.outcome != "refused";
        let runs_for = record.took_ms.filter(|_| ran);
        let place = self.over_time.place(Recorded {
            payers: owner.payers.clone(),
            backend: Arc::clone(&owner.backend),
            memory: cost.memory.value,
            runs_for: runs_for.map(|took| took.saturating_sub(record.wait_ms.unwrap_or(0))),
        });
        match place {
            RecordedOutcome::Runs => {}
            RecordedOutcome::Waits(refusal) => replayed.verdict = Verdict::Unknown(Some(refusal)),
            RecordedOutcome::Refused(refusal) => replayed.verdict = Verdict::Refused(refusal),
        }
    }

    /// The first rule that matches, or that may; and whether it surely does.
    fn rule(&self, record: &Record, owner: &Owner) -> Option<(Arc<Rule>, bool)> {
        let rules = &self.settings.query_rules;
        if rules.is_empty() {
            return None;
        }
        self.subject(record, owner, |subject| {
            let found = |rule: &Arc<Rule>| match rule.matches(subject, record.at_ms) {
                Some(false) => None,
                known => Some((Arc::clone(rule), known.is_some())),
            };
            rules.iter().find_map(found)
        })
    }

    /// A query as rules see it.
    fn subject<T>(&self, record: &Record, owner: &Owner, see: impl FnOnce(&rules::Subject<'_>) -> T) -> T {
        let reading = self.read(record, owner);
        see(&rules::Subject {
            tenants: &owner.payers,
            class: record.class.known().unwrap_or("adhoc"),
            endpoint: &record.endpoint,
            dashboard: record.dashboard.known(),
            panel: record.panel.known(),
            user: record.user.known(),
            user_agent: record.user_agent.known(),
            fingerprint: record.fingerprint,
            text: record.query.known().filter(|_| !record.query_is_cut),
            shape: reading.as_ref().map(|reading| &reading.shape),
            listing: matches!(&*record.endpoint, "series" | "labels" | "label_values"),
            times: record.times,
        })
    }

    /// Where the tenant's queries run now, and under which limits.
    fn owner(&mut self, record: &Record) -> Arc<Owner> {
        let key = (Box::from(&*record.tenant), Box::from(&*record.class));
        if let Some(owner) = self.owners.get(&key) {
            return Arc::clone(owner);
        }
        let owner = Arc::new(self.resolve(record));
        if self.owners.len() < OWNERS_MAX {
            self.owners.insert(key, Arc::clone(&owner));
        }
        owner
    }

    fn resolve(&self, record: &Record) -> Owner {
        let Settings { attribution, routes, prefix_routes, upstreams, .. } = &self.settings;
        let named = TenantId::new(&record.tenant).unwrap_or_else(|| attribution.default.clone());
        let home = |tenant: &TenantId| routes.get(tenant).or_else(|| prefix_routes.get(tenant)).copied();
        let at = |tenant: &TenantId| upstreams.get(home(tenant).unwrap_or(0));
        let several = tenant::federated(named.as_str()).unwrap_or_default();
        // As the live path: one name for several tenants, where their database reads it so.
        let joined = several
            .first()
            .and_then(at)
            .filter(|upstream| upstream.backend.tenancy.federates(upstream.model.kind));
        let upstream = joined.or_else(|| at(&named));
        let model = upstream.map(|upstream| upstream.model.clone()).unwrap_or_default();
        let payers = if joined.is_some() { several } else { vec![named.clone()] };
        let class = attribution.classes.iter().map(|class| &class.name).find(|name| ***name == *record.class);
        let backend: Arc<str> =
            upstream.map_or_else(Arc::default, |upstream| upstream.backend.name.as_str().into());
        let policy = self.policy.strictest(&payers).unwrap_or_else(|| Arc::clone(self.policy.tenant(&named)));
        let split_percent = upstream.and_then(|upstream| upstream.split_percent);
        let thresholds =
            self.policy.memory_thresholds(&named, class.map(|name| &**name), &backend, split_percent);
        let enforced = enforced_on(&self.settings.enforced, &payers);
        Owner {
            tenant: named,
            payers: payers.into(),
            class: class.cloned(),
            backend,
            model,
            policy,
            thresholds,
            enforced,
        }
    }
}

fn is_graph(record: &Record) -> bool {
    &*record.endpoint == "query_range"
}

/// Whether limits over time are about it: its time is known, and it was read for a tenant. A health check is not counted.
fn is_rated(record: &Record) -> bool {
    let is_health_check = &*record.endpoint == "query" && is_constant_text(&record.query);
    record.at_ms > 0 && record.tenant.known().is_some() && !is_health_check
}
