//! The verdicts of a configuration on queries that ran under another one, or that another program logged: the checks of
//! the live path over recorded numbers, without a database.
//!
//! ```text
//! priced by the same formulas ─▶ the recorded cost, split anew where the budget is another
//! anything else ─▶ its text, with the recorded counts of series, through the estimator
//! ```
//!
//! Rates, the queue and the budget in flight depend on the moment. They are not replayed.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    config::{Settings, enforced_on},
    estimate::{ceilings, verdict},
};
use crate::{
    base::{Confidence, ErrorKind, Estimate, Kind, QueryCost, TenantId, tenant, time::EvalTimes},
    cost::{
        self, Estimated, Estimator, Knowledge, Model, Need, QuerySplit, Remembered, SampleType,
        SeriesKnowledge, Source, Subject,
    },
    journal::{Actual, COUNTS_MAX, Divisible, Priced, Record},
    limit::{
        Admission, AdmissionRequest, Ceilings, Charged, Limit, LimitName, PerQuery, Policy, Refusal, Scope,
        TenantPolicy,
    },
    promql::{
        self,
        enforce::LabelEnforcement,
        metricsql,
        shape::{DEFAULT_LOOKBACK_MS, Shape},
        templates,
    },
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
    /// Limits in shadow mode that it passes.
    pub shadowed: Vec<Refusal>,
    /// Its expected cost; `None` where it cannot be known.
    pub cost: Option<QueryCost>,
}

/// A configuration that judges records.
#[derive(Debug)]
pub struct Replay {
    settings: Settings,
    policy: Arc<Policy>,
    admission: Arc<Admission>,
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
    ceilings: Ceilings,
    /// The labels that its queries are confined to: records have the clients' texts.
    enforced: Option<Arc<LabelEnforcement>>,
}

impl Owner {
    fn limits(&self) -> &PerQuery {
        self.policy.per_query(self.class.as_deref())
    }
}

/// A query that was read again.
struct Reading {
    shape: Shape,
    split: Option<QuerySplit>,
}

impl Replay {
    /// Obeys these settings; no backend is asked.
    pub fn new(mut settings: Settings) -> Self {
        let admission = Admission::new(std::mem::take(&mut settings.policy));
        let (policy, cache) = (Arc::clone(&admission.policy()), promql::Cache::new(CACHED_QUERIES));
        Self { settings, policy, admission, cache, owners: HashMap::new() }
    }

    /// The verdict of these settings on a query.
    pub fn replay(&mut self, record: &Record) -> Replayed {
        let owner = self.owner(record);
        let priced = record.priced.as_ref().filter(|priced| is_complete(priced));
        let same = priced.filter(|priced| priced.basis.model == owner.model);
        let Some(priced) = same else { return self.priced_anew(record, &owner) };
        let cost = self.split_anew(record, priced, &owner).unwrap_or(priced.cost);
        match self.judge(&owner, &cost) {
            Err(refusal) if is_loose(record, priced, &refusal) && record.actual.series_read.is_some() => {
                self.priced_anew(record, &owner)
            }
            Err(refusal) if is_loose(record, priced, &refusal) => {
                let verdict = Verdict::Unknown(Some(refusal));
                Replayed { verdict, shadowed: Vec::new(), cost: Some(cost) }
            }
            Ok(_) if is_cut_short(record, priced) => {
                Replayed { verdict: Verdict::Unknown(None), shadowed: Vec::new(), cost: Some(cost) }
            }
            judged => replayed(record, &owner, judged, cost),
        }
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
        let ceilings = self.policy.ceilings(&named, class.map(|name| &**name), &backend, split_percent);
        let enforced = enforced_on(&self.settings.enforced, &payers);
        Owner {
            tenant: named,
            payers: payers.into(),
            class: class.cloned(),
            backend,
            model,
            policy,
            ceilings,
            enforced,
        }
    }

    /// The limits on one query, and whether it is more than a whole budget.
    fn judge(&self, owner: &Owner, cost: &QueryCost) -> Result<Vec<Refusal>, Refusal> {
        self.admission.dry_run(&AdmissionRequest {
            payers: owner.payers.clone(),
            actor: Arc::clone(&owner.backend),
            class: owner.class.clone(),
            backend: Arc::clone(&owner.backend),
            cost: *cost,
            deadline: Instant::now(),
            charged: Charged::All,
            slow: false,
            tag: 0,
        })
    }

