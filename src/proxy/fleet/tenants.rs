//! Tenants' limits and rates that hold for all proxies of a fleet. Only those of which this proxy needs more than its fixed
//! part take part in a round.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    base::{
        TenantId,
        share::{Amount, Demand, SharedWindow, TokenKind},
    },
    fleet::{Answers, Ask, AskTokens, Draws, Lease, Round},
    limit::{Admission, QuotaDemand, QuotaLease, TenantDemand},
};

/// How much longer the store keeps what was used of a quota than its window lasts by this proxy's clock.
const WINDOW_SLACK: Duration = Duration::from_secs(60);
/// The end of the names of pools of queries in flight.
const IN_FLIGHT: &str = "in_flight";
/// Most tenants in a round, the busiest first; the others have their fixed parts.
pub(super) const TENANTS_MAX: usize = 64;

/// The leases and the requests for tokens of tenants that need them now.
#[derive(Default)]
pub(super) struct TenantShares {
    /// By the name of the pool.
    leases: HashMap<String, Lease>,
    draws: HashMap<(TenantId, TokenKind), Draws>,
}

/// A limit of a tenant that is leased.
#[derive(Clone, Copy)]
enum Limited {
    InFlight,
    /// The quota, with the number and the length of its window.
    Quota(TokenKind, (u64, Duration)),
}

/// A lease that a round asks for.
struct Asked {
    tenant: TenantId,
    of: Limited,
    pool: String,
    seq: u64,
}

/// The owners of the requests of one round, each with the number of its request.
#[derive(Default)]
pub(super) struct TenantRound {
    /// The requests for leases before them.
    before: usize,
    leases: Vec<Asked>,
    tokens: Vec<((TenantId, TokenKind), u64)>,
    /// Queries wait for more.
    pub(super) is_waiting: bool,
}

impl TenantRound {
    /// Tenants that take part.
    pub(super) fn tenants(&self) -> usize {
        let of_tokens = self.tokens.iter().map(|((tenant, _), _)| tenant);
        self.leases.iter().map(|asked| &asked.tenant).chain(of_tokens).collect::<HashSet<_>>().len()
    }
}

impl TenantShares {
    /// Adds requests to a round. `hold` is the longest time that a query runs.
    pub(super) fn ask(
        &mut self,
        admission: &Admission,
        now: u64,
        hold: Duration,
        round: &mut Round,
    ) -> TenantRound {
        let mut owners = TenantRound { before: round.leases.len(), ..TenantRound::default() };
        for TenantDemand { tenant, in_flight, is_waiting, rates, quotas } in
            admission.draw_in_tenants(TENANTS_MAX)
        {
            owners.is_waiting |= is_waiting;
            let mut lease = |of: Limited, name: &str, size: Amount, hold: Duration, demand: Demand, load| {
                let pool = format!("tenant:{tenant}:{name}");
                let renewal = self.leases.entry(pool.clone()).or_default().renew(
                    now,
                    demand,
                    load,
                    SharedWindow::default(),
                );
                let hold_ms = hold.as_millis() as u64;
                round.leases.push(Ask { pool: pool.clone(), size, hold_ms, renewal });
                owners.leases.push(Asked { tenant: tenant.clone(), of, pool, seq: renewal.seq });
            };
            if let Some((size, demand)) = in_flight {
                lease(Limited::InFlight, IN_FLIGHT, size, hold, demand, Amount::NONE);
            }
            for QuotaDemand { kind, window, remaining, pool, demand, used } in quotas {
                let name = format!("quota_{}:{}:{}", kind.as_str(), window.1.as_secs(), window.0);
                lease(Limited::Quota(kind, window), &name, pool, remaining + WINDOW_SLACK, demand, used);
            }
            for (kind, rate, demand) in rates {
                let owner = (tenant.clone(), kind);
                let draw = self.draws.entry(owner.clone()).or_default().ask(now, demand);
                let per_ms = rate.per.as_millis() as u64;
                let bucket = format!("tenant:{tenant}:rate_{}", kind.as_str());
                round.tokens.push(AskTokens { bucket, count: rate.count.get(), per_ms, draw });
                owners.tokens.push((owner, draw.seq));
            }
        }
        // One that was forgotten begins anew: its requests are numbered by the clock.
        let asking: HashSet<_> = owners.leases.iter().map(|asked| &asked.pool).collect();
        self.leases.retain(|pool, _| asking.contains(pool));
        let asking: HashSet<_> = owners.tokens.iter().map(|(owner, _)| owner).collect();
        self.draws.retain(|owner, _| asking.contains(owner));
        owners
    }

    /// Gives back all that is leased for queries in flight. What was used of quotas stays used.
    pub(super) fn leave(&mut self, now: u64) -> impl Iterator<Item = Ask> {
        let in_flight = self.leases.iter_mut().filter(|(pool, _)| pool.ends_with(IN_FLIGHT));
        in_flight.map(move |(pool, lease)| {
            let renewal = lease.renew(
                now,
                Demand { weight: 1, ..Demand::default() },
                Amount::NONE,
                SharedWindow::default(),
            );
            Ask { pool: pool.clone(), size: Amount::NONE, hold_ms: 0, renewal }
        })
    }

    /// Takes the answers to a round; none where the store gave none. `at` is the time of a number of milliseconds.
    pub(super) fn answered(
        &mut self,
        round: &TenantRound,
        answers: &Answers,
        admission: &Arc<Admission>,
        now: u64,
        at: impl Fn(u64) -> Instant,
    ) {
        for (place, Asked { tenant, of, pool, seq }) in round.leases.iter().enumerate() {
            let Some(lease) = self.leases.get_mut(pool) else { continue };
            let answer = answers.leases.get(round.before + place).and_then(Option::as_ref);
            if let Some(answer) = answer {
                lease.answered(now, *seq, answer);
            }
            let (leased, until) = (lease.usable(now), at(lease.until()));
            match *of {
                Limited::InFlight => admission.set_tenant_leased(tenant, leased, until),
                Limited::Quota(kind, window) => {
                    let others = answer.map(|answer| answer.others.bytes);
                    let lease = QuotaLease { leased: leased.bytes, until, others };
                    admission.set_quota_leased(tenant, kind, window, lease);
                }
            }
        }
        for ((owner, seq), drawn) in round.tokens.iter().zip(&answers.tokens) {
            let (Some(draws), Some(drawn)) = (self.draws.get_mut(owner), drawn) else { continue };
            if let Some((grant, until)) = draws.answered(now, *seq, drawn) {
                admission.add_tokens(&owner.0, owner.1, grant, at(until));
            }
        }
    }
}
