//! Whether there is room for a query, the narrow limit before the wide one.
//!
//! A little of every budget is for light queries only, so that a handful of heavy ones, or one tenant, cannot make
//! everybody else wait until they are done: an eighth of the slots and a thirty-second of the memory. Its tenant must
//! hold no more than that eighth itself, unless nobody else runs anything.

use super::{
    budget::{Usage, WHOLE, kept_for},
    permit::Held,
    queue::Room,
    state::{Backend, State},
};

/// A query is light if it needs no more of the backend's memory than one part in this.
const LIGHT: u64 = 128;
/// One part in this of the memory is for light queries.
const MEMORY_FOR_LIGHT: u64 = 32;
/// One slot in this is for light queries.
const SLOTS_FOR_LIGHT: u64 = 8;
/// With fewer slots than this, every slot is for everybody.
const FEW_SLOTS: u64 = 4;

fn slots_for_light(slots: u64) -> u64 {
    if slots < FEW_SLOTS { 0 } else { slots.div_ceil(SLOTS_FOR_LIGHT) }
}

/// A dear query that waits for memory. What is admitted meanwhile must leave its bytes free, so that it runs when those
/// that ran before it are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// Which hold this is; permits given meanwhile carry it.
    pub(super) epoch: u64,
    /// The waiter.
    pub(super) waiter: u64,
    /// What it would hold.
    pub(super) held: Held,
    /// Bytes given to others since, and not back yet.
    pub(super) fresh: u128,
}

impl State {
    /// Whether a query may run now.
    pub(super) fn room(&self, held: &Held, waiter: Option<u64>) -> Room {
        let backend = &self.backends[held.backend];
        let account = self.tenants.get(held.tenant);
        let narrow = account.policy.in_flight;
        let light = is_light(backend, held.weight);
        let slots = narrow.queries.enforced().map(|max| if light { max } else { max - slots_for_light(max) });
        if !account.used.plus(held.weight).within(narrow.memory.enforced(), slots) {
            return Room::TenantFull;
        }
        let holds_back = || backend.hold.is_some_and(|hold| Some(hold.waiter) != waiter);
        if !self.has_slot(backend, held, light)
            || !self.has_memory(backend, held)
            || (holds_back() && !self.spares_the_hold(backend, held))
        {
            return Room::BackendFull;
        }
        Room::Enough
    }

    fn has_slot(&self, backend: &Backend, held: &Held, light: bool) -> bool {
        let Some(whole) = backend.capacity.queries.enforced() else { return !backend.capacity.is_none() };
        let max = backend.capacity.of_queries(whole);
        let reserve = |percent| kept_for(whole, max, percent, self.reserves());
        let mine = self.tenants.get(held.tenant).queries_at(held.backend);
        let for_light = slots_for_light(max);
        let alone = backend.used.queries <= mine;
        let others = reserve(self.reserve_of_others(held.class));
        // Neither what is kept for light queries nor what is reserved takes the last slot from anybody, but under
        // pressure: there the last is for whom it is reserved.
        let least = u128::from(backend.capacity.ppm == WHOLE);
        let may_take_all = (light && (alone || mine < for_light)) || for_light + others >= max;
        let kept = self.unused_reserves(backend, held.class, |usage, percent| {
            u128::from(reserve(percent).saturating_sub(usage.queries))
        });
        let left =
            u128::from(if may_take_all { max } else { max - for_light }).saturating_sub(kept).max(least);
        u128::from(backend.used.queries) < left
    }

    pub(super) fn has_memory(&self, backend: &Backend, held: &Held) -> bool {
        let Some(whole) = backend.capacity.memory.enforced() else { return true };
        let max = backend.capacity.of_memory(whole);
        let reserve = |percent| kept_for(whole, max, percent, self.reserves());
        let for_light = max / MEMORY_FOR_LIGHT;
        let others = reserve(self.reserve_of_others(held.class));
        // One that needs all that is not reserved may have it.
        let may_take_all =
            is_light(backend, held.weight) || held.weight > (max - for_light).saturating_sub(others);
        let kept = self.unused_reserves(backend, held.class, |usage, percent| {
            u128::from(reserve(percent)).saturating_sub(usage.memory)
        });
        let left = u128::from(if may_take_all { max } else { max - for_light }).saturating_sub(kept);
        backend.used.plus(held.weight).memory <= left
    }

    /// Whether a query leaves enough for the one that waits for memory. What is reserved for its class is its own, and
    /// an eighth is for others in any case.
    fn spares_the_hold(&self, backend: &Backend, held: &Held) -> bool {
        let (Some(hold), Some(whole)) = (backend.hold, backend.capacity.memory.enforced()) else {
            return true;
        };
        let max = backend.capacity.of_memory(whole);
        let reserve = kept_for(whole, max, self.classes[held.class].reserve_percent, self.reserves());
        let within_reserve = backend.by_class[held.class].plus(held.weight).memory <= u128::from(reserve);
        let others = max.saturating_sub(hold.held.weight).max(max / 8);
        within_reserve || hold.fresh + u128::from(held.weight) <= u128::from(others)
    }

    /// What is reserved for other classes and not used by them.
    fn unused_reserves(&self, backend: &Backend, but: usize, unused: impl Fn(&Usage, u8) -> u128) -> u128 {
        self.classes
            .iter()
            .zip(&backend.by_class)
            .enumerate()
            .filter(|(slot, (class, _))| *slot != but && class.reserve_percent > 0)
            .map(|(_, (class, usage))| unused(usage, class.reserve_percent))
            .sum()
    }
}

fn is_light(backend: &Backend, weight: u64) -> bool {
    backend.capacity.memory.max.is_none_or(|max| weight <= max.get() / LIGHT)
}
