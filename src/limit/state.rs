//! All accounts behind the one lock, and the rules for moving between them.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{sync::oneshot, time::Instant};

use super::{
    admission::Ask,
    budget::{Capacity, Usage},
    permit::{Actual, Held, Permit},
    policy::{BackendId, Policy},
    proof::Proof,
    queue::{Queue, Removed, Room, Waiter},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    room::{Hold, floor_takes},
    tenants::Tenants,
};
use crate::base::{Allowance, ErrorKind, Estimate, TenantId};

/// One backend's account. It stays when the configuration drops the backend, since permits may still point here.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: Arc<str>,
    pub(super) capacity: Capacity,
    pub(super) proof: Proof,
    pub(super) used: Usage,
    /// The most bytes in use since somebody asked.
    pub(super) peak: u128,
    pub(super) by_class: Vec<Usage>,
    /// What runs on the floor for light queries.
    pub(super) on_floor: Usage,
    pub(super) queue: Queue,
    pub(super) hold: Option<Hold>,
}

/// One class; the first stands for queries without one.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: Arc<str>,
    pub(super) reserve_percent: u8,
}

/// What became free for whom; handed over after the lock is let go.
pub(super) type Handovers = SmallVec<[(oneshot::Sender<Result<Permit, Refusal>>, Result<Held, Refusal>); 2]>;

/// What admission says at once.
pub(super) enum Answer {
    Run(Held),
    Wait { held: Held, id: u64, receiver: oneshot::Receiver<Result<Permit, Refusal>>, longest: Duration },
}

/// A waiter that left the queue.
struct TakenOut {
    waiter: Waiter,
    /// Somebody who waited behind it may have room now.
    frees: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: Arc<Policy>,
    pub(super) tenants: Tenants,
    pub(super) backends: Vec<Backend>,
    pub(super) classes: Vec<Class>,
    /// The account of each backend of the policy.
    pub(super) backend_slots: Vec<usize>,
    /// The account of each class of the policy.
    class_slots: Vec<usize>,
    next_id: u64,
    last_epoch: u64,
}

impl State {
    pub(super) fn new(policy: Arc<Policy>, other: TenantId, now: Instant) -> Self {
        let mut state = Self {
            tenants: Tenants::new(&policy, other, now),
            policy: Arc::clone(&policy),
            backends: Vec::new(),
            classes: vec![Class { name: "adhoc".into(), reserve_percent: 0 }],
            backend_slots: Vec::new(),
            class_slots: Vec::new(),
            next_id: 0,
            last_epoch: 0,
        };
        state.take_over(policy);
        state
    }

    /// Obeys another policy from now on. Names identify backends and classes; what permits hold stays held.
    fn take_over(&mut self, policy: Arc<Policy>) {
        self.classes.iter_mut().for_each(|class| class.reserve_percent = 0);
        self.class_slots.clear();
        for class in &policy.classes {
            // The first is for queries of no class, whatever a configured one is called.
            let slot = self.classes.iter().skip(1).position(|known| known.name == class.name).map(|i| i + 1);
            let slot = slot.unwrap_or_else(|| {
                self.classes.push(Class { name: Arc::clone(&class.name), reserve_percent: 0 });
                self.classes.len() - 1
            });
            self.classes[slot].reserve_percent = class.reserve_percent;
            self.class_slots.push(slot);
        }
        self.backend_slots.clear();
        for budget in &policy.backends {
            let slot = self.backends.iter().position(|known| known.name == budget.name);
            let slot = slot.unwrap_or_else(|| {
                self.backends.push(Backend {
                    name: Arc::clone(&budget.name),
                    capacity: Capacity::new(budget),
                    proof: Proof::default(),
                    used: Usage::default(),
                    peak: 0,
                    on_floor: Usage::default(),
                    by_class: Vec::new(),
                    queue: Queue::default(),
                    hold: None,
                });
                self.backends.len() - 1
            });
            let backend = &mut self.backends[slot];
            backend.capacity = backend.capacity.of(budget);
            self.backend_slots.push(slot);
        }
        for backend in &mut self.backends {
            backend.by_class.resize(self.classes.len(), Usage::default());
        }
        self.tenants.reload(&policy);
        self.policy = policy;
    }

    pub(super) fn reload(&mut self, policy: Arc<Policy>) -> Handovers {
        self.take_over(policy);
        let mut ready = Handovers::new();
        for slot in 0..self.backends.len() {
            // What is light may have changed.
            self.shed(slot, &mut ready);
            self.backends[slot].queue.look_again_at_all();
        }
        ready.extend(self.dispatch());
        ready
    }

