//! Asks the accounts, waits without holding anything, hands out permits.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use smallvec::SmallVec;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    charge::{Actual, Charge, End, Phase},
    per_query::{SoftHit, check_per_query, soft},
    permit::{Permit, enter, phase},
    policy::{Mode, Policy},
    refusal::{LimitName, Refusal, Scope, ShadowHit},
    request::AdmissionRequest,
    snapshot::Snapshot,
    state::{Decision, Handovers, State, Ticket, retry_soon},
    wait::{WaitReason, Waited},
    window::Cut,
};
use crate::base::{
    ErrorKind, Estimate, TenantId,
    distress::{Distress, Load},
};

/// A query that may run.
#[derive(Debug)]
pub struct Admitted {
    /// Its permit, until it is over.
    pub permit: Permit,
    /// How long it waited.
    pub waited: Duration,
    /// Limits in shadow mode that it exceeds.
    pub shadowed: Vec<ShadowHit>,
    /// The soft limit that it exceeds: it runs in the slow lane for that.
    pub soft: Option<SoftHit>,
}

/// The outcome of a wait.
type Outcome = Result<Permit, Refusal>;

/// Everything behind the lock.
struct Guarded {
    state: State,
    /// The caller of each query that waits, by its number.
    callers: HashMap<u64, oneshot::Sender<Outcome>>,
}

/// Decides which queries run.
pub struct Admission {
    policy: ArcSwap<Policy>,
    guarded: Mutex<Guarded>,
    /// The timer that is under way, and when it ends.
    armed: Mutex<Option<(Instant, AbortHandle)>>,
    /// Notified when a query has to wait though the budget is leased.
    pub(super) lease_wanted: Notify,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// Admission under a policy, with every backend alive.
    pub fn new(policy: Policy) -> Arc<Self> {
        let policy = Arc::new(policy);
        let state = State::new(Arc::clone(&policy), TenantId::other(), Instant::now());
        Arc::new(Self {
            policy: ArcSwap::new(policy),
            guarded: Mutex::new(Guarded { state, callers: HashMap::new() }),
            armed: Mutex::default(),
            lease_wanted: Notify::new(),
        })
    }

    /// The policy in force.
    pub fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Obeys another policy from now on. Permits in flight keep counting, also against narrower limits; backends and
    /// classes are recognised by their names.
    pub fn reload(self: &Arc<Self>, policy: Policy) {
        let policy = Arc::new(policy);
        self.change(|state, now, ready| {
            self.policy.store(Arc::clone(&policy));
            *ready = state.reload(policy, now);
        });
    }

    /// Looks at the per-query limits only; nothing is counted.
    ///
    /// # Errors
    /// The first enforced limit that the query exceeds.
    pub fn check_per_query(&self, request: &AdmissionRequest) -> Result<Vec<ShadowHit>, Refusal> {
        let policy = self.policy.load();
        let mut shadowed = Vec::new();
        for tenant in &request.payers {
            shadowed.extend(check_per_query(
                policy.tenant(tenant),
                tenant,
                request.class.as_deref(),
                &request.cost,
            )?);
        }
        Ok(shadowed)
    }

    /// The first soft limit that a query exceeds.
    pub fn soft(&self, request: &AdmissionRequest) -> Option<SoftHit> {
        let policy = self.policy.load();
        let mut tenants = request.payers.iter();
        tenants.find_map(|tenant| {
            soft(policy.tenant(tenant), tenant, request.class.as_deref(), &request.cost, Mode::Enforce)
        })
    }

    /// Looks at the per-query limits, and at whether the query is more than a whole budget; nothing is counted.
    ///
    /// # Errors
    /// The first enforced limit that it exceeds, however long it waits.
    pub fn dry_run(&self, request: &AdmissionRequest) -> Result<Vec<ShadowHit>, Refusal> {
        let mut shadowed = self.check_per_query(request)?;
        self.lock().dry_run(request, Instant::now(), &mut shadowed)?;
        Ok(shadowed)
    }

    /// Counts one query towards the rates of all its tenants, or of none; needs no estimate. Gives the rates in shadow
    /// mode that are exceeded.
    ///
    /// # Errors
    /// The query comes too early.
    pub fn check_rate(&self, payers: &[TenantId]) -> Result<Vec<ShadowHit>, Refusal> {
        let mut state = self.lock();
        let verdict = state.check_rate(payers, Instant::now());
        let round_wanted = std::mem::take(&mut state.round_wanted);
        drop(state);
        self.want_round(round_wanted);
        verdict
    }

    /// Takes back the count of a query that turned out to be refused for another reason. As many a second as the rate
    /// allows: a flood of such queries is over its rate as any other.
    pub fn give_rate_back(&self, payers: &[TenantId]) {
        self.lock().give_rate_back(payers, Instant::now());
    }

