//! The door: asks the accounts, waits without holding anything, hands out permits.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::oneshot, time::Instant};

use super::{
    budget::WHOLE,
    judge::judge,
    permit::{Actual, Held, Permit},
    policy::{BackendId, ClassId, Policy},
    queue::Room,
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    snapshot::{BackendSnapshot, Snapshot, TenantSnapshot},
    state::{Answer, Handovers, State, retry_soon},
};
use crate::base::{Allowance, ErrorKind, Estimate, QueryCost, TenantId};

/// A query that wants to run.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who pays.
    pub tenant: TenantId,
    /// Who inside the tenant: a dashboard, a user, a rule.
    pub actor: Arc<str>,
    /// Its lane.
    pub class: ClassId,
    /// Where it would run.
    pub backend: BackendId,
    /// What it would cost.
    pub cost: QueryCost,
    /// When the answer is of no use any more; the wait ends before.
    pub deadline: Instant,
    /// Which of its tenant's rates are charged for it already.
    pub charged: Charged,
}

/// Which of a tenant's rates are charged for a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charged {
    /// None.
    #[default]
    Nothing,
    /// That of queries, by [`Admission::check_rate`].
    Query,
    /// Both: it was admitted before, to run in another way.
    All,
}

/// A query that may run.
#[derive(Debug)]
pub struct Admitted {
    /// What it holds until it is over.
    pub permit: Permit,
    /// How long it waited.
    pub waited: Duration,
    /// Limits in shadow mode that it passed.
    pub shadow: Vec<ShadowHit>,
}