    pub(super) fn backend_slot(&self, id: BackendId) -> Option<usize> {
        self.backend_slots.get(id.0).copied()
    }

    /// Sets what pressure leaves of a backend, and sheds those who wait for what is no longer there.
    pub(super) fn allow(&mut self, id: BackendId, allowance: Allowance) -> Handovers {
        let Some(slot) = self.backend_slot(id) else { return Handovers::new() };
        let mut ready = Handovers::new();
        self.backends[slot].capacity.allow(allowance);
        self.shed(slot, &mut ready);
        self.backends[slot].queue.look_again_at_all();
        ready.extend(self.dispatch());
        ready
    }

    /// Says whether a backend is seen to hold more than was expected of what runs.
    pub(super) fn doubt(&mut self, id: BackendId, doubted: bool) {
        if let Some(slot) = self.backend_slot(id) {
            self.backends[slot].proof.doubt(doubted);
        }
    }

    /// The most bytes that queries held at a time since this was asked last, and how many they may.
    pub(super) fn held_since_asked(&mut self, id: BackendId) -> Option<(u64, Option<u64>)> {
        let backend = &mut self.backends[self.backend_slots.get(id.0).copied()?];
        let most = std::mem::replace(&mut backend.peak, backend.used.memory);
        Some((u64::try_from(most).unwrap_or(u64::MAX), backend.capacity.memory.watched()))
    }

    /// Refuses those who wait for more than a backend at full pressure will take.
    fn shed(&mut self, slot: usize, ready: &mut Handovers) {
        let backend = &mut self.backends[slot];
        let capacity = backend.capacity;
        if capacity.ppm > 0 {
            return;
        }
        // Light queries need no hold.
        backend.hold = None;
        let shed = backend.queue.take_all(|held| capacity.sheds(held.weight));
        let sick = self.sick(slot);
        for waiter in shed {
            self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
            ready.push((waiter.hand_over, Err(sick.clone())));
        }
    }

    /// Refuses everybody who waits.
    pub(super) fn close(&mut self) -> Handovers {
        let mut ready = Handovers::new();
        for slot in 0..self.backends.len() {
            self.backends[slot].hold = None;
            for waiter in self.backends[slot].queue.take_all(|_| true) {
                self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
                let limit = LimitName::ShuttingDown;
                ready.push((
                    waiter.hand_over,
                    Err(Refusal { kind: ErrorKind::ShuttingDown, limit, ..self.sick(slot) }),
                ));
            }
        }
        ready
    }

    fn sick(&self, slot: usize) -> Refusal {
        Refusal {
            kind: ErrorKind::BackendSick,
            limit: LimitName::BackendSick,
            observed: Estimate::exact(1),
            max: 0,
            scope: Scope::Backend(Arc::clone(&self.backends[slot].name)),
            retry_after: Some(Duration::from_secs(5)),
        }
    }

    /// A place to run or to wait, then the rate. What taking the place of another brings about goes to `ready`.
    pub(super) fn ask(
        &mut self,
        ask: &Ask,
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
        ready: &mut Handovers,
    ) -> Result<Answer, Refusal> {
        let Some(backend) = self.backend_slot(ask.backend) else {
            // Only between a reload here and one of the caller.
            return Err(Refusal {
                kind: ErrorKind::BackendSick,
                limit: LimitName::BackendSick,
                observed: Estimate::exact(1),
                max: 0,
                scope: Scope::Backend("removed".into()),
                retry_after: Some(Duration::from_secs(1)),
            });
        };
        if self.backends[backend].capacity.sheds(weight_of(ask)) {
            return Err(self.sick(backend));
        }
        let mut held = self.held_by(ask, backend, now);
        let tenant = held.tenant;
        self.never(ask, &held, shadow)?;
        // Whoever waits has no room now, or it would run; so running at once takes nobody's turn.
        let runs = self.room(&held, None) == Room::Enough;
        // Before the rates: who finds no place has asked for nothing yet.
        let gives_way = if runs { None } else { self.find_place(ask, &held)? };
        self.rates(ask, tenant, shadow)?;
        self.note_passed(ask, &held, shadow);
        if runs {
            held.on_floor = self.takes_floor(&held, None);
            self.charge(&mut held);
            return Ok(Answer::Run(held));
        }
        let displaced = gives_way.and_then(|(other, id)| self.take_out(&other, id));
        let answer = self.enqueue(ask, held);
        if let Some(TakenOut { waiter, frees }) = displaced {
            ready.push((waiter.hand_over, Err(self.queue_full(&ask.tenant, &held))));
            if frees {
                ready.extend(self.dispatch());
            }
        }
        Ok(answer)
    }

