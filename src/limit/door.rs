//! What refuses a query before it asks for room: budgets that it can never fit, and rates; and what shadow mode notes.

use std::{num::NonZeroU64, sync::Arc};

use super::{
    admission::{Ask, Charged},
    budget::percent_of,
    permit::Held,
    policy::{Limit, Mode},
    rate::{Over, Verdict},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    state::State,
};
use tokio::time::Instant;

use crate::base::{ErrorKind, Estimate, TenantId};

impl State {
    /// Refuses a query that alone is more than a whole budget.
    pub(super) fn never(&self, ask: &Ask, held: &Held, shadow: &mut Vec<ShadowHit>) -> Result<(), Refusal> {
        let backend = &self.backends[held.backend];
        let others = self.reserve_of_others(held.class);
        let narrow = self.tenants.get(held.tenant).policy.in_flight.memory;
        let wide = backend.capacity.memory;
        let left = wide.max.map(|max| max.get() - percent_of(max.get(), others));
        for (is_narrow, max, mode) in
            [(true, narrow.max.map(NonZeroU64::get), narrow.mode), (false, left, wide.mode)]
        {
            let Some(max) = max.filter(|max| held.weight > *max && mode != Mode::Off) else {
                continue;
            };
            let scope = match (is_narrow, others) {
                (true, _) => Scope::Tenant(ask.tenant.clone()),
                (false, 0) => Scope::Backend(Arc::clone(&backend.name)),
                (false, _) => Scope::Class(Arc::clone(&self.classes[held.class].name)),
            };
            let refusal = Refusal {
                kind: ErrorKind::LimitExceeded,
                limit: LimitName::BudgetNever,
                observed: ask.cost.memory,
                max,
                scope,
                retry_after: None,
            };
            if mode == Mode::Enforce {
                return Err(refusal);
            }
            shadow.push(refusal);
        }
        Ok(())
    }

    /// Takes one query out of the tenant's bucket.
    pub(super) fn check_rate(&mut self, tenant: &TenantId, now: Instant) -> Result<Vec<ShadowHit>, Refusal> {
        let slot = self.tenants.slot(tenant, &self.policy, now);
        let verdict = self.tenants.get_mut(slot).buckets.take_query();
        let mut shadow = Vec::new();
        over_rate(verdict, LimitName::RateQueries, Estimate::exact(1), tenant, &mut shadow)?;
        Ok(shadow)
    }

    /// Takes a query and its samples out of the tenant's buckets, as far as they are not charged.
    pub(super) fn rates(
        &mut self,
        ask: &Ask,
        tenant: usize,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<(), Refusal> {
        let buckets = &mut self.tenants.get_mut(tenant).buckets;
        if ask.charged == Charged::Nothing {
            let verdict = buckets.take_query();
            over_rate(verdict, LimitName::RateQueries, Estimate::exact(1), &ask.tenant, shadow)?;
        }
        if ask.charged != Charged::All {
            let verdict = buckets.take_samples(ask.cost.samples.value);
            over_rate(verdict, LimitName::RateSamples, ask.cost.samples, &ask.tenant, shadow)?;
        }
        Ok(())
    }

    /// Percent of every budget kept free for other classes than this.
    pub(super) fn reserve_of_others(&self, class: usize) -> u8 {
        self.reserves().saturating_sub(self.classes[class].reserve_percent)
    }

    /// Percent of every budget kept free for classes.
    pub(super) fn reserves(&self) -> u8 {
        let sum: u32 = self.classes.iter().map(|c| u32::from(c.reserve_percent)).sum();
        sum.min(100) as u8
    }

    /// Notes the limits in shadow mode that running this query passes.
    pub(super) fn note_passed(&self, ask: &Ask, held: &Held, shadow: &mut Vec<ShadowHit>) {
        let account = self.tenants.get(held.tenant);
        let backend = &self.backends[held.backend];
        let (narrow, wide) = (account.policy.in_flight, &backend.capacity);
        let (tenant, whole) = (account.used.plus(held.weight), backend.used.plus(held.weight));
        let mut note = |limit: Limit, name, used: u128, is_narrow: bool| {
            let shadowed = limit.watched().filter(|_| limit.mode == Mode::Shadow);
            let Some(max) = shadowed.filter(|max| used > u128::from(*max)) else { return };
            let scope = if is_narrow {
                Scope::Tenant(ask.tenant.clone())
            } else {
                Scope::Backend(Arc::clone(&backend.name))
            };
            let observed = Estimate::new(u64::try_from(used).unwrap_or(u64::MAX), ask.cost.memory.confidence);
            let kind = ErrorKind::QueueTimeout;
            shadow.push(Refusal { kind, limit: name, observed, max, scope, retry_after: None });
        };
        note(narrow.queries, LimitName::InFlightQueries, tenant.queries.into(), true);
        note(narrow.memory, LimitName::InFlightMemory, tenant.memory, true);
        note(wide.queries, LimitName::InFlightQueries, whole.queries.into(), false);
        note(wide.memory, LimitName::InFlightMemory, whole.memory, false);
    }
}

/// What a bucket's verdict means for a query.
fn over_rate(
    verdict: Result<(), Verdict>,
    limit: LimitName,
    observed: Estimate,
    tenant: &TenantId,
    shadow: &mut Vec<ShadowHit>,
) -> Result<(), Refusal> {
    let Err(verdict) = verdict else { return Ok(()) };
    let (kind, retry_after) = match verdict.over {
        Over::NotYet(wait) => (ErrorKind::RateLimited, Some(wait)),
        Over::Never => (ErrorKind::LimitExceeded, None),
    };
    let scope = Scope::Tenant(tenant.clone());
    let refusal = Refusal { kind, limit, observed, max: verdict.max, scope, retry_after };
    if verdict.mode == Mode::Enforce {
        return Err(refusal);
    }
    shadow.push(refusal);
    Ok(())
}