    /// Has the store of leases asked at once, if tokens of a shared rate are needed, or others wait for what came free.
    fn want_round(&self, wanted: bool) {
        if wanted {
            self.lease_wanted.notify_one();
        }
    }

    /// Lets the query run as soon as every limit allows, or says why not: per query, then rate, then budget and queue.
    /// Dropping the future leaves the queue and gives back a permit that was handed over.
    ///
    /// # Errors
    /// The limit that is exceeded, with when to come back if that helps.
    pub async fn admit(self: &Arc<Self>, request: AdmissionRequest) -> Result<Admitted, Refusal> {
        match self.try_admit(&request)? {
            Attempt::Admitted(admitted) => Ok(admitted),
            Attempt::Queued(queued) => queued.turn(&request).await,
        }
    }

    /// The part of [`Self::admit`] that does not wait: most queries run at once.
    pub(super) fn try_admit(self: &Arc<Self>, request: &AdmissionRequest) -> Result<Attempt, Refusal> {
        let mut shadowed = self.check_per_query(request)?;
        let soft = self.soft(request);
        let slow = request.slow || soft.is_some();
        let answer = self.change_guarded(|Guarded { state, callers }, now, ready| {
            let (answer, over_quota) = state.decide((request, slow), now, &mut shadowed, ready)?;
            let answer = match answer {
                Decision::Run(charge) => Ok(charge),
                Decision::Wait(ticket) => {
                    let (caller, turn) = oneshot::channel();
                    callers.insert(ticket.id, caller);
                    Err((ticket, turn, now))
                }
            };
            Ok((answer, over_quota))
        });
        let (answer, over_quota) = answer?;
        let soft = soft.or(over_quota);
        Ok(match answer {
            Ok(charge) => {
                let permit = Permit::new(Arc::clone(self), charge);
                Attempt::Admitted(Admitted { permit, waited: Duration::ZERO, shadowed, soft })
            }
            Err((ticket, turn, since)) => {
                if self.policy.load().sharing.leased {
                    self.lease_wanted.notify_one();
                }
                let admission = Arc::clone(self);
                Attempt::Queued(Queued { admission, ticket, turn, since, shadowed, soft })
            }
        })
    }

    /// Obeys a look at a backend's distress; `peak` is the most that was in flight there until that look.
    pub fn observe(self: &Arc<Self>, backend: &str, distress: &Distress, peak: Load) {
        self.change(|state, now, ready| *ready = state.observe(backend, distress, peak, now));
    }

    /// Says whether a backend is alive. Of a dead one nothing runs and nothing waits.
    pub fn set_alive(self: &Arc<Self>, backend: &str, alive: bool) {
        self.change(|state, now, ready| *ready = state.set_alive(backend, alive, now));
    }

    /// The most in flight at a backend since this was asked last; `None` for one that is not configured.
    pub fn take_peak(&self, backend: &str) -> Option<Load> {
        let mut state = self.lock();
        let slot = state.backend(backend)?;
        Some(state.backends[slot].take_peak())
    }

    /// The open share of a backend's window, 0 to 1, and the cause of its cut; 0 for a dead backend.
    pub fn share(&self, backend: &str) -> Option<(f64, Option<Cut>)> {
        let state = self.lock();
        let backend = &state.backends[state.backend(backend)?];
        Some((backend.share(), backend.window.cut_by()))
    }

