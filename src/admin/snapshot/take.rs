//! Takes the snapshot that the page *Now* is made of: a few short locks, each released before the next, and a bounded
//! amount of work, on the caller's thread.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Backend, Number, Queries, Query, Quota, Replica, Share, Snapshot, Tenant, holders::holders};
use crate::{
    backend::ReplicaSnapshot,
    base::{Estimate, QueryCost, TenantId, units},
    limit::{self, Admission, BackendSnapshot, LaneSnapshot, QuotaUse, WaitReason},
    proxy::{ActiveQuery, Proxy, QueryState, TenantCounts, cut, upstream::Upstream},
};

/// Queries shown of those in flight, and of those that wait.
const QUERIES_SHOWN: usize = 50;
/// Tenants shown in each table.
const TENANTS_SHOWN: usize = 10;
/// Characters of a query's text.
const QUERY_CHARS: usize = 240;
/// Characters of an actor's name.
const ACTOR_CHARS: usize = 60;

impl Snapshot {
    /// The state of a proxy now.
    pub fn take(proxy: &Proxy) -> Self {
        let now = Instant::now();
        let under_way = proxy.active().list();
        let holders = holders(&under_way, now);
        let (probing, asked): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|seen| seen.state() == QueryState::Probing);
        let (waiting, running): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|seen| seen.waited().is_none());
        let held = proxy.admission.snapshot();
        let live = proxy.live();
        let backends = live.upstreams.iter().map(|upstream| {
            let held = held.backends.iter().find(|held| *held.name == *upstream.backend.name());
            backend(upstream, held, &waiting, now)
        });
        let reasons = wait_reasons(&held);
        let (recent, tenants) = proxy.active().recent();
        let (open, max) = proxy.open_connections();
        Self {
            now_ms: proxy.now_ms(),
            started_ms: proxy.started_ms,
            version: env!("CARGO_PKG_VERSION"),
            stopping: proxy.stopping(),
            connections: Share { used: open as u64, of: Some(max as u64) },
            config: proxy.config_state(),
            ended_revocation_lists: live.ended_revocation_lists(proxy.now_ms()),
            fleet: proxy.fleet(),
            backends: backends.collect(),
            holders,
            running: most_expensive(running, &reasons, now),
            waiting: most_expensive(waiting, &reasons, now),
            probing: most_expensive(probing, &reasons, now),
            recent_ms: recent.as_millis() as u64,
            tenants_by_cost: top(
                &tenants,
                |tally| (tally.samples, tally.admitted),
                |tally| tally.admitted > 0,
            ),
            tenants_by_refusals: top(&tenants, |tally| (tally.refusals(), 0), |tally| tally.refusals() > 0),
            quotas: quotas(&proxy.admission),
            refusals: proxy.active().rejections(),
        }
    }
}

