//! All accounts behind the one lock, and the rules for moving between them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    backend::Backend,
    charge::{Actual, Charge, End, Payers, Phase},
    lane::Lane,
    lane_account::Reserve,
    per_query::SoftHit,
    policy::Policy,
    queue::Waiter,
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    request::AdmissionRequest,
    tenants::Tenants,
    wait::WaitReason,
};
use crate::base::{
    ErrorKind, Estimate, TenantId,
    distress::{Distress, Load},
};

/// How long a heavy query that can only run alone lets smaller ones of the same burst go first, while nothing is proved.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// A charge that would outlive its client by less is given back at once.
const LINGER_LEAST: Duration = Duration::from_millis(1);
/// When those that a dead backend refused should come back.
const DEAD_RETRY: Duration = Duration::from_secs(1);

/// One class; the first stands for queries without one.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: Arc<str>,
    pub(super) reserve_percent: u8,
}

/// The outcomes of queries that waited, each by its number.
pub(super) type Handovers = SmallVec<[(u64, Result<Charge, Refusal>); 2]>;

/// The immediate decision of admission.
pub(super) enum Decision {
    Run(Charge),
    Wait(Ticket),
}

/// A place in a queue.
pub(super) struct Ticket {
    pub(super) charge: Charge,
    pub(super) id: u64,
    /// How long it may wait.
    pub(super) longest: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) policy: Arc<Policy>,
    pub(super) tenants: Tenants,
    pub(super) backends: Vec<Backend>,
    pub(super) classes: Vec<Class>,
    /// The classes that have a reserve.
    pub(super) reserves: Vec<Reserve>,
    /// Accounts of the backends of the policy, in its order.
    pub(super) configured: Vec<usize>,
    /// When a dispatch is due though nothing else happens.
    pub(super) alarms: BTreeSet<(Instant, u64)>,
    next_id: u64,
    /// No query runs any more: a shutdown.
    pub(super) closed: bool,
    /// The store of leases is to be asked before the next round is due.
    pub(super) round_wanted: bool,
}

impl State {
    pub(super) fn new(policy: Arc<Policy>, other: TenantId, now: Instant) -> Self {
        let mut state = Self {
            tenants: Tenants::new(&policy, other, now),
            policy: Arc::clone(&policy),
            backends: Vec::new(),
            classes: vec![Class { name: "adhoc".into(), reserve_percent: 0 }],
            reserves: Vec::new(),
            configured: Vec::new(),
            alarms: BTreeSet::new(),
            next_id: 0,
            closed: false,
            round_wanted: false,
        };
        state.take_over(policy);
        state
    }

    /// Obeys another policy from now on. Names identify backends and classes; permits stay charged.
    fn take_over(&mut self, policy: Arc<Policy>) {
        self.classes.iter_mut().for_each(|class| class.reserve_percent = 0);
        for class in &policy.classes {
            let name = Arc::clone(&class.name);
            match self.classes.iter_mut().skip(1).find(|known| known.name == name) {
                Some(known) => known.reserve_percent = class.reserve_percent,
                None => self.classes.push(Class { name, reserve_percent: class.reserve_percent }),
            }
        }
        let percents = self.classes.iter().enumerate().map(|(class, of)| (class, of.reserve_percent));
        let reserves = percents.filter(|(_, percent)| *percent > 0);
        self.reserves = reserves.map(|(class, percent)| Reserve { class, percent }).collect();
        self.configured.clear();
        for budget in &policy.backends {
            let known = self.backends.iter().position(|known| known.name == budget.name);
            let slot = known.unwrap_or_else(|| {
                self.backends.push(Backend::new(budget, policy.sharing));
                self.backends.len() - 1
            });
            self.backends[slot].take_over(budget, policy.sharing);
            self.configured.push(slot);
        }
        self.backends.iter_mut().for_each(|backend| backend.with_classes(self.classes.len()));
        self.tenants.reload(&policy);
        self.policy = policy;
    }

    pub(super) fn reload(&mut self, policy: Arc<Policy>, now: Instant) -> Handovers {
        self.take_over(policy);
        for slot in 0..self.backends.len() {
            self.queue_again(slot);
        }
        self.dispatch(now)
    }

    /// Queues the waiting queries of a backend anew, each for the lane that it belongs to now.
    fn queue_again(&mut self, slot: usize) {
        let backend = &mut self.backends[slot];
        let waiters: Vec<_> =
            Lane::ALL.iter().flat_map(|lane| backend.lane_mut(*lane).take_waiting()).collect();
        for mut waiter in waiters {
            waiter.charge.light = backend.budget.is_light(waiter.charge.bytes);
            waiter.charge.lane = waiter.charge.own_lane();
            backend.lane_mut(waiter.charge.lane).wait(waiter);
        }
    }