    /// What a query would hold.
    fn held_by(&mut self, ask: &Ask, backend: usize, now: Instant) -> Held {
        let tenant = self.tenants.slot(&ask.tenant, &self.policy, now);
        let class = self.class_slots.get(ask.class.0).copied().unwrap_or(0);
        let (weight, samples) = (weight_of(ask), ask.cost.samples.value);
        Held { tenant, backend, class, weight, samples, epoch: 0, on_floor: false }
    }

    /// Whether a query is within each whole budget.
    pub(super) fn fits(
        &mut self,
        ask: &Ask,
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<(), Refusal> {
        let Some(backend) = self.backend_slot(ask.backend) else { return Ok(()) };
        let held = self.held_by(ask, backend, now);
        self.never(ask, &held, shadow)
    }

    /// Whether the queue has a place for a query; in a full one it may be that of another actor's query, named here.
    fn find_place(&self, ask: &Ask, held: &Held) -> Result<Option<(Held, u64)>, Refusal> {
        let account = self.tenants.get(held.tenant);
        let queue = &self.backends[held.backend].queue;
        let gives_way = if account.waiting >= account.policy.queue.length {
            let found = queue.greediest(held.tenant, &ask.actor);
            Some(found.ok_or_else(|| self.queue_full(&ask.tenant, held))?)
        } else {
            None
        };
        if gives_way.is_none() && queue.len() >= self.policy.waiting_max {
            let name = Arc::clone(&self.backends[held.backend].name);
            let max = self.policy.waiting_max as u64;
            let full = self.queue_full(&ask.tenant, held);
            return Err(Refusal { observed: Estimate::exact(max), max, scope: Scope::Backend(name), ..full });
        }
        Ok(gives_way)
    }

    /// Why there is no place in a tenant's queue.
    fn queue_full(&self, tenant: &TenantId, held: &Held) -> Refusal {
        let policy = self.tenants.get(held.tenant).policy.queue;
        Refusal {
            kind: ErrorKind::QueueFull,
            limit: LimitName::QueueFull,
            observed: Estimate::exact(policy.length as u64),
            max: policy.length as u64,
            scope: Scope::Tenant(tenant.clone()),
            retry_after: Some(retry_soon(policy.wait)),
        }
    }

    fn enqueue(&mut self, ask: &Ask, held: Held) -> Answer {
        let account = self.tenants.get_mut(held.tenant);
        let (hand_over, receiver) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        account.waiting += 1;
        let longest = account.policy.queue.wait;
        let queue = &mut self.backends[held.backend].queue;
        queue.push(Waiter { id, actor: Arc::clone(&ask.actor), held, hand_over });
        Answer::Wait { held, id, receiver, longest }
    }

    /// Gives a query the room that was found for it.
    fn charge(&mut self, held: &mut Held) {
        self.tenants.get_mut(held.tenant).charge(held);
        let backend = &mut self.backends[held.backend];
        backend.used.add(held.weight);
        backend.peak = backend.peak.max(backend.used.memory);
        backend.by_class[held.class].add(held.weight);
        if held.on_floor {
            backend.on_floor.add(held.weight);
        }
        if let Some(hold) = &mut backend.hold {
            hold.fresh += u128::from(held.weight);
            held.epoch = hold.epoch;
        }
    }

    pub(super) fn lacks_proof(&self, backend: BackendId, weight: u64) -> bool {
        self.backend_slot(backend).is_some_and(|slot| {
            let Backend { capacity, proof, .. } = &self.backends[slot];
            let whole = capacity.memory.enforced();
            whole.is_some_and(|whole| proof.lacks(weight, whole, capacity.unproven_percent))
        })
    }

    /// A part of a query was answered whole: there may be room for another.
    pub(super) fn prove(&mut self, held: &Held) -> Handovers {
        self.backends[held.backend].prove(held.weight);
        self.dispatch()
    }

    /// Gives back what a query held, to whoever is next.
    pub(super) fn release(&mut self, held: Held, actual: Option<Actual>) -> Handovers {
        let account = self.tenants.get_mut(held.tenant);
        account.give_back(&held);
        let backend = &mut self.backends[held.backend];
        if let Some(actual) = actual {
            account.buckets.owe(actual.samples.unwrap_or(0).saturating_sub(held.samples));
            if actual.whole {
                backend.prove(held.weight);
            }
        }
        backend.used.remove(held.weight);
        backend.by_class[held.class].remove(held.weight);
        if held.on_floor {
            backend.on_floor.remove(held.weight);
        }
        if let Some(hold) = backend.hold.as_mut().filter(|hold| hold.epoch == held.epoch) {
            hold.fresh -= u128::from(held.weight);
        }
        if account.waiting > 0 {
            for backend in &mut self.backends {
                for class in 0..self.classes.len() {
                    backend.queue.look_again(held.tenant, class);
                }
            }
        }
        self.dispatch()
    }

    /// Takes out a waiter that gave up, with what it had no room in; `None` when it was handed over already.
    pub(super) fn give_up(&mut self, held: &Held, id: u64) -> Option<(Room, Handovers)> {
        let missing = self.room(held, Some(id));
        let frees = self.take_out(held, id)?.frees;
        Some((missing, if frees { self.dispatch() } else { Handovers::new() }))
    }

    fn take_out(&mut self, held: &Held, id: u64) -> Option<TakenOut> {
        let backend = &mut self.backends[held.backend];
        let Removed { waiter, next } = backend.queue.remove(held, id)?;
        let had_hold = backend.hold.is_some_and(|hold| hold.waiter == id);
        if had_hold {
            backend.hold = None;
        }
        self.tenants.get_mut(held.tenant).waiting -= 1;
        // It held nothing, but others may have waited behind it.
        let frees = had_hold || next.is_some_and(|(next, held)| self.room(&held, Some(next)) == Room::Enough);
        Some(TakenOut { waiter, frees })
    }

    /// Lets everybody run who waits and has room, in the order of turns.
    fn dispatch(&mut self) -> Handovers {
        let mut ready = Handovers::new();
        for slot in 0..self.backends.len() {
            if self.backends[slot].queue.len() == 0 {
                continue;
            }
            self.end_idle_hold(slot);
            // Out of the way while its waiters are weighed; put back before anybody else looks.
            let mut queue = std::mem::take(&mut self.backends[slot].queue);
            while queue.lightest().is_some_and(|weight| self.has_any_room(slot, weight)) {
                let mut found = queue.pop(|waiter| self.room(&waiter.held, Some(waiter.id)));
                if let Some(waiter) = &mut found.waiter {
                    // Before anything is held back: what was found for it counts.
                    waiter.held.on_floor = self.takes_floor(&waiter.held, Some(waiter.id));
                }
                if let Some((id, held)) = found.blocked {
                    self.hold_for(slot, id, &held);
                }
                let Some(mut waiter) = found.waiter else { break };
                if self.backends[slot].hold.is_some_and(|hold| hold.waiter == waiter.id) {
                    self.backends[slot].hold = None;
                }
                self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
                self.charge(&mut waiter.held);
                ready.push((waiter.hand_over, Ok(waiter.held)));
            }
            self.backends[slot].queue = queue;
        }
        ready
    }

    /// Whether a backend could take another query at all, whoever's it is.
    fn has_any_room(&self, slot: usize, weight: u64) -> bool {
        let backend = &self.backends[slot];
        let Backend { capacity, used, .. } = backend;
        let memory = capacity.memory.enforced().map(|max| capacity.of_memory(max));
        let queries = capacity.queries.enforced().map(|max| capacity.of_queries(max));
        (capacity.ppm > 0 && used.plus(weight).within(memory, queries)) || floor_takes(backend, weight)
    }

    /// Ends a hold for a query that something else keeps from running.
    fn end_idle_hold(&mut self, slot: usize) {
        let is_idle = |hold: &Hold| {
            let max = self.backends[slot].capacity.memory.enforced();
            let max = max.map(|max| self.backends[slot].capacity.of_memory(max));
            max.is_none_or(|max| hold.held.weight > max)
                || self.room(&hold.held, Some(hold.waiter)) == Room::TenantFull
        };
        if self.backends[slot].hold.as_ref().is_some_and(is_idle) {
            self.backends[slot].hold = None;
        }
    }

    /// Keeps memory free for a query that is passed by lighter ones, unless it is kept for another.
    fn hold_for(&mut self, slot: usize, waiter: u64, held: &Held) {
        let backend = &self.backends[slot];
        if backend.hold.is_some() || self.has_memory(backend, held) {
            return;
        }
        self.last_epoch += 1;
        let hold = Hold { epoch: self.last_epoch, waiter, held: *held, fresh: 0 };
        self.backends[slot].hold = Some(hold);
    }
}

/// The heaviest that a query can be; a number without bound stands for "unknown".
const WEIGHT_MAX: u64 = 1 << 60;

/// Bytes that a query holds.
fn weight_of(ask: &Ask) -> u64 {
    ask.cost.memory.value.clamp(1, WEIGHT_MAX)
}

/// When those that found no place should come back.
pub(super) fn retry_soon(wait: Duration) -> Duration {
    (wait / 4).max(Duration::from_secs(1))
}
