//! The accounts of tenants: bounded, for any names from the wire.

use std::{collections::HashMap, sync::Arc};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    charge::{Charge, Phase},
    fractions,
    in_flight_share::{Backlog, InFlightShare},
    lane::{Lane, Open},
    policy::{Policy, Sharing, TenantPolicy},
    quota::{Quotas, WallClock},
    rate::Buckets,
    tumbling_window::TumblingWindow,
    usage::Usage,
    wait::WaitReason,
};
use crate::base::{
    TenantId,
    share::{Amount, Demand},
};

/// One tenant's account.
#[derive(Debug)]
pub(super) struct TenantAccount {
    pub(super) id: TenantId,
    pub(super) policy: Arc<TenantPolicy>,
    /// This proxy's part of the limits on queries in flight.
    pub(super) in_flight: InFlightShare,
    /// The usage of its queries, those included of which only the client's part is left.
    pub(super) used: Usage,
    /// The part of its heavy queries.
    heavy: Usage,
    /// The part of its running queries in each backend's lanes.
    lanes: SmallVec<[[Usage; 2]; 1]>,
    pub(super) waiting: usize,
    pub(super) buckets: Buckets,
    pub(super) quotas: Quotas,
    pub(super) seen: Instant,
    /// Queries that it asked of late; counted where limits are leased.
    pub(super) asked: TumblingWindow<u64>,
    /// It is on the list of those that may need a lease.
    listed: bool,
    /// Whether the configuration names it.
    named: bool,
}

impl TenantAccount {
    fn new(id: TenantId, policy: Arc<TenantPolicy>, sharing: Sharing, now: Instant) -> Self {
        Self {
            id,
            in_flight: InFlightShare::new(policy.in_flight, sharing),
            buckets: Buckets::new(&policy.rate, sharing),
            quotas: Quotas::new(&policy.quota, sharing),
            policy,
            used: Usage::default(),
            heavy: Usage::default(),
            lanes: SmallVec::new(),
            waiting: 0,
            seen: now,
            asked: TumblingWindow::default(),
            listed: false,
            named: false,
        }
    }

    /// Charges a query that runs in its lane; `light` is a property of the query, in either lane.
    pub(super) fn charge(&mut self, charge: &Charge, now: Instant) {
        self.used.add(charge.bytes);
        if !charge.light {
            self.heavy.add(charge.bytes);
        }
        self.in_flight.began(self.used, self.heavy, now);
        if self.lanes.len() <= charge.backend {
            self.lanes.resize(charge.backend + 1, [Usage::default(); 2]);
        }
        self.lanes[charge.backend][charge.lane as usize].add(charge.bytes);
    }

    /// A query leaves its lane.
    pub(super) fn leave_lane(&mut self, charge: &Charge) {
        // Charging it made the place.
        self.lanes[charge.backend][charge.lane as usize].remove(charge.bytes);
    }

    /// A query that is in this phase gives back everything.
    pub(super) fn give_back(&mut self, charge: &Charge, phase: Phase) {
        self.used.remove(charge.bytes);
        if !charge.light {
            self.heavy.remove(charge.bytes);
        }
        if phase == Phase::Runs {
            self.leave_lane(charge);
        }
    }

    /// Whether a query is within this proxy's part of the tenant's limits.
    pub(super) fn fits(&self, charge: &Charge, now: Instant) -> Result<(), WaitReason> {
        self.in_flight.fits((self.used, self.heavy), charge, now)
    }

    /// Draws its lease in to what is held. Gives the pool and the demand, unless nothing is needed or leased.
    pub(super) fn draw_in(&mut self, backlog: &Backlog, now: Instant) -> Option<(Amount, Demand)> {
        self.in_flight.draw_in((self.used, self.heavy), backlog, now)
    }

    /// Whether a charge is within its part of a lane: of the slots, and of the light lane's memory as well.
    pub(super) fn fits_lane(&self, charge: &Charge, lane: Lane, whole: Open) -> Result<(), WaitReason> {
        let held = self.lanes.get(charge.backend).map_or(Usage::default(), |lanes| lanes[lane as usize]);
        let memory = whole.memory.filter(|_| lane == Lane::Light).map(fractions::tenant_part);
        let with = held.plus(charge.bytes);
        if held.is_nothing() || with.within(memory, whole.slots.map(fractions::tenant_part)) {
            Ok(())
        } else {
            Err(WaitReason::TenantSlots)
        }
    }