    /// Refuses all that wait, and all that come: the process is about to end.
    pub fn close(self: &Arc<Self>) {
        self.change(|state, now, ready| *ready = state.close(now));
    }

    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.lock(), Instant::now())
    }

    pub(super) fn release(self: &Arc<Self>, charge: &Charge, of: &AtomicU8, actual: Actual) {
        self.change(|state, now, ready| {
            let before = phase(of);
            // Its handles have nothing to say any more.
            enter(of, Phase::Done);
            *ready = state.release(charge, before, actual, now);
        });
    }

    pub(super) fn part_done(self: &Arc<Self>, charge: &Charge) {
        self.change(|state, now, ready| *ready = state.part_done(charge, now));
    }

    pub(super) fn backend_done(self: &Arc<Self>, charge: &Charge, of: &AtomicU8, answered: bool) {
        self.change(|state, now, ready| {
            let before = phase(of);
            if before != Phase::Done {
                enter(of, Phase::Done);
                *ready = state.backend_done(charge, before, answered, now);
            }
        });
    }

    pub(super) fn stalled(self: &Arc<Self>, charge: &Charge, of: &AtomicU8) -> bool {
        self.change(|state, now, ready| {
            if phase(of) == Phase::Runs && state.stalled(charge, now, ready) {
                enter(of, Phase::Stalled);
            }
            phase(of) != Phase::Runs
        })
    }

    /// Changes the state, and sends the outcomes to their callers.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut State, Instant, &mut Handovers) -> T,
    ) -> T {
        self.change_guarded(|guarded, now, ready| change(&mut guarded.state, now, ready))
    }

    fn change_guarded<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Guarded, Instant, &mut Handovers) -> T,
    ) -> T {
        let mut ready = Handovers::new();
        let mut guarded = self.guarded.lock();
        let changed = change(&mut guarded, Instant::now(), &mut ready);
        let alarm = guarded.state.next_alarm();
        let round_wanted = std::mem::take(&mut guarded.state.round_wanted);
        let callers = ready.into_iter().map(|(id, outcome)| (guarded.callers.remove(&id), outcome));
        let ready: SmallVec<[_; 2]> = callers.collect();
        drop(guarded);
        self.want_round(round_wanted);
        for (caller, outcome) in ready {
            let outcome = outcome.map(|charge| Permit::new(Arc::clone(self), charge));
            let untaken = match caller {
                Some(caller) => caller.send(outcome).err(),
                None => Some(outcome),
            };
            never_began(untaken);
        }
        if let Some(at) = alarm {
            self.arm(at);
        }
        changed
    }

    /// Spawns a task that dispatches when an alarm is due.
    fn arm(self: &Arc<Self>, at: Instant) {
        // Nothing that panics runs under the lock.
        let mut armed = self.armed.lock();
        // One that is overdue was dropped with its runtime.
        if armed.as_ref().is_some_and(|(armed, _)| *armed <= at && *armed >= Instant::now()) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let admission = Arc::downgrade(self);
        let timer = runtime.spawn(async move {
            sleep_until(at).await;
            if let Some(admission) = admission.upgrade() {
                admission.armed.lock().take_if(|(armed, _)| *armed == at);
                admission.change(|state, now, ready| *ready = state.dispatch(now));
            }
        });
        // One timer at a time, however many queries end.
        if let Some((_, later)) = armed.replace((at, timer.abort_handle())) {
            later.abort();
        }
    }

    pub(super) fn lock(&self) -> MappedMutexGuard<'_, State> {
        MutexGuard::map(self.guarded.lock(), |guarded| &mut guarded.state)
    }

    /// The number of callers that wait for a turn.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        self.guarded.lock().callers.len()
    }
}

/// Frees a grant that nobody took: its query never began, so that the backend has nothing to notice.
fn never_began(grant: Option<Outcome>) {
    if let Some(Ok(permit)) = grant {
        permit.settle(Actual { samples: Some(0), end: End::Failed });
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The outcome of [`Admission::try_admit`].
pub(super) enum Attempt {
    /// It runs.
    Admitted(Admitted),
    /// It waits for its turn.
    Queued(Queued),
}

/// A query in a queue, which it leaves when this is dropped.
pub(super) struct Queued {
    admission: Arc<Admission>,
    ticket: Ticket,
    turn: oneshot::Receiver<Outcome>,
    since: Instant,
    shadowed: Vec<ShadowHit>,
    soft: Option<SoftHit>,
}

impl Queued {
    /// Ends with its turn, or with the longest wait.
    pub(super) async fn turn(mut self, request: &AdmissionRequest) -> Result<Admitted, Refusal> {
        let longest = self.ticket.longest;
        let end = self.since + longest;
        let outcome = match timeout_at(end, &mut self.turn).await {
            Ok(Ok(outcome)) => outcome,
            // The time is up, but it may just have been handed over.
            Ok(Err(_)) | Err(_) => self.leave().unwrap_or_else(|waited| {
                let scope = match waited.reason {
                    reason if reason.is_tenants() => Scope::Tenant(request.tenant()),
                    _ => Scope::Backend(Arc::clone(&request.backend)),
                };
                Err(Refusal {
                    kind: ErrorKind::QueueTimeout,
                    limit: LimitName::QueueTimeout,
                    observed: Estimate::exact(millis(self.since.elapsed())),
                    max: millis(end.saturating_duration_since(self.since)),
                    scope,
                    retry_after: Some(retry_soon(longest)),
                    waiting_for: Some(waited),
                })
            }),
        };
        let shadowed = std::mem::take(&mut self.shadowed);
        Ok(Admitted { permit: outcome?, waited: self.since.elapsed(), shadowed, soft: self.soft.take() })
    }

    /// Leaves the queue: the grant that was sent already, or else the reason for waiting.
    fn leave(&mut self) -> Result<Outcome, Waited> {
        let Ticket { charge, id, .. } = &self.ticket;
        let reason = self.admission.change_guarded(|Guarded { state, callers }, now, ready| {
            let reason = state.leave_queue(charge, *id, now, ready)?;
            callers.remove(id);
            Some(Waited { reason, first: state.behind(reason, charge.backend, now) })
        });
        match reason {
            Some(reason) => Err(reason),
            None => self.turn.try_recv().map_err(|_| Waited { reason: WaitReason::Turn, first: None }),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.turn.is_terminated() {
            never_began(self.leave().ok());
        }
    }
}
