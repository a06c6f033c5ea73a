//! The accounts of tenants: bounded, whatever names come from the wire.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    budget::Usage,
    permit::Held,
    policy::{Policy, TenantPolicy},
    rate::Buckets,
};
use crate::base::TenantId;

/// One tenant's account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: TenantId,
    pub(super) policy: Arc<TenantPolicy>,
    pub(super) used: Usage,
    /// Queries in flight by backend.
    by_backend: SmallVec<[u64; 2]>,
    pub(super) waiting: usize,
    pub(super) buckets: Buckets,
    pub(super) seen: Instant,
    /// Whether the configuration names it.
    named: bool,
}

impl Account {
    fn new(id: TenantId, policy: &Policy, now: Instant) -> Self {
        let named = policy.tenants.contains_key(&id);
        let policy = Arc::clone(policy.tenant(&id));
        let buckets = Buckets::new(&policy.rate);
        Self {
            id,
            policy,
            used: Usage::default(),
            by_backend: SmallVec::new(),
            waiting: 0,
            buckets,
            seen: now,
            named,
        }
    }

    pub(super) fn charge(&mut self, held: &Held) {
        self.used.add(held.weight);
        if self.by_backend.len() <= held.backend {
            self.by_backend.resize(held.backend + 1, 0);
        }
        self.by_backend[held.backend] += 1;
    }

    pub(super) fn give_back(&mut self, held: &Held) {
        self.used.remove(held.weight);
        // What was charged made the place.
        self.by_backend[held.backend] -= 1;
    }

    /// Queries in flight on a backend.
    pub(super) fn queries_at(&self, backend: usize) -> u64 {
        self.by_backend.get(backend).copied().unwrap_or(0)
    }

    /// Whether forgetting it changes nothing for anybody.
    fn is_idle(&self, now: Instant) -> bool {
        self.used.is_nothing() && self.waiting == 0 && now >= self.seen + self.buckets.refill()
    }
}

/// Where the tenants that are not told apart have their common account.
const SHARED: usize = 0;
/// Accounts looked at for an idle one before the common account is used.
const SWEEP: usize = 16;

/// All accounts. A slot stays the tenant's while it holds or waits for anything.
#[derive(Debug)]
pub(super) struct Tenants {
    slots: Vec<Account>,
    by_id: HashMap<TenantId, usize>,
    /// Accounts of tenants that the configuration does not name.
    unnamed: usize,
    hand: usize,
}

impl Tenants {
    pub(super) fn new(policy: &Policy, other: TenantId, now: Instant) -> Self {
        let mut shared = Account::new(other, policy, now);
        shared.policy = Arc::clone(&policy.default);
        shared.buckets = Buckets::new(&policy.default.rate);
        Self { slots: vec![shared], by_id: HashMap::new(), unnamed: 0, hand: 0 }
    }

    /// The slot of a tenant's account, made if needed.
    pub(super) fn slot(&mut self, id: &TenantId, policy: &Policy, now: Instant) -> usize {
        let slot = match self.by_id.get(id) {
            Some(slot) => *slot,
            None => self.open(id, policy, now),
        };
        self.slots[slot].seen = now;
        slot
    }

    fn open(&mut self, id: &TenantId, policy: &Policy, now: Instant) -> usize {
        let account = Account::new(id.clone(), policy, now);
        let named = account.named;
        // Names of configurations before this one may have left more accounts than there should be.
        let room = if named { policy.tenants_max } else { policy.tenants_max.saturating_sub(1) };
        let free = if self.unnamed > room { self.close_idle(now) } else { None };
        let slot = match free {
            Some(slot) => {
                self.slots[slot] = account;
                slot
            }
            None if named || self.unnamed <= room => {
                self.slots.push(account);
                self.slots.len() - 1
            }
            None => return SHARED,
        };
        self.unnamed += usize::from(!named);
        self.by_id.insert(id.clone(), slot);
        slot
    }

    /// Closes an account that nobody misses; its slot is free for another.
    fn close_idle(&mut self, now: Instant) -> Option<usize> {
        for _ in 0..SWEEP {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { SHARED + 1 };
            let old = self.slots.get(self.hand)?;
            if !old.named && old.is_idle(now) {
                self.by_id.remove(&old.id);
                self.unnamed -= 1;
                return Some(self.hand);
            }
        }
        None
    }

    /// Takes over a changed policy; what is held stays held.
    pub(super) fn reload(&mut self, policy: &Policy) {
        self.unnamed = 0;
        for (slot, account) in self.slots.iter_mut().enumerate() {
            account.named = slot != SHARED && policy.tenants.contains_key(&account.id);
            account.policy =
                Arc::clone(if slot == SHARED { &policy.default } else { policy.tenant(&account.id) });
            account.buckets.reload(&account.policy.rate);
            self.unnamed += usize::from(slot != SHARED && !account.named);
        }
    }

    pub(super) fn get(&self, slot: usize) -> &Account {
        &self.slots[slot]
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> &mut Account {
        &mut self.slots[slot]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.slots.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