    /// The recorded cost, in the parts that this budget asks for; `None` where these are the recorded ones.
    fn split_anew(&self, record: &Record, priced: &Priced, owner: &Owner) -> Option<QueryCost> {
        let most = owner.ceilings.split;
        if priced.basis.divisible == Divisible::No || priced.basis.split_above == most {
            return None;
        }
        let mut whole = Estimated {
            cost: QueryCost { memory: priced.whole_memory, ..priced.cost },
            selectors: Vec::new(),
            parts: 1,
            whole_memory: priced.whole_memory,
        };
        if let Some(most) = most {
            let reading = self.read(record, owner)?;
            let series = counts(priced, &reading.shape)?;
            let known = Knowledge { series: &series, table: None };
            whole.selectors = cost::estimate(&reading.shape, &known, &owner.model).selectors;
            if let Some(split) = &reading.split {
                whole = split.split(whole, &known, &owner.model, most);
            }
        }
        Some(whole.cost)
    }

    /// Prices a query anew, with the counts that are recorded.
    fn priced_anew(&self, record: &Record, owner: &Owner) -> Replayed {
        let unknown = Replayed { verdict: Verdict::Unknown(None), shadowed: Vec::new(), cost: None };
        let Some(reading) = self.read(record, owner) else {
            let Some(priced) = &record.priced else { return unknown };
            return match self.judge(owner, &priced.cost) {
                // A limit on the shape alone refuses it, whatever it reads.
                Ok(_) if !is_complete(priced) => unknown,
                judged => replayed(record, owner, judged, priced.cost),
            };
        };
        let recorded = record.priced.as_ref().and_then(|priced| counts(priced, &reading.shape));
        if recorded.is_some() || record.actual.series_read.is_some() {
            let known = recorded.unwrap_or_else(|| floats(&reading, SeriesKnowledge::assumed(&owner.model)));
            let cost = price(record, owner, &reading, known);
            return replayed(record, owner, self.judge(owner, &cost), cost);
        }
        // Nobody counted: the truth lies between no series and all there can be.
        let [fewest, most] = [0, cost::UNKNOWN_SERIES].map(|series| {
            let known = SeriesKnowledge::new(Estimate::exact(series), Source::Assumed);
            price(record, owner, &reading, floats(&reading, known))
        });
        match (self.judge(owner, &fewest), self.judge(owner, &most)) {
            (Ok(_), Err(refusal)) => Replayed { verdict: Verdict::Unknown(Some(refusal)), ..unknown },
            (judged, _) => replayed(record, owner, judged, fewest),
        }
    }

    /// Reads the text of a query again; `None` where it is not known, or no PromQL.
    fn read(&self, record: &Record, owner: &Owner) -> Option<Reading> {
        let times = record.times.filter(|_| !record.query_is_cut)?;
        let text = record.query.known()?;
        if !matches!(&*record.endpoint, "query" | "query_range" | "") {
            return None;
        }
        let is_metricsql = owner.model.kind == Kind::VictoriaMetrics;
        let plain = if is_metricsql { metricsql::plain(text).ok()? } else { text.into() };
        let expanded = if is_metricsql { templates::expand(&plain).ok()? } else { plain.as_ref().into() };
        let mut ast = self.cache.parse(&expanded).ok()?;
        if let Some(labels) = &owner.enforced {
            ast = self.cache.parse(&labels.confine(&ast).ok()?).ok()?;
        }
        let basis = record.priced.as_ref().map(|priced| &priced.basis);
        let lookback = basis.map_or(DEFAULT_LOOKBACK_MS, |basis| basis.lookback_ms);
        let divisible = basis.map_or(Divisible::Yes, |basis| basis.divisible);
        let EvalTimes { start, end, step } = times;
        let shape = Shape::of(&ast, EvalTimes { start, end, step }, lookback);
        let split = || QuerySplit::of(&ast, times, lookback);
        let split = match divisible {
            Divisible::No => None,
            Divisible::Yes => split(),
            Divisible::AllReplicas => split().map(QuerySplit::of_all_replicas),
        };
        Some(Reading { shape, split })
    }
}

/// One entry for each selector of a query of which nobody recorded the series: floats, since few are anything else.
fn floats(reading: &Reading, series: SeriesKnowledge) -> Vec<SeriesKnowledge> {
    vec![SeriesKnowledge { samples: SampleType::Float, ..series }; reading.shape.selectors.len()]
}

/// The recorded counts, where they are those of these selectors.
fn counts(priced: &Priced, shape: &Shape) -> Option<Vec<SeriesKnowledge>> {
    let is_same = priced.counts.len() == shape.selectors.len() && priced.cost.text == shape.size;
    let known = priced.counts.iter().map(|count| count.known());
    is_same.then(|| known.collect())
}

