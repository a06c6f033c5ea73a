//! What must hold after every step, as pure functions over the accounts and the permits that are out.

use super::{
    budget::{Usage, kept_for},
    permit::Held,
    queue::Room,
    state::{Backend, State},
};

/// What was held before a step, to tell a budget that is passed from one that shrank.
pub(super) struct Before {
    backends: Vec<Usage>,
    on_floor: Vec<Usage>,
    by_class: Vec<Vec<Usage>>,
    tenants: Vec<Usage>,
}

impl Before {
    pub(super) fn of(state: &State) -> Self {
        Self {
            backends: state.backends.iter().map(|backend| backend.used).collect(),
            on_floor: state.backends.iter().map(|backend| backend.on_floor).collect(),
            by_class: state.backends.iter().map(|backend| backend.by_class.clone()).collect(),
            tenants: state.tenants.iter().map(|account| account.used).collect(),
        }
    }
}

/// Everything that is broken, in words. A tenant that the configuration once named keeps its account when a reload drops
/// the name, so those come on top of the bound: `named_ever`.
pub(super) fn broken(state: &State, permits: &[Held], before: &Before, named_ever: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(leaks(state, permits));
    wrong.extend(excesses(state, before));
    wrong.extend(taken_reserves(state, before));
    wrong.extend(forgotten(state));
    wrong.extend(holds(state, permits));
    if state.tenants.len() > state.policy.tenants_max + named_ever {
        wrong.push(format!("{} tenants are told apart", state.tenants.len()));
    }
    wrong
}

fn sum<'a>(permits: impl Iterator<Item = &'a Held>) -> Usage {
    permits.fold(Usage::default(), |sum, held| sum.plus(held.weight))
}

/// What is held is what the permits that are out hold, everywhere.
fn leaks(state: &State, permits: &[Held]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (slot, backend) in state.backends.iter().enumerate() {
        let here: Vec<_> = permits.iter().filter(|held| held.backend == slot).collect();
        if backend.used != sum(here.iter().copied()) {
            wrong.push(format!("backend {}: {:?} is held by nobody", backend.name, backend.used));
        }
        if backend.on_floor != sum(here.iter().copied().filter(|held| held.on_floor)) {
            wrong.push(format!("the floor of {}: {:?} is held by nobody", backend.name, backend.on_floor));
        }
        for (class, used) in backend.by_class.iter().enumerate() {
            if *used != sum(here.iter().copied().filter(|held| held.class == class)) {
                wrong.push(format!("class {class} at {}: {used:?} is held by nobody", backend.name));
            }
        }
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        if account.used != sum(permits.iter().filter(|held| held.tenant == slot)) {
            wrong.push(format!("tenant {}: {:?} is held by nobody", account.id, account.used));
        }
    }
    wrong
}

fn without(all: Usage, part: Usage) -> Usage {
    Usage { memory: all.memory - part.memory, queries: all.queries - part.queries }
}

/// No budget is passed by what was admitted; one that shrank may be until permits come back.
fn excesses(state: &State, before: &Before) -> Vec<String> {
    let mut wrong = Vec::new();
    let grew = |now: Usage, before: Option<&Usage>| {
        let before = before.copied().unwrap_or_default();
        now.memory > before.memory || now.queries > before.queries
    };
    for (slot, backend) in state.backends.iter().enumerate() {
        let capacity = &backend.capacity;
        let (memory, queries) = (capacity.memory.enforced(), capacity.queries.enforced());
        let (used, floor) = (before.backends.get(slot), before.on_floor.get(slot));
        if !backend.used.within(memory, queries) && grew(backend.used, used) {
            wrong.push(format!("backend {}: {:?} passes its budget", backend.name, backend.used));
        }
        let shared = without(backend.used, backend.on_floor);
        let shared_before = used.zip(floor).map(|(used, floor)| without(*used, *floor));
        let left = (memory.map(|max| capacity.of_memory(max)), queries.map(|max| capacity.of_queries(max)));
        if !shared.within(left.0, left.1) && grew(shared, shared_before.as_ref()) {
            wrong.push(format!("backend {}: {shared:?} passes what pressure leaves", backend.name));
        }
        let floor_max = (memory.map(|max| max / 32), queries.map(|max| (max / 2).max(1)));
        if !backend.on_floor.within(floor_max.0, floor_max.1) && grew(backend.on_floor, floor) {
            wrong.push(format!("backend {}: {:?} passes the floor", backend.name, backend.on_floor));
        }
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        let narrow = account.policy.in_flight;
        if !account.used.within(narrow.memory.enforced(), narrow.queries.enforced())
            && grew(account.used, before.tenants.get(slot))
        {
            wrong.push(format!("tenant {}: {:?} passes its limit", account.id, account.used));
        }
    }
    wrong
}