    /// The account of a configured backend.
    pub(super) fn backend(&self, name: &str) -> Option<usize> {
        self.configured.iter().copied().find(|slot| *self.backends[*slot].name == *name)
    }

    /// The account of a class; queries of one that is not configured count as those of none.
    fn class(&self, name: Option<&str>) -> usize {
        let known = |name: &str| self.classes.iter().skip(1).position(|class| *class.name == *name);
        name.and_then(known).map_or(0, |at| at + 1)
    }

    /// A backend is alive or dead. Of a dead one nothing runs and nothing waits.
    pub(super) fn set_alive(&mut self, name: &str, alive: bool, now: Instant) -> Handovers {
        let Some(slot) = self.backend(name) else { return Handovers::new() };
        self.backends[slot].is_alive = alive;
        if alive { self.dispatch(now) } else { self.refuse_waiting(slot, &self.dead(slot), now) }
    }

    /// No query is admitted any more, and nobody waits.
    pub(super) fn close(&mut self, now: Instant) -> Handovers {
        self.closed = true;
        let each = (0..self.backends.len()).map(|slot| self.refuse_waiting(slot, &shutting_down(), now));
        each.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn refuse_waiting(&mut self, slot: usize, why: &Refusal, now: Instant) -> Handovers {
        let mut ready = Handovers::new();
        for lane in Lane::ALL {
            for waiter in self.backends[slot].lane_mut(lane).take_waiting() {
                self.tenants.waiting(&waiter.charge.payers, -1);
                self.settle_quotas(&waiter.charge, None, now);
                ready.push((waiter.id, Err(why.clone())));
            }
        }
        ready
    }

    fn dead(&self, slot: usize) -> Refusal {
        backend_dead(Arc::clone(&self.backends[slot].name))
    }

    /// Applies an observation of a backend, with the peak in flight until then.
    pub(super) fn observe(&mut self, name: &str, distress: &Distress, peak: Load, now: Instant) -> Handovers {
        let Some(slot) = self.backend(name) else { return Handovers::new() };
        self.backends[slot].observe(distress, peak, now);
        if self.backends[slot].window.is_unproven() {
            self.alarms.insert((now + PAUSE, 0));
        }
        self.dispatch(now)
    }

    /// A place to run or to wait, then the rates. The grants of an eviction from the queue go to `ready`.
    pub(super) fn decide(
        &mut self,
        (request, slow): (&AdmissionRequest, bool),
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
        ready: &mut Handovers,
    ) -> Result<(Decision, Option<SoftHit>), Refusal> {
        if self.closed {
            return Err(shutting_down());
        }
        let slot =
            self.backend(&request.backend).ok_or_else(|| backend_dead(Arc::clone(&request.backend)))?;
        if !self.backends[slot].is_alive {
            return Err(self.dead(slot));
        }
        self.end_lingering(now);
        let mut charge = self.charge_of(request, slot, slow, now);
        for tenant in &charge.payers {
            self.backends[slot].asked(*tenant, now);
        }
        self.exceeds_budget(request, &charge, shadow)?;
        let over_quota = self.over_quota(request, &charge.payers, now, shadow)?;
        charge.slow |= over_quota.is_some();
        let lane = self.runs_at_once(&charge, now);
        // Before the rates: a query that finds no place is not counted towards them.
        let gives_way = if lane.is_some() { None } else { self.find_place(request, &charge)? };
        self.rates(request, &charge.payers, now, shadow)?;
        self.debit(request, &charge, now);
        self.note_exceeded(request, &charge, shadow);
        if let Some(lane) = lane {
            charge.lane = lane;
            self.charge(&charge, now);
            return Ok((Decision::Run(charge), over_quota));
        }
        if let Some((other, id, full)) = gives_way
            && let Some(waiter) = self.take_out(&other, id, now)
        {
            ready.push((waiter.id, Err(full)));
        }
        let ticket = self.enqueue(request, charge, now);
        ready.extend(self.dispatch(now));
        Ok((Decision::Wait(ticket), over_quota))
    }

    /// The charge of a query.
    fn charge_of(&mut self, request: &AdmissionRequest, backend: usize, slow: bool, now: Instant) -> Charge {
        let payers: Payers =
            request.payers.iter().map(|tenant| self.tenants.slot(tenant, &self.policy, now)).collect();
        let bytes = request.cost.memory.value.clamp(1, BYTES_MAX);
        let light = self.backends[backend].budget.is_light(bytes);
        let lane = if light { Lane::Light } else { Lane::Heavy };
        let class = self.class(request.class.as_deref());
        let samples = request.cost.samples.value;
        Charge { payers, backend, class, light, lane, slow, bytes, samples, asked: now }
    }

    /// Whether a query is within each whole budget.
    pub(super) fn dry_run(
        &mut self,
        request: &AdmissionRequest,
        now: Instant,
        shadow: &mut Vec<ShadowHit>,
    ) -> Result<(), Refusal> {
        let Some(slot) = self.backend(&request.backend) else { return Ok(()) };
        let charge = self.charge_of(request, slot, request.slow, now);
        self.exceeds_budget(request, &charge, shadow)
    }

    /// Whether the queue has a place for a query; in a full one it may be that of another actor's query, named here with
    /// the refusal that it gets.
    fn find_place(
        &self,
        request: &AdmissionRequest,
        charge: &Charge,
    ) -> Result<Option<(Charge, u64, Refusal)>, Refusal> {
        let is_full = |(slot, _): &(&usize, &TenantId)| {
            let account = self.tenants.get(**slot);
            account.waiting >= account.policy.queue.length
        };
        let backend = &self.backends[charge.backend];
        if let Some((slot, tenant)) = charge.payers.iter().zip(&request.payers).find(is_full) {
            let length = self.tenants.get(*slot).policy.queue.length as u64;
            let full = self.queue_full(charge, Scope::Tenant(tenant.clone()), length);
            let mut lanes = Lane::ALL.iter().map(|lane| &backend.lane(*lane).queue);
            let longest = lanes.find_map(|queue| queue.longest_of(*slot, &request.actor));
            return match longest {
                Some((other, id)) => Ok(Some((other, id, full))),
                None => Err(full),
            };
        }
        // Of each lane, so that heavy queries take no light one's place.
        if backend.lane(charge.own_lane()).queue.len() >= self.policy.waiting_max {
            let max = self.policy.waiting_max as u64;
            return Err(self.queue_full(charge, Scope::Backend(Arc::clone(&backend.name)), max));
        }
        Ok(None)
    }

    /// Why there is no place in the queue of a tenant or a backend.
    fn queue_full(&self, charge: &Charge, scope: Scope, max: u64) -> Refusal {
        let waits = charge.payers.iter().map(|slot| self.tenants.get(*slot).policy.queue.wait);
        Refusal {
            kind: ErrorKind::QueueFull,
            limit: LimitName::QueueFull,
            observed: Estimate::exact(max),
            max,
            scope,
            retry_after: Some(retry_soon(waits.min().unwrap_or_default())),
            waiting_for: None,
        }
    }

    fn enqueue(&mut self, request: &AdmissionRequest, charge: Charge, now: Instant) -> Ticket {
        let waits = charge.payers.iter().map(|slot| self.tenants.get(*slot).policy.queue.wait);
        let left = request.deadline.saturating_duration_since(now);
        let longest = waits.min().unwrap_or_default().min(left);
        let id = self.number();
        self.tenants.waiting(&charge.payers, 1);
        let backend = &mut self.backends[charge.backend];
        if backend.window.is_unproven() && backend.runs_alone(&charge) {
            self.alarms.insert((now + PAUSE, id));
        }
        backend.lane_mut(charge.own_lane()).wait(Waiter {
            id,
            tag: request.tag,
            actor: Arc::clone(&request.actor),
            charge: charge.clone(),
            asked: now,
            longest,
        });
        Ticket { charge, id, longest }
    }

    fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Gives a query the room that was found for it.
    pub(super) fn charge(&mut self, charge: &Charge, now: Instant) {
        for tenant in &charge.payers {
            self.tenants.get_mut(*tenant).charge(charge, now);
        }
        self.backends[charge.backend].charge(charge);
    }

    /// A part of a query was answered: there may be room for another.
    pub(super) fn part_done(&mut self, charge: &Charge, now: Instant) -> Handovers {
        self.backends[charge.backend].completed(charge);
        self.dispatch(now)
    }

    /// The backend's part of a query is over; its share there is free.
    pub(super) fn backend_done(
        &mut self,
        charge: &Charge,
        phase: Phase,
        answered: bool,
        now: Instant,
    ) -> Handovers {
        if phase == Phase::Runs {
            if answered {
                self.backends[charge.backend].completed(charge);
            }
            for tenant in &charge.payers {
                self.tenants.get_mut(*tenant).leave_lane(charge);
            }
        }
        self.free_share(charge, phase);
        self.unpark(charge);
        self.dispatch(now)
    }

    /// The client of a query does not read: its slot goes to the next, if its bytes may stay booked. Says whether.
    pub(super) fn stalled(&mut self, charge: &Charge, now: Instant, ready: &mut Handovers) -> bool {
        let stalled = self.backends[charge.backend].stall(charge);
        if stalled {
            for tenant in &charge.payers {
                self.tenants.get_mut(*tenant).leave_lane(charge);
            }
            self.unpark(charge);
            *ready = self.dispatch(now);
        }
        stalled
    }

    /// A query is over for its client. Its share goes to the next in the queue, at once or when the backend has noticed.
    pub(super) fn release(
        &mut self,
        charge: &Charge,
        phase: Phase,
        actual: Actual,
        now: Instant,
    ) -> Handovers {
        self.settle_quotas(charge, Some(actual.samples.unwrap_or(charge.samples)), now);
        let more = actual.samples.unwrap_or(0).saturating_sub(charge.samples);
        for tenant in &charge.payers {
            self.tenants.get_mut(*tenant).buckets.owe(more);
        }
        let backend = &mut self.backends[charge.backend];
        let lingers = backend.lingers(charge);
        let still_works = actual.end == End::Abandoned && phase != Phase::Done && backend.is_alive;
        if still_works && lingers >= LINGER_LEAST {
            let until = (now + lingers, self.number());
            self.alarms.insert(until);
            self.backends[charge.backend].lingering.insert(until, (charge.clone(), phase));
            return Handovers::new();
        }
        if actual.end == End::Answered && phase == Phase::Runs {
            backend.completed(charge);
        }
        self.give_back(charge, phase);
        self.dispatch(now)
    }

    /// Frees the share that a query holds of its backend, at once for the other proxies if they wait for it.
    fn free_share(&mut self, charge: &Charge, phase: Phase) {
        let backend = &mut self.backends[charge.backend];
        self.round_wanted |= phase != Phase::Done && backend.owes();
        backend.give_back(charge, phase);
    }

    pub(super) fn give_back(&mut self, charge: &Charge, phase: Phase) {
        self.free_share(charge, phase);
        for tenant in &charge.payers {
            self.tenants.get_mut(*tenant).give_back(charge, phase);
        }
        self.unpark(charge);
    }

    /// The payers of a charge got room, at every backend, and perhaps the slow lane of its own.
    fn unpark(&mut self, charge: &Charge) {
        if charge.slow {
            for lane in Lane::ALL {
                self.backends[charge.backend].lane_mut(lane).queue.unpark_slow();
            }
        }
        charge.payers.iter().for_each(|tenant| self.unpark_tenant(*tenant, false));
    }

    /// A tenant got room, at every backend, of its limits or by a lease.
    pub(super) fn unpark_tenant(&mut self, tenant: usize, by_lease: bool) {
        if self.tenants.get(tenant).waiting > 0 {
            for backend in &mut self.backends {
                backend.lane_mut(Lane::Light).queue.unpark(tenant, by_lease);
                backend.lane_mut(Lane::Heavy).queue.unpark(tenant, by_lease);
            }
        }
    }

    /// Takes out a waiter that gave up, with its reason for waiting; `None` when it was granted already.
    pub(super) fn leave_queue(
        &mut self,
        charge: &Charge,
        id: u64,
        now: Instant,
        ready: &mut Handovers,
    ) -> Option<WaitReason> {
        let is_first = Lane::ALL.iter().any(|lane| {
            let queue = &self.backends[charge.backend].lane(*lane).queue;
            queue.first().is_some_and(|first| first.id == id)
        });
        let waiter = self.take_out(charge, id, now)?;
        let reason = self.why(&waiter, is_first, now);
        // It held nothing, but others may have waited behind it.
        *ready = self.dispatch(now);
        Some(reason)
    }

    fn take_out(&mut self, charge: &Charge, id: u64, now: Instant) -> Option<Waiter> {
        // A reload may have moved it to the other lane.
        let backend = &mut self.backends[charge.backend];
        let waiter = Lane::ALL.iter().find_map(|lane| backend.lane_mut(*lane).queue.remove(charge, id))?;
        self.left(&waiter.charge);
        self.settle_quotas(&waiter.charge, None, now);
        Some(waiter)
    }

    /// When a dispatch is due though nothing happens until then.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }
}

/// The heaviest that a query can be; a number without bound stands for "unknown".
const BYTES_MAX: u64 = 1 << 60;

/// When those that found no place should come back.
pub(super) fn retry_soon(wait: Duration) -> Duration {
    (wait / 4).max(Duration::from_secs(1))
}

fn backend_dead(backend: Arc<str>) -> Refusal {
    Refusal {
        kind: ErrorKind::BackendSick,
        limit: LimitName::BackendSick,
        observed: Estimate::exact(1),
        max: 0,
        scope: Scope::Backend(backend),
        retry_after: Some(DEAD_RETRY),
        waiting_for: None,
    }
}

fn shutting_down() -> Refusal {
    Refusal { kind: ErrorKind::ShuttingDown, limit: LimitName::ShuttingDown, ..backend_dead("".into()) }
}
