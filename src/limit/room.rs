//! Whether there is room for a query, the narrow limit before the wide one.
//!
//! A little of every budget is for light queries only, so that a handful of heavy ones, or one tenant, cannot make
//! everybody else wait until they are done: half of the slots and a thirty-second of the memory. Its tenant must
//! hold no more than that half itself, unless nobody else runs anything.
//!
//! What is heavier runs within the window of what estimates have proved true for (`proof`).
//!
//! Under pressure the same little of the *whole* budget is a floor: light queries run on it though what was admitted
//! before fills all that is left, and even when nothing is left. They are not what the pressure comes from, and heavier
//! ones were kept off that part of the budget all along, so that the whole is not passed.

use super::{
    budget::{Usage, WHOLE, kept_for},
    permit::Held,
    queue::Room,
    state::{Backend, State},
};

/// One part in this of the memory is for light queries.
const MEMORY_FOR_LIGHT: u64 = 32;
/// One slot in this is for light queries.
const SLOTS_FOR_LIGHT: u64 = 2;
/// With fewer slots than this, every slot is for everybody.
const FEW_SLOTS: u64 = 4;

fn slots_for_light(slots: u64) -> u64 {
    if slots < FEW_SLOTS { 0 } else { slots / SLOTS_FOR_LIGHT }
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
        let light = backend.capacity.is_light(held.weight);
        let slots = narrow.queries.enforced().map(|max| if light { max } else { max - slots_for_light(max) });
        if !account.used.plus(held.weight).within(narrow.memory.enforced(), slots) {
            return Room::TenantFull;
        }
        if self.has_shared_room(held, waiter) || self.has_floor(backend, held) {
            Room::Enough
        } else {
            Room::BackendFull
        }
    }

    /// Whether a query that has room has it on the floor only.
    pub(super) fn takes_floor(&self, held: &Held, waiter: Option<u64>) -> bool {
        self.backends[held.backend].capacity.ppm < WHOLE && !self.has_shared_room(held, waiter)
    }

    /// Whether there is room in what pressure leaves to everybody.
    fn has_shared_room(&self, held: &Held, waiter: Option<u64>) -> bool {
        let backend = &self.backends[held.backend];
        let light = backend.capacity.is_light(held.weight);
        let holds_back = backend.hold.is_some_and(|hold| Some(hold.waiter) != waiter);
        backend.capacity.ppm > 0
            && self.has_slot(backend, held, light)
            && self.has_memory(backend, held)
            && (!holds_back || self.spares_the_hold(backend, held))
    }

    /// Whether there is room on the floor for light queries. A tenant that holds as much as the floor already, of
    /// whatever weight, gets none of it while others run anything.
    fn has_floor(&self, backend: &Backend, held: &Held) -> bool {
        let mine = self.tenants.get(held.tenant).queries_at(held.backend);
        let slots = backend.capacity.queries.enforced().map(floor_slots);
        let may = slots.is_none_or(|slots| mine < slots) || backend.used.queries <= mine;
        may && floor_takes(backend, held.weight)
    }

    fn has_slot(&self, backend: &Backend, held: &Held, light: bool) -> bool {
        let Some(whole) = backend.capacity.queries.enforced() else { return true };
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
        let is_proven = backend.capacity.is_light(held.weight)
            || backend.used.plus(held.weight).memory <= u128::from(backend.window_for(whole, held.weight));
        if !is_proven {
            return false;
        }
        let max = backend.capacity.of_memory(whole);
        let reserve = |percent| kept_for(whole, max, percent, self.reserves());
        let for_light = max / MEMORY_FOR_LIGHT;
        let others = reserve(self.reserve_of_others(held.class));
        // One that needs all that is not reserved may have it.
        let may_take_all =
            backend.capacity.is_light(held.weight) || held.weight > (max - for_light).saturating_sub(others);
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
        let max = backend.capacity.of_memory(whole).min(backend.window_for(whole, hold.held.weight));
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

impl Backend {
    /// Bytes that may be in flight with a query of this weight, as far as estimates have proved true: it may always run
    /// beside light ones.
    fn window_for(&self, whole: u64, weight: u64) -> u64 {
        let window = self.proof.window(whole, self.capacity.unproven_percent);
        window.max(weight.saturating_add(whole / MEMORY_FOR_LIGHT))
    }

    /// A query was answered whole: while the budget binds, its estimate has proved true.
    pub(super) fn prove(&mut self, weight: u64) {
        if let Some(whole) = self.capacity.memory.enforced().filter(|_| !self.capacity.is_light(weight)) {
            self.proof.ended(weight, self.used.memory, whole, self.capacity.unproven_percent);
        }
    }
}

/// The slots of the floor: what is kept for light queries of all slots, and at least one.
fn floor_slots(slots: u64) -> u64 {
    slots_for_light(slots).max(1)
}

/// Whether the floor takes another query of this weight, whoever's it is, within the whole budget.
pub(super) fn floor_takes(backend: &Backend, weight: u64) -> bool {
    let Backend { capacity, used, on_floor, .. } = backend;
    let (memory, queries) = (capacity.memory.enforced(), capacity.queries.enforced());
    let floor = memory.map(|max| max / MEMORY_FOR_LIGHT);
    capacity.has_floor_for(weight)
        && on_floor.plus(weight).within(floor, queries.map(floor_slots))
        && used.plus(weight).within(memory, queries)
}