/// What is reserved for a class and not used by it stays free: the rest gives way first when a budget shrinks. A budget
/// that has just shrunk may be held by others until permits come back, but nobody takes more of it.
fn taken_reserves(state: &State, before: &Before) -> Vec<String> {
    let mut wrong = Vec::new();
    for (slot, backend) in state.backends.iter().enumerate() {
        let Some(whole) = backend.capacity.memory.enforced() else { continue };
        let left = backend.capacity.of_memory(whole);
        // What is used or kept, each class by the larger of the two.
        let claimed = |by_class: &[Usage]| {
            // A reload may just have brought a class.
            let used = by_class.iter().copied().chain(std::iter::repeat(Usage::default()));
            let classes = state.classes.iter().zip(used);
            let claims = classes.map(|(class, used)| {
                let kept = kept_for(whole, left, class.reserve_percent, state.reserves());
                used.memory.max(u128::from(kept))
            });
            claims.sum::<u128>()
        };
        let now = claimed(&backend.by_class);
        let then = before.by_class.get(slot).map_or(0, |by_class| claimed(by_class));
        // What runs on the floor comes on top.
        let floor = backend.on_floor.memory;
        if now > u128::from(left).max(then) + floor {
            wrong
                .push(format!("{}: {now} bytes are used or kept for classes, {left} are left", backend.name));
        }
    }
    wrong
}

/// Nobody waits who could run; queues and accounts agree on who waits; no queue is longer than allowed.
fn forgotten(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    for backend in &state.backends {
        if !backend.queue.is_sound() {
            wrong.push(format!("the queue of {} does not agree with itself", backend.name));
        }
        for waiter in backend.queue.fronts() {
            if state.room(&waiter.held, Some(waiter.id)) == Room::Enough {
                wrong.push(format!("{} could run at {}", waiter.id, backend.name));
            }
        }
        let shed = backend.queue.iter().filter(|waiter| backend.capacity.sheds(waiter.held.weight)).count();
        if shed > 0 {
            wrong.push(format!("{shed} wait for sick {}", backend.name));
        }
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        let waiting = |backend: &Backend| backend.queue.iter().filter(|w| w.held.tenant == slot).count();
        let waiting: usize = state.backends.iter().map(waiting).sum();
        if account.waiting != waiting {
            wrong.push(format!("tenant {}: {} wait, not {}", account.id, waiting, account.waiting));
        }
    }
    wrong
}

/// Memory is held back only for one that waits, and what was given since is counted right.
fn holds(state: &State, permits: &[Held]) -> Vec<String> {
    let mut wrong = Vec::new();
    for backend in &state.backends {
        let Some(hold) = backend.hold else { continue };
        if !backend.queue.iter().any(|waiter| waiter.id == hold.waiter) {
            wrong.push(format!("{} holds memory for nobody", backend.name));
        }
        let fresh = sum(permits.iter().filter(|held| held.epoch == hold.epoch));
        if fresh.memory != hold.fresh {
            wrong.push(format!("{}: {} given since, not {}", backend.name, fresh.memory, hold.fresh));
        }
    }
    wrong
}
