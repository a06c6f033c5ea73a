//! All accounts behind the one lock, and the rules for moving between them.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{sync::oneshot, time::Instant};

use super::{
    admission::Ask,
    budget::{Capacity, Usage, WHOLE, percent_of},
    permit::{Actual, Held, Permit},
    policy::{BackendId, Limit, Mode, Policy},
    queue::{Queue, Waiter},
    rate::{Over, Verdict},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    tenants::Tenants,
};
use crate::base::{ErrorKind, Known, TenantId};

/// One backend's account. It stays when the configuration drops the backend, since permits may still point here.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: Arc<str>,
    pub(super) capacity: Capacity,
    pub(super) used: Usage,
    pub(super) by_class: Vec<Usage>,
    pub(super) queue: Queue,
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
    Wait { slot: usize, id: u64, receiver: oneshot::Receiver<Result<Permit, Refusal>>, longest: Duration },
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: Arc<Policy>,
    pub(super) tenants: Tenants,
    pub(super) backends: Vec<Backend>,
    pub(super) classes: Vec<Class>,
    /// The account of each backend of the policy.
    backend_slots: Vec<usize>,
    /// The account of each class of the policy.
    class_slots: Vec<usize>,
    next_id: u64,
}

impl State {
    pub(super) fn new(policy: Arc<Policy>, other: TenantId, now: Instant) -> Self {
        let mut state = Self {
            tenants: Tenants::new(&policy, other, now),
            policy: Arc::clone(&policy),
            backends: Vec::new(),
            classes: vec![Class { name: "none".into(), reserve_percent: 0 }],
            backend_slots: Vec::new(),
            class_slots: Vec::new(),
            next_id: 0,
        };
        state.take_over(policy);
        state
    }