    /// Whether it can be forgotten without an effect.
    fn is_idle(&self, clock: WallClock, now: Instant) -> bool {
        let is_over = self.used.is_nothing() && self.waiting == 0 && !self.listed;
        is_over && !self.quotas.are_used(clock, now) && now >= self.seen + self.buckets.refill()
    }
}

/// The common account of the tenants beyond `tenants_max`.
const SHARED: usize = 0;
/// Accounts looked at for an idle one before the common account is used.
const SWEEP: usize = 16;

/// All accounts. A slot stays the tenant's while it holds or waits for anything.
#[derive(Debug)]
pub(super) struct Tenants {
    slots: Vec<TenantAccount>,
    by_id: HashMap<TenantId, usize>,
    /// Accounts of tenants that the configuration does not name.
    unnamed: usize,
    hand: usize,
    sharing: Sharing,
    /// Accounts that asked, held or waited of late, where limits are leased.
    listed: Vec<usize>,
    pub(super) clock: WallClock,
}

impl Tenants {
    pub(super) fn new(policy: &Policy, other: TenantId, now: Instant) -> Self {
        let sharing = policy.sharing;
        let shared = TenantAccount::new(other, Arc::clone(&policy.default), sharing, now);
        let (slots, by_id, listed) = (vec![shared], HashMap::new(), Vec::new());
        Self { slots, by_id, unnamed: 0, hand: 0, sharing, listed, clock: WallClock::new(now) }
    }

    /// The slot of a tenant's account, made if needed.
    pub(super) fn slot(&mut self, id: &TenantId, policy: &Policy, now: Instant) -> usize {
        let slot = match self.by_id.get(id) {
            Some(slot) => *slot,
            None => self.open(id, policy, now),
        };
        let account = &mut self.slots[slot];
        account.seen = now;
        if self.sharing.leased {
            *account.asked.at(now) += 1;
            if !std::mem::replace(&mut account.listed, true) {
                self.listed.push(slot);
            }
        }
        slot
    }

    /// The slot of a tenant's account, if it has one.
    pub(super) fn find(&self, id: &TenantId) -> Option<usize> {
        self.by_id.get(id).copied().or_else(|| (self.slots[SHARED].id == *id).then_some(SHARED))
    }

    /// Takes out the accounts that asked, held or waited of late.
    pub(super) fn take_listed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.listed)
    }

    /// Lists an account again while it is in use, or has a lease to give back.
    pub(super) fn list_again(&mut self, slot: usize, now: Instant) {
        let account = &mut self.slots[slot];
        let in_use = !account.used.is_nothing() || account.waiting > 0 || account.in_flight.is_leased();
        // The store knows the use of a quota only while it is reported.
        let is_reported = account.quotas.exceed_fixed_part();
        account.listed = in_use || is_reported || account.asked.both(now) != [0, 0];
        if account.listed {
            self.listed.push(slot);
        }
    }

    fn open(&mut self, id: &TenantId, policy: &Policy, now: Instant) -> usize {
        let named = policy.tenants.contains_key(id);
        let own = TenantAccount::new(id.clone(), Arc::clone(policy.tenant(id)), self.sharing, now);
        let account = TenantAccount { named, ..own };
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
            if !old.named && old.is_idle(self.clock, now) {
                self.by_id.remove(&old.id);
                self.unnamed -= 1;
                return Some(self.hand);
            }
        }
        None
    }

    /// Takes over a changed policy; charges stay.
    pub(super) fn reload(&mut self, policy: &Policy) {
        self.unnamed = 0;
        self.sharing = policy.sharing;
        for (slot, account) in self.slots.iter_mut().enumerate() {
            account.named = slot != SHARED && policy.tenants.contains_key(&account.id);
            account.policy =
                Arc::clone(if slot == SHARED { &policy.default } else { policy.tenant(&account.id) });
            account.in_flight.reload(account.policy.in_flight, policy.sharing);
            account.buckets.reload(&account.policy.rate, policy.sharing);
            account.quotas.reload(&account.policy.quota, policy.sharing);
            self.unnamed += usize::from(slot != SHARED && !account.named);
        }
    }

    /// Adds to the number of waiting queries of these tenants.
    pub(super) fn waiting(&mut self, payers: &[usize], more: isize) {
        for slot in payers {
            let account = &mut self.slots[*slot];
            account.waiting = account.waiting.saturating_add_signed(more);
        }
    }

    pub(super) fn get(&self, slot: usize) -> &TenantAccount {
        &self.slots[slot]
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> &mut TenantAccount {
        &mut self.slots[slot]
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TenantAccount> {
        self.slots.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TenantAccount> {
        self.slots.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