fn backend(
    upstream: &Upstream,
    held: Option<&BackendSnapshot>,
    waiting: &[Arc<ActiveQuery>],
    now: Instant,
) -> Backend {
    let replicas = upstream.backend.snapshot().replicas.into_iter().map(|replica| Replica {
        url: replica.url,
        healthy: replica.healthy,
        ejected: replica.ejected,
        in_flight: replica.in_flight,
        last_error: replica.last_error,
    });
    let observation = upstream.monitor().latest().cloned();
    let observation = observation.as_ref();
    let name = upstream.backend.name();
    let waits = waiting.iter().filter(|seen| *seen.facts.owner.backend == *name);
    let longest = waits.map(|seen| waited(seen, now)).max().unwrap_or_default();
    let pressure = observation
        .map(|observation| observation.readings.iter().map(|r| (r.signal.as_str(), r.pressure)).collect());
    let silent =
        observation.map(|observation| observation.stale.iter().map(|signal| signal.as_str()).collect());
    Backend {
        name: name.to_owned(),
        kind: upstream.backend.kind().as_str(),
        replicas: replicas.collect(),
        budget_percent: held.map_or(100, |held| (held.share * 100.0).round() as u8),
        pressure: pressure.unwrap_or_default(),
        silent: silent.unwrap_or_default(),
        memory: held
            .map_or_else(Share::default, |held| Share { used: held.memory, of: held.memory_capacity }),
        queries: held
            .map_or_else(Share::default, |held| Share { used: held.queries, of: held.queries_capacity }),
        budget: held.and_then(|held| held.budget),
        open_of: held.and_then(open_of),
        at_rest: observation
            .and_then(|observation| observation.at_rest)
            .map(|level| Share { used: level.bytes as u64, of: Some(level.limit as u64) }),
        window: held.and_then(|held| held.window),
        parts: held.and_then(|held| held.parts).map(|parts| parts.map(|part| part.bytes)),
        cut_by: held.and_then(|held| held.cut_by),
        lanes: held.map_or_else(Vec::new, lanes),
        reserves: held.map_or_else(Vec::new, |held| {
            held.reserves.iter().map(|(class, free)| (class.to_string(), *free)).collect()
        }),
        reasons: held.map_or_else(Vec::new, |held| {
            held.reasons.iter().map(|(reason, times)| (reason.label(), *times)).collect()
        }),
        waiting: held.map_or(0, |held| held.waiting),
        longest_wait_ms: longest.as_millis() as u64,
        notes: notes(upstream),
    }
}

fn open_of(held: &BackendSnapshot) -> Option<String> {
    let whole = held.budget.filter(|whole| held.memory_capacity.is_some_and(|open| open < *whole))?;
    let why = match (held.cut_by, held.parts, held.unproven) {
        (Some(cause), ..) => format!("cut: {cause}"),
        (None, Some(_), _) => "this proxy's part".to_owned(),
        (None, None, true) => "unproven: opens as heavy queries complete".to_owned(),
        (None, None, false) => "opens as heavy queries complete".to_owned(),
    };
    Some(format!("open of {} ({why})", units::bytes(whole)))
}

fn notes(upstream: &Upstream) -> Vec<String> {
    let missing = upstream.metrics.snapshot().replicas.into_iter().filter(|replica| replica.metrics_missing);
    let note = |replica: ReplicaSnapshot| {
        format!("has no /metrics at {}: its memory is not seen; set pressure.metrics_urls", replica.url)
    };
    let other = upstream.other_kind().map(|other| {
        let (kind, other) = (upstream.backend.kind().as_str(), other.as_str());
        format!("has `kind: {kind}`, and its metrics are those of {other}: its queries are priced by the wrong formula")
    });
    missing.map(note).chain(other).collect()
}

fn quotas(admission: &Admission) -> Vec<Quota> {
    let policy = admission.policy();
    let quota = |(tenant, used): (TenantId, QuotaUse)| {
        let max = policy.tenant(&tenant).quota.of(used.kind).rate?.count.get();
        Some(Quota {
            tenant: tenant.to_string(),
            kind: used.kind.as_str(),
            share: Share { used: used.all, of: Some(max) },
            left: max.saturating_sub(used.all),
            length_ms: used.window.1.as_millis() as u64,
            ends_ms: used.ends_ms(),
        })
    };
    let mut quotas: Vec<_> = admission.quotas_used().into_iter().filter_map(quota).collect();
    quotas.sort_by_cached_key(|quota| (Reverse(quota.share.percent()), quota.tenant.clone(), quota.kind));
    quotas.truncate(TENANTS_SHOWN);
    quotas
}

fn lanes(held: &BackendSnapshot) -> Vec<(&'static str, Share, Share)> {
    let of = |lane: &LaneSnapshot| {
        let queries = Share { used: lane.queries, of: lane.slots };
        // The slow lane lies in the other two, and cannot hold more than these.
        let open = lane.open.into_iter().chain(held.memory_capacity).min();
        (lane.lane, queries, Share { used: lane.memory, of: open })
    };
    held.lanes.iter().map(of).collect()
}