    /// Obeys another policy from now on. Names identify backends and classes; what permits hold stays held.
    fn take_over(&mut self, policy: Arc<Policy>) {
        self.classes.iter_mut().for_each(|class| class.reserve_percent = 0);
        self.class_slots.clear();
        for class in &policy.classes {
            let slot = self.classes.iter().position(|known| known.name == class.name);
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
                    capacity: Capacity::new(budget, WHOLE),
                    used: Usage::default(),
                    by_class: Vec::new(),
                    queue: Queue::default(),
                });
                self.backends.len() - 1
            });
            let backend = &mut self.backends[slot];
            backend.capacity = Capacity::new(budget, backend.capacity.ppm);
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
        self.dispatch()
    }

    pub(super) fn backend_slot(&self, id: BackendId) -> Option<usize> {
        self.backend_slots.get(id.0).copied()
    }

    /// Sets what pressure leaves of a backend; nothing left sheds all who wait.
    pub(super) fn set_capacity(&mut self, id: BackendId, ppm: u64) -> Handovers {
        let Some(slot) = self.backend_slot(id) else { return Handovers::new() };
        self.backends[slot].capacity.ppm = ppm;
        if ppm > 0 {
            return self.dispatch();
        }
        let mut shed = Handovers::new();
        while let Some(waiter) = self.backends[slot].queue.pop(|_| true) {
            self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
            shed.push((waiter.hand_over, Err(self.sick(slot))));
        }
        shed
    }

    fn sick(&self, slot: usize) -> Refusal {
        Refusal {
            kind: ErrorKind::BackendSick,
            limit: LimitName::BackendSick,
            observed: Known::exact(1),
            max: 0,
            scope: Scope::Backend(Arc::clone(&self.backends[slot].name)),
            retry_after: Some(Duration::from_secs(5)),
        }
    }

    /// Rate, then budget, then a place in the queue.
    pub(super) fn ask(
        &mut self,
        ask: &Ask,
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<Answer, Refusal> {
        let Some(backend) = self.backend_slot(ask.backend) else {
            // Only between a reload here and one of the caller.
            return Err(Refusal {
                kind: ErrorKind::BackendSick,
                limit: LimitName::BackendSick,
                observed: Known::exact(1),
                max: 0,
                scope: Scope::Backend("removed".into()),
                retry_after: Some(Duration::from_secs(1)),
            });
        };
        if self.backends[backend].capacity.is_none() {
            return Err(self.sick(backend));
        }
        let policy = Arc::clone(&self.policy);
        let tenant = self.tenants.slot(&ask.tenant, &policy, now);
        let class = self.class_slots.get(ask.class.0).copied().unwrap_or(0);
        let held = Held {
            tenant,
            backend,
            class,
            weight: ask.demand.memory.value.clamp(1, WEIGHT_MAX),
            samples: ask.demand.samples.value,
        };
        self.never(ask, &held, shadow)?;
        self.rates(ask, tenant, shadow)?;
        if self.backends[backend].queue.len() == 0 && self.fits(&held) {
            self.note_passed(ask, &held, shadow);
            self.charge(&held);
            return Ok(Answer::Run(held));
        }
        self.enqueue(ask, held)
    }

    fn enqueue(&mut self, ask: &Ask, held: Held) -> Result<Answer, Refusal> {
        let account = self.tenants.get_mut(held.tenant);
        let queue = &mut self.backends[held.backend].queue;
        let policy = account.policy.queue;
        let full = |max: usize, scope| Refusal {
            kind: ErrorKind::QueueFull,
            limit: LimitName::QueueFull,
            observed: Known::exact(max as u64),
            max: max as u64,
            scope,
            retry_after: Some(retry_soon(policy.wait)),
        };
        if account.waiting >= policy.length {
            return Err(full(policy.length, Scope::Tenant(ask.tenant.clone())));
        }
        if queue.len() >= self.policy.waiting_max {
            let name = Arc::clone(&self.backends[held.backend].name);
            return Err(full(self.policy.waiting_max, Scope::Backend(name)));
        }
        let (hand_over, receiver) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        account.waiting += 1;
        queue.push(Waiter { id, held, hand_over });
        Ok(Answer::Wait { slot: held.backend, id, receiver, longest: policy.wait })
    }

    /// What a query alone can never fit.
    fn never(&self, ask: &Ask, held: &Held, shadow: &mut Vec<ShadowHit>) -> Result<(), Refusal> {
        let account = self.tenants.get(held.tenant);
        let backend = &self.backends[held.backend];
        let others = self.reserve_of_others(held.class);
        let left = backend.capacity.memory.max.map(|max| max.get() - percent_of(max.get(), others));
        let wide = if others > 0 {
            Scope::Class(Arc::clone(&self.classes[held.class].name))
        } else {
            Scope::Backend(Arc::clone(&backend.name))
        };
        let narrow = account.policy.in_flight.memory;
        let checks = [
            (narrow.max.map(std::num::NonZeroU64::get), narrow.mode, Scope::Tenant(ask.tenant.clone())),
            (left, backend.capacity.memory.mode, wide),
        ];
        for (max, mode, scope) in checks {
            let Some(max) = max.filter(|max| ask.demand.memory.value > *max) else { continue };
            let refusal = Refusal {
                kind: ErrorKind::LimitExceeded,
                limit: LimitName::BudgetNever,
                observed: ask.demand.memory,
                max,
                scope,
                retry_after: None,
            };
            match mode {
                Mode::Enforce => return Err(refusal),
                Mode::Shadow => shadow.push(refusal),
                Mode::Off => {}
            }
        }
        Ok(())
    }

    fn rates(&self, ask: &Ask, tenant: usize, shadow: &mut Vec<ShadowHit>) -> Result<(), Refusal> {
        let buckets = &self.tenants.get(tenant).buckets;
        let mut weigh = |verdict: Result<(), Verdict>, limit, observed| {
            let Err(verdict) = verdict else { return Ok(()) };
            let (kind, retry_after) = match verdict.over {
                Over::NotYet(wait) => (ErrorKind::RateLimited, Some(wait)),
                Over::Never => (ErrorKind::LimitExceeded, None),
            };
            let scope = Scope::Tenant(ask.tenant.clone());
            let refusal = Refusal { kind, limit, observed, max: verdict.max, scope, retry_after };
            if verdict.mode == Mode::Enforce {
                return Err(refusal);
            }
            shadow.push(refusal);
            Ok(())
        };
        weigh(buckets.take_query(), LimitName::RateQueries, Known::exact(1))?;
        weigh(buckets.take_samples(ask.demand.samples.value), LimitName::RateSamples, ask.demand.samples)
    }

    /// Percent of every budget kept free for other classes than this.
    fn reserve_of_others(&self, class: usize) -> u8 {
        let sum: u32 = self.classes.iter().map(|c| u32::from(c.reserve_percent)).sum();
        (sum - u32::from(self.classes[class].reserve_percent)).min(100) as u8
    }

    /// Whether a query may run now: its tenant first, then what the other classes leave of the backend.
    fn fits(&self, held: &Held) -> bool {
        let account = self.tenants.get(held.tenant);
        let narrow = account.policy.in_flight;
        account.used.plus(held.weight).within(narrow.memory.enforced(), narrow.queries.enforced())
            && self.fits_backend(held)
    }

    fn fits_backend(&self, held: &Held) -> bool {
        let backend = &self.backends[held.backend];
        let capacity = &backend.capacity;
        let memory = capacity.memory.enforced().map(|max| {
            let max = capacity.of_memory(max);
            let kept = self.unused_reserves(backend, held.class, |usage, percent| {
                u128::from(percent_of(max, percent)).saturating_sub(usage.memory)
            });
            u128::from(max).saturating_sub(kept) as u64
        });
        let queries = capacity.queries.enforced().map(|max| {
            let max = capacity.of_queries(max);
            let kept = self.unused_reserves(backend, held.class, |usage, percent| {
                u128::from(percent_of(max, percent).saturating_sub(usage.queries))
            });
            u128::from(max).saturating_sub(kept) as u64
        });
        !capacity.is_none() && backend.used.plus(held.weight).within(memory, queries)
    }

    fn unused_reserves(&self, backend: &Backend, but: usize, unused: impl Fn(&Usage, u8) -> u128) -> u128 {
        self.classes
            .iter()
            .zip(&backend.by_class)
            .enumerate()
            .filter(|(slot, (class, _))| *slot != but && class.reserve_percent > 0)
            .map(|(_, (class, usage))| unused(usage, class.reserve_percent))
            .sum()
    }

    /// Limits in shadow mode that running this query passes.
    fn note_passed(&self, ask: &Ask, held: &Held, shadow: &mut Vec<ShadowHit>) {
        let account = self.tenants.get(held.tenant);
        let backend = &self.backends[held.backend];
        let scope = || Scope::Tenant(ask.tenant.clone());
        let wide = || Scope::Backend(Arc::clone(&backend.name));
        let narrow = account.policy.in_flight;
        let (tenant, whole) = (account.used.plus(held.weight), backend.used.plus(held.weight));
        let mut note = |limit: Limit, name, used: u128, scope: &dyn Fn() -> Scope| {
            let over = limit.watched().filter(|max| limit.mode == Mode::Shadow && used > u128::from(*max));
            if let Some(max) = over {
                let observed = Known::new(u64::try_from(used).unwrap_or(u64::MAX), ask.demand.memory.class);
                let kind = ErrorKind::QueueTimeout;
                shadow.push(Refusal { kind, limit: name, observed, max, scope: scope(), retry_after: None });
            }
        };
        note(narrow.queries, LimitName::InFlightQueries, tenant.queries.into(), &scope);
        note(narrow.memory, LimitName::InFlightMemory, tenant.memory, &scope);
        note(backend.capacity.queries, LimitName::InFlightQueries, whole.queries.into(), &wide);
        note(backend.capacity.memory, LimitName::InFlightMemory, whole.memory, &wide);
    }

    fn charge(&mut self, held: &Held) {
        self.tenants.get_mut(held.tenant).used.add(held.weight);
        let backend = &mut self.backends[held.backend];
        backend.used.add(held.weight);
        backend.by_class[held.class].add(held.weight);
    }

    pub(super) fn release(&mut self, held: Held, _actual: Option<Actual>) -> Handovers {
        self.tenants.get_mut(held.tenant).used.remove(held.weight);
        let backend = &mut self.backends[held.backend];
        backend.used.remove(held.weight);
        backend.by_class[held.class].remove(held.weight);
        self.dispatch()
    }

    /// Takes out a waiter that gave up; false when it was handed over already.
    pub(super) fn give_up(&mut self, backend: usize, id: u64) -> (bool, Handovers) {
        let Some(waiter) = self.backends[backend].queue.remove(id) else { return (false, Handovers::new()) };
        self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
        (true, self.dispatch())
    }

    /// Lets everybody run who waits and fits.
    pub(super) fn dispatch(&mut self) -> Handovers {
        let mut ready = Handovers::new();
        for slot in 0..self.backends.len() {
            if self.backends[slot].queue.len() == 0 {
                continue;
            }
            let mut queue = std::mem::take(&mut self.backends[slot].queue);
            while let Some(waiter) = queue.pop(|held| self.fits(held)) {
                self.tenants.get_mut(waiter.held.tenant).waiting -= 1;
                self.charge(&waiter.held);
                ready.push((waiter.hand_over, Ok(waiter.held)));
            }
            self.backends[slot].queue = queue;
        }
        ready
    }
}

/// The heaviest that a query can be; a number without bound stands for "unknown".
const WEIGHT_MAX: u64 = 1 << 60;

/// When those that found no place should come back.
pub(super) fn retry_soon(wait: Duration) -> Duration {
    (wait / 4).max(Duration::from_secs(1))
}
