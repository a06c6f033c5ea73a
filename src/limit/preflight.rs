//! Checks before a query asks for room: budgets that it can never fit, and rates, in shadow mode as well.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    charge::{Charge, Payers},
    per_query::SoftHit,
    policy::{Limit, Mode},
    quota::{OverQuota, Room},
    rate::{Buckets, Over, OverRate},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    request::{AdmissionRequest, Charged},
    state::State,
};
use crate::base::{ErrorKind, Estimate, TenantId, share::TokenKind};

impl State {
    /// Refuses a query that alone is more than a whole budget.
    pub(super) fn exceeds_budget(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<(), Refusal> {
        let backend = &self.backends[charge.backend];
        let heavy = backend.budget.heaviest();
        let wide = (heavy, backend.budget.memory().mode, Scope::Backend(Arc::clone(&backend.name)));
        let narrow = charge.payers.iter().zip(&request.payers).map(|(slot, tenant)| {
            let account = self.tenants.get(*slot);
            (
                account.in_flight.heaviest(),
                account.policy.in_flight.memory.mode,
                Scope::Tenant(tenant.clone()),
            )
        });
        for (max, mode, scope) in narrow.chain([wide]) {
            let Some(max) = max.filter(|max| charge.bytes > *max && mode != Mode::Off) else { continue };
            let refusal = Refusal::exceeded(LimitName::BudgetNever, request.cost.memory, max, scope);
            if mode == Mode::Enforce {
                return Err(refusal);
            }
            shadow.push(refusal);
        }
        Ok(())
    }

    /// Takes a query out of its tenants' buckets, as far as it was not taken before.
    pub(super) fn rates(
        &mut self,
        request: &AdmissionRequest,
        payers: &[usize],
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<(), Refusal> {
        self.take_from_all(
            payers,
            |buckets, payer| {
                let tenant = &request.payers[payer];
                let queries = match request.charged {
                    Charged::Nothing => buckets.take_query(now),
                    Charged::Query | Charged::All => Ok(()),
                };
                let samples = match (&queries, request.charged) {
                    (Ok(()), Charged::Nothing | Charged::Query) => {
                        buckets.take_samples(request.cost.samples.value, now)
                    }
                    _ => Ok(()),
                };
                enforce_rate(queries, LimitName::RateQueries, Estimate::exact(1), tenant, shadow)?;
                enforce_rate(samples, LimitName::RateSamples, request.cost.samples, tenant, shadow)
            },
            |buckets| match request.charged {
                Charged::Nothing => buckets.undo(1, request.cost.samples.value, now),
                Charged::Query => buckets.undo(0, request.cost.samples.value, now),
                Charged::All => {}
            },
            now,
        )
    }

    /// Looks at the quotas of a query's tenants. Gives the first that it is over while it may run in the slow lane.
    pub(super) fn over_quota(
        &mut self,
        request: &AdmissionRequest,
        payers: &[usize],
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<Option<SoftHit>, Refusal> {
        let mut soft = None;
        if request.charged == Charged::All {
            return Ok(soft);
        }
        let clock = self.tenants.clock;
        for (slot, tenant) in payers.iter().zip(&request.payers) {
            let quotas = &mut self.tenants.get_mut(*slot).quotas;
            let over = quotas.over(request.cost.samples.value, clock, now);
            self.round_wanted |= quotas.are_due(now);
            soft = soft.or(enforce_quotas(&over, request.cost.samples, tenant, shadow)?);
        }
        Ok(soft)
    }

    /// Debits a query to the quotas of its tenants.
    pub(super) fn debit(&mut self, request: &AdmissionRequest, charge: &Charge, now: Instant) {
        if request.charged != Charged::All {
            for tenant in &charge.payers {
                self.tenants.get_mut(*tenant).quotas.debit(charge.samples, now);
            }
        }
    }

    /// Settles a query with its tenants' quotas: it read this number of samples, or never ran.
    pub(super) fn settle_quotas(&mut self, charge: &Charge, actual: Option<u64>, now: Instant) {
        let clock = self.tenants.clock;
        for tenant in &charge.payers {
            let quotas = &mut self.tenants.get_mut(*tenant).quotas;
            quotas.settle(charge.samples, actual, charge.asked, (clock, now));
        }
    }

    /// Takes one query out of each tenant's bucket.
    pub(super) fn check_rate(
        &mut self,
        payers: &[TenantId],
        now: Instant,
    ) -> Result<Vec<ShadowHit>, Refusal> {
        let slots: Payers =
            payers.iter().map(|tenant| self.tenants.slot(tenant, &self.policy, now)).collect();
        let mut shadow = Vec::new();
        let take = |buckets: &mut Buckets, payer: usize| {
            let verdict = buckets.take_query(now);
            enforce_rate(verdict, LimitName::RateQueries, Estimate::exact(1), &payers[payer], &mut shadow)
        };
        self.take_from_all(&slots, take, |buckets| buckets.undo(1, 0, now), now)?;
        Ok(shadow)
    }

    /// Puts one query back into each tenant's bucket.
    pub(super) fn give_rate_back(&mut self, payers: &[TenantId], now: Instant) {
        for tenant in payers {
            let slot = self.tenants.slot(tenant, &self.policy, now);
            self.tenants.get_mut(slot).buckets.give_query_back(now);
        }
    }

    /// Takes from the buckets of all payers, each by its position. Where one refuses, those before it get theirs back.
    fn take_from_all(
        &mut self,
        payers: &[usize],
        mut take: impl FnMut(&mut Buckets, usize) -> Result<(), Refusal>,
        give_back: impl Fn(&mut Buckets),
        now: Instant,
    ) -> Result<(), Refusal> {
        for (payer, slot) in payers.iter().enumerate() {
            let buckets = &mut self.tenants.get_mut(*slot).buckets;
            let taken = take(buckets, payer);
            self.round_wanted |= buckets.is_due(now);
            if let Err(refusal) = taken {
                for slot in payers.iter().take(payer) {
                    give_back(&mut self.tenants.get_mut(*slot).buckets);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Notes the limits in shadow mode that this query exceeds while it runs.
    pub(super) fn note_exceeded(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
        shadow: &mut Vec<ShadowHit>,
    ) {
        let mut note = |limit: Limit, name, used: u128, scope: &Scope| {
            let shadowed = limit.threshold().filter(|_| limit.mode == Mode::Shadow);
            let Some(max) = shadowed.filter(|max| used > u128::from(*max)) else { return };
            let observed =
                Estimate::new(u64::try_from(used).unwrap_or(u64::MAX), request.cost.memory.confidence);
            let passed = Refusal::exceeded(name, observed, max, scope.clone());
            shadow.push(Refusal { kind: ErrorKind::QueueTimeout, ..passed });
        };
        for (slot, tenant) in charge.payers.iter().zip(&request.payers) {
            let account = self.tenants.get(*slot);
            let (limits, with) = (account.policy.in_flight, account.used.plus(charge.bytes));
            let scope = Scope::Tenant(tenant.clone());
            note(limits.queries, LimitName::InFlightQueries, with.queries.into(), &scope);
            note(limits.memory, LimitName::InFlightMemory, with.memory, &scope);
        }
        let backend = &self.backends[charge.backend];
        let with = backend.used().plus(charge.bytes);
        let scope = Scope::Backend(Arc::clone(&backend.name));
        note(backend.budget.queries(), LimitName::InFlightQueries, with.queries.into(), &scope);
        note(backend.budget.memory(), LimitName::InFlightMemory, with.memory, &scope);
    }
}

/// The verdict on a query of this number of samples over quotas of a tenant. Gives the first that it is over while it may run in
/// the slow lane.
pub(super) fn enforce_quotas(
    over: &[OverQuota],
    samples: Estimate,
    tenant: &TenantId,
    shadow: &mut Vec<ShadowHit>,
) -> Result<Option<SoftHit>, Refusal> {
    let mut soft = None;
    for OverQuota { kind, mode, room, used, max, refused_over } in over.iter().copied() {
        let limit = match kind {
            TokenKind::Queries => LimitName::QuotaQueries,
            TokenKind::Samples => LimitName::QuotaSamples,
        };
        match room {
            Room::Slow if mode == Mode::Enforce => {
                let (observed, refused_over) = (Estimate::exact(used), Some(refused_over));
                soft.get_or_insert(SoftHit { limit, observed, max, refused_over, tenant: tenant.clone() });
            }
            Room::Within | Room::Slow => {}
            Room::None(over) => {
                let observed = if over == Over::Never { samples } else { Estimate::exact(used) };
                enforce_rate(Err(OverRate { over, mode, max }), limit, observed, tenant, shadow)?;
            }
        }
    }
    Ok(soft)
}

pub(super) fn enforce_rate(
    result: Result<(), OverRate>,
    limit: LimitName,
    observed: Estimate,
    tenant: &TenantId,
    shadow: &mut Vec<ShadowHit>,
) -> Result<(), Refusal> {
    let Err(over) = result else { return Ok(()) };
    let (kind, retry_after) = match over.over {
        Over::NotYet(wait) => (ErrorKind::RateLimited, Some(wait)),
        Over::Never => (ErrorKind::LimitExceeded, None),
    };
    let exceeded = Refusal::exceeded(limit, observed, over.max, Scope::Tenant(tenant.clone()));
    let refusal = Refusal { kind, retry_after, ..exceeded };
    if over.mode == Mode::Enforce {
        return Err(refusal);
    }
    shadow.push(refusal);
    Ok(())
}