/// Why each query waits, by its number.
pub(in crate::admin) fn wait_reasons(held: &limit::Snapshot) -> HashMap<u64, WaitReason> {
    held.backends.iter().flat_map(|backend| backend.waiters.iter().copied()).collect()
}

fn most_expensive(
    mut seen: Vec<Arc<ActiveQuery>>,
    reasons: &HashMap<u64, WaitReason>,
    now: Instant,
) -> Queries {
    let cost = |seen: &Arc<ActiveQuery>| {
        let samples = seen.asked().map_or(0, |asked| asked.cost.samples.value);
        (Reverse((seen.memory(), samples)), seen.facts.began)
    };
    seen.sort_by_cached_key(cost);
    let total = seen.len();
    seen.truncate(QUERIES_SHOWN);
    Queries {
        total,
        shown: seen
            .iter()
            .map(|seen| query(seen, reasons.get(&seen.tag).copied(), QUERY_CHARS, now))
            .collect(),
    }
}

pub(in crate::admin) fn query(
    seen: &ActiveQuery,
    reason: Option<WaitReason>,
    chars: usize,
    now: Instant,
) -> Query {
    let facts = &seen.facts;
    let number =
        |of: fn(&QueryCost) -> Estimate| seen.asked().map_or(UNKNOWN, |asked| number(of(&asked.cost)));
    Query {
        id: seen.tag,
        state: seen.state().as_str(),
        tenant: facts.owner.tenant.to_string(),
        actor: cut(&facts.owner.actor, ACTOR_CHARS),
        origin: facts.owner.origin.clone(),
        start_ms: facts.times.map(|times| times.start),
        end_ms: facts.times.map(|times| times.end),
        step_ms: facts.times.map(|times| times.step),
        class: facts.owner.class.to_string(),
        backend: facts.owner.backend.to_string(),
        endpoint: facts.endpoint.as_str(),
        fingerprint: facts.fingerprint.map(|f| f.to_string()).unwrap_or_default(),
        text: cut(facts.query.as_deref().unwrap_or_default(), chars),
        enforced: facts.enforced,
        series: number(|cost| cost.series),
        blocks: number(|cost| cost.blocks),
        samples: number(|cost| cost.samples),
        points: number(|cost| cost.points),
        memory: number(|cost| cost.memory),
        part: seen.part(),
        parts: seen.parts(),
        age_ms: now.saturating_duration_since(facts.began).as_millis() as u64,
        reason: reason.map(WaitReason::label),
        waits_for: reason.map(WaitReason::sentence),
        waited_ms: waited(seen, now).as_millis() as u64,
        bytes: seen.bytes(),
    }
}

/// The time that a query waited for budget, until now if it still waits.
fn waited(seen: &ActiveQuery, now: Instant) -> Duration {
    let so_far = || seen.asked().map(|asked| now.saturating_duration_since(asked.at));
    seen.waited().or_else(so_far).unwrap_or_default()
}

/// A number of a query that is not priced yet.
const UNKNOWN: Number = Number { value: None, known: "unknown" };

fn number(of: Estimate) -> Number {
    Number { value: (of.value != u64::MAX).then_some(of.value), known: of.confidence.as_str() }
}

/// The first tenants by a measure, among those that have any of it.
fn top(
    tenants: &[(TenantId, TenantCounts)],
    measure: impl Fn(&TenantCounts) -> (u64, u64),
    has_any: impl Fn(&TenantCounts) -> bool,
) -> Vec<Tenant> {
    let mut some: Vec<_> = tenants.iter().filter(|(_, tally)| has_any(tally)).collect();
    some.sort_by_key(|(tenant, tally)| (Reverse(measure(tally)), tenant.clone()));
    some.truncate(TENANTS_SHOWN);
    let tell = |(tenant, tally): &(TenantId, TenantCounts)| {
        let mut refused = tally.refused.to_vec();
        refused.sort_by_key(|(reason, times)| (Reverse(*times), *reason));
        Tenant { tenant: tenant.to_string(), admitted: tally.admitted, samples: tally.samples, refused }
    };
    some.into_iter().map(tell).collect()
}