/// The estimate of the live path, with recorded counts in place of history and probes.
fn price(record: &Record, owner: &Owner, reading: &Reading, known: Vec<SeriesKnowledge>) -> QueryCost {
    let subject = Subject {
        shape: &reading.shape,
        listing: false,
        opaque: false,
        split: reading.split.as_ref().zip(owner.ceilings.split),
        model: &owner.model,
        table: None,
        asks_types: false,
        enforced: None,
    };
    let limits = ceilings(owner.limits(), owner.ceilings.query);
    let class = owner.class.as_deref();
    let verdict = |cost: &QueryCost| verdict(&owner.policy, &owner.tenant, class, &owner.ceilings, cost);
    let mut estimator = Estimator::new(subject, known, limits, verdict);
    let mut cost = loop {
        match estimator.need() {
            Need::History => {
                let read = record.actual.series_read;
                estimator.supply_history(read.map(|series| Remembered { here: Some(series), peak: series }));
            }
            // Nobody is there to be asked.
            Need::Probes(_) | Need::Types(_) | Need::Values(_) => {}
            Need::Done(estimated) => break estimated.cost,
        }
    };
    if let Some(samples) = record.actual.samples_read {
        cost.samples = Estimate::new(samples, Confidence::Learned);
    }
    cost
}

/// Whether its selectors were counted: a query refused for its shape is not priced.
fn is_complete(priced: &Priced) -> bool {
    !priced.counts.is_empty() || !(1..=COUNTS_MAX as u64).contains(&priced.cost.selectors)
}

/// Whether it was refused before everything was counted: another limit would have had Weir count on.
fn is_cut_short(record: &Record, priced: &Priced) -> bool {
    let is_open = |known: Confidence| matches!(known, Confidence::AtLeast | Confidence::Assumed);
    &*record.verdict != "admitted" && priced.counts.iter().any(|count| is_open(count.series.confidence))
}

/// Whether the live path would have counted before it refused: the number is a bound that no limit was near then.
fn is_loose(record: &Record, priced: &Priced, refusal: &Refusal) -> bool {
    let grows_with_series = matches!(
        refusal.limit,
        LimitName::MaxSeries
            | LimitName::MaxBlocks
            | LimitName::MaxSamples
            | LimitName::MaxPoints
            | LimitName::MaxMemory
            | LimitName::BudgetNever
    );
    let is_bound = priced.counts.iter().any(|count| count.source == Source::LabelTable);
    grows_with_series && is_bound && matches!(&*record.verdict, "admitted")
}

fn replayed(
    record: &Record,
    owner: &Owner,
    judged: Result<Vec<Refusal>, Refusal>,
    cost: QueryCost,
) -> Replayed {
    let (verdict, shadowed) = match judged {
        Err(refusal) => (Verdict::Refused(refusal), Vec::new()),
        Ok(shadowed) => match cut_off(record, owner) {
            Some(refusal) => (Verdict::Refused(refusal), shadowed),
            // A limit stopped its answer, and its length is not recorded.
            None if record.limit.known().is_some() && record.actual == Actual::default() => {
                (Verdict::Unknown(None), shadowed)
            }
            None => (Verdict::Admitted, shadowed),
        },
    };
    Replayed { verdict, shadowed, cost: Some(cost) }
}

/// The limit that stops its answer.
fn cut_off(record: &Record, owner: &Owner) -> Option<Refusal> {
    let limits = owner.limits();
    // Names and values of labels are no series.
    let are_series = !matches!(&*record.endpoint, "labels" | "label_values");
    let (series, points) = (record.actual.answer_series, record.actual.answer_samples);
    let checks: [(LimitName, Option<u64>, Limit); 3] = [
        (LimitName::MaxResponse, record.actual.answer_bytes, limits.response_bytes),
        (LimitName::MaxSeries, series.filter(|_| are_series), limits.series),
        (LimitName::MaxPoints, points, limits.points),
    ];
    checks.into_iter().find_map(|(limit, seen, max)| {
        let (seen, max) = seen.zip(max.enforced()).filter(|(seen, max)| seen > max)?;
        Some(Refusal {
            kind: ErrorKind::LimitExceeded,
            limit,
            observed: Estimate::exact(seen),
            max,
            scope: Scope::Tenant(owner.tenant.clone()),
            retry_after: None,
            waiting_for: None,
        })
    })
}
