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
        share::{Amount, TokenKind},
    },
    fleet::{Answers, Ask, AskTokens, Draws, Lease, Round},
    limit::{Admission, TenantDemand},
};

/// Most tenants in a round, the busiest first; the others have their fixed parts.
pub(super) const TENANTS_MAX: usize = 64;

/// The leases and the requests for tokens of tenants that need them now.
#[derive(Default)]
pub(super) struct TenantShares {
    leases: HashMap<TenantId, Lease>,
    draws: HashMap<(TenantId, TokenKind), Draws>,
}

/// The owners of the requests of one round, each with the number of its request.
#[derive(Default)]
pub(super) struct TenantRound {
    /// The requests for leases before them.
    before: usize,
    leases: Vec<(TenantId, u64)>,
    tokens: Vec<((TenantId, TokenKind), u64)>,
    /// Queries wait for more.
    pub(super) is_waiting: bool,
}

impl TenantRound {
    /// Tenants that take part.
    pub(super) fn tenants(&self) -> usize {
        let of_tokens = self.tokens.iter().map(|((tenant, _), _)| tenant);
        self.leases.iter().map(|(tenant, _)| tenant).chain(of_tokens).collect::<HashSet<_>>().len()
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
        let hold_ms = hold.as_millis() as u64;
        for TenantDemand { tenant, in_flight, is_waiting, rates } in admission.draw_in_tenants(TENANTS_MAX) {
            owners.is_waiting |= is_waiting;
            if let Some((size, demand)) = in_flight {
                let renewal = self.leases.entry(tenant.clone()).or_default().renew(now, demand, Amount::NONE);
                round.leases.push(Ask { pool: format!("tenant:{tenant}:in_flight"), size, hold_ms, renewal });
                owners.leases.push((tenant.clone(), renewal.seq));
            }
            for (kind, rate, demand) in rates {
                let owner = (tenant.clone(), kind);
                let draw = self.draws.entry(owner.clone()).or_default().ask(now, demand);
                let per_ms = rate.per.as_millis() as u64;
                let bucket = format!("tenant:{tenant}:{}", kind.as_str());
                round.tokens.push(AskTokens { bucket, count: rate.count.get(), per_ms, draw });
                owners.tokens.push((owner, draw.seq));
            }
        }
        // One that was forgotten begins anew: its requests are numbered by the clock.
        let asking: HashSet<_> = owners.leases.iter().map(|(tenant, _)| tenant).collect();
        self.leases.retain(|tenant, _| asking.contains(tenant));
        let asking: HashSet<_> = owners.tokens.iter().map(|(owner, _)| owner).collect();
        self.draws.retain(|owner, _| asking.contains(owner));
        owners
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
        for (place, (tenant, seq)) in round.leases.iter().enumerate() {
            let Some(lease) = self.leases.get_mut(tenant) else { continue };
            if let Some(Some(answer)) = answers.leases.get(round.before + place) {
                lease.answered(now, *seq, answer);
            }
            admission.set_tenant_leased(tenant, lease.usable(now), at(lease.until()));
        }
        for ((owner, seq), drawn) in round.tokens.iter().zip(&answers.tokens) {
            let (Some(draws), Some(drawn)) = (self.draws.get_mut(owner), drawn) else { continue };
            if let Some((grant, until)) = draws.answered(now, *seq, drawn) {
                admission.add_tokens(&owner.0, owner.1, grant, at(until));
            }
        }
    }
}