/// Decides which queries run.
pub struct Admission {
    policy: ArcSwap<Policy>,
    state: Mutex<State>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// Admission under a policy, with every backend at its full capacity.
    pub fn new(policy: Policy) -> Arc<Self> {
        let policy = Arc::new(policy);
        let state = State::new(Arc::clone(&policy), TenantId::other(), Instant::now());
        Arc::new(Self { policy: ArcSwap::new(policy), state: Mutex::new(state) })
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Obeys another policy from now on. Permits in flight keep counting, also against narrower limits; backends and
    /// classes are recognised by their names.
    pub fn reload(self: &Arc<Self>, policy: Policy) {
        let policy = Arc::new(policy);
        let ready = {
            let mut state = self.lock();
            self.policy.store(Arc::clone(&policy));
            state.reload(policy)
        };
        self.hand_over(ready);
    }

    /// Looks at the per-query limits only; nothing is counted.
    ///
    /// # Errors
    /// The first enforced limit that the query passes.
    pub fn judge(&self, ask: &Ask) -> Result<Vec<ShadowHit>, Refusal> {
        let policy = self.policy.load();
        judge(policy.tenant(&ask.tenant), &ask.tenant, ask.class, &ask.cost)
    }

    /// Looks at the per-query limits, and at whether the query is more than a whole budget; nothing is counted.
    ///
    /// # Errors
    /// The first enforced limit that it passes, however long it waits.
    pub fn foresee(&self, ask: &Ask) -> Result<Vec<ShadowHit>, Refusal> {
        let mut shadow = self.judge(ask)?;
        self.lock().fits(ask, Instant::now(), &mut shadow)?;
        Ok(shadow)
    }

    /// Whether a query that may run needs more than what is open before any estimate has proved true, as long as none has.
    pub(super) fn lacks_proof(&self, ask: &Ask) -> bool {
        let lacks = self.lock().lacks_proof(ask.backend, ask.cost.memory.value);
        lacks && self.foresee(ask).is_ok()
    }

    /// Lets the query run as soon as every limit allows, or says why not: per query, then rate, then budget and queue.
    /// Dropping the future leaves the queue and gives back whatever was handed over.
    ///
    /// # Errors
    /// The limit that is passed, with when to come back if that helps.
    pub async fn admit(self: &Arc<Self>, ask: Ask) -> Result<Admitted, Refusal> {
        let mut shadow = self.judge(&ask)?;
        let now = Instant::now();
        let mut ready = Handovers::new();
        let answer = self.lock().ask(&ask, now, &mut shadow, &mut ready)?;
        self.hand_over(ready);
        let (held, id, receiver, longest) = match answer {
            Answer::Run(held) => {
                let permit = Permit::new(Arc::clone(self), held);
                return Ok(Admitted { permit, waited: Duration::ZERO, shadow });
            }
            Answer::Wait { held, id, receiver, longest } => (held, id, receiver, longest),
        };
        let mut place = Place { admission: self, held, id, receiver };
        let end = ask.deadline.min(now + longest);
        let outcome = match tokio::time::timeout_at(end, &mut place.receiver).await {
            Ok(Ok(outcome)) => outcome,
            // The time is up, but it may just have been handed over.
            Ok(Err(_)) | Err(_) => place.leave().unwrap_or_else(|missing| {
                Err(Refusal {
                    kind: ErrorKind::QueueTimeout,
                    limit: LimitName::QueueTimeout,
                    observed: Estimate::exact(millis(now.elapsed())),
                    max: millis(end - now),
                    scope: self.whose(missing, &ask),
                    retry_after: Some(retry_soon(longest)),
                })
            }),
        };
        Ok(Admitted { permit: outcome?, waited: now.elapsed(), shadow })
    }

    /// Whose budget a query waited for.
    fn whose(&self, missing: Room, ask: &Ask) -> Scope {
        let policy = self.policy.load();
        match (missing, policy.backends.get(ask.backend.0)) {
            (Room::BackendFull, Some(backend)) => Scope::Backend(Arc::clone(&backend.name)),
            _ => Scope::Tenant(ask.tenant.clone()),
        }
    }

    /// Counts one query towards its tenant's rate; needs no estimate. Gives the rate if it is in shadow mode and passed.
    ///
    /// # Errors
    /// The query comes too early.
    pub fn check_rate(&self, tenant: &TenantId) -> Result<Vec<ShadowHit>, Refusal> {
        self.lock().check_rate(tenant, Instant::now())
    }

    /// Refuses everybody who waits: the process is about to end.
    pub fn close(self: &Arc<Self>) {
        let ready = self.lock().close();
        self.hand_over(ready);
    }

    /// Sets what pressure leaves of a backend's budget. Who waits for what is no longer there is refused at once.
    pub fn allow(self: &Arc<Self>, backend: BackendId, allowance: Allowance) {
        let ready = self.lock().allow(backend, allowance);
        self.hand_over(ready);
    }

    /// Says whether a backend is seen to hold more memory than was expected of what runs there: as long as it is, and
    /// until heavy queries end as expected again, few of them run at a time.
    pub fn doubt(&self, backend: BackendId, doubted: bool) {
        self.lock().doubt(backend, doubted);
    }

    /// The most bytes that queries on a backend held at a time since this was asked last, and how many they may; `None`
    /// for a backend that is not configured.
    pub fn held_since_asked(&self, backend: BackendId) -> Option<(u64, Option<u64>)> {
        self.lock().held_since_asked(backend)
    }

    /// What is held and who waits, now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let removed = (0..state.backends.len()).filter(|slot| {
            let backend = &state.backends[*slot];
            let busy = !backend.used.is_nothing() || backend.queue.len() > 0;
            busy && !state.backend_slots.contains(slot)
        });
        let slots = state.backend_slots.iter().copied().chain(removed);
        let backends = slots.map(|slot| &state.backends[slot]).map(|backend| BackendSnapshot {
            name: Arc::clone(&backend.name),
            waiting: backend.queue.len() as u64,
            queries: backend.used.queries,
            queries_capacity: backend.capacity.queries.watched().map(|max| backend.capacity.of_queries(max)),
            memory: u64::try_from(backend.used.memory).unwrap_or(u64::MAX),
            memory_capacity: backend.capacity.memory.watched().map(|max| backend.capacity.of_memory(max)),
            capacity_percent: (backend.capacity.ppm * 100 / WHOLE) as u8,
        });
        let backends = backends.collect();
        let busy = state.tenants.iter().filter(|account| account.waiting > 0 || !account.used.is_nothing());
        let mut tenants: Vec<_> = busy
            .map(|account| TenantSnapshot {
                tenant: account.id.clone(),
                waiting: account.waiting as u64,
                queries: account.used.queries,
                memory: u64::try_from(account.used.memory).unwrap_or(u64::MAX),
            })
            .collect();
        let tenants_known = state.tenants.len();
        drop(state);
        tenants.sort_by(|a, b| (b.memory, b.queries, &a.tenant).cmp(&(a.memory, a.queries, &b.tenant)));
        Snapshot { backends, tenants, tenants_known }
    }

    pub(super) fn release(self: &Arc<Self>, held: Held, actual: Option<Actual>) {
        let ready = self.lock().release(held, actual);
        self.hand_over(ready);
    }

    pub(super) fn prove(self: &Arc<Self>, held: &Held) {
        let ready = self.lock().prove(held);
        self.hand_over(ready);
    }

    /// Hands over what became free. One that has just left drops its permit, which frees it for the next.
    fn hand_over(self: &Arc<Self>, ready: Handovers) {
        for (to, outcome) in ready {
            let outcome = outcome.map(|held| Permit::new(Arc::clone(self), held));
            drop(to.send(outcome));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that panics runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A place in the queue, left when dropped.
struct Place<'a> {
    admission: &'a Arc<Admission>,
    held: Held,
    id: u64,
    receiver: oneshot::Receiver<Result<Permit, Refusal>>,
}

impl Place<'_> {
    /// Leaves the queue: what was handed over already, or else what there was no room in.
    fn leave(&mut self) -> Result<Result<Permit, Refusal>, Room> {
        let left = self.admission.lock().give_up(&self.held, self.id);
        match left {
            Some((missing, ready)) => {
                self.admission.hand_over(ready);
                Err(missing)
            }
            None => self.receiver.try_recv().map_err(|_| Room::BackendFull),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.receiver.is_terminated() {
            // What was handed over goes back by its own drop.
            drop(self.leave().ok());
        }
    }
}
