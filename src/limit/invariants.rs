//! Invariants after every step, as pure functions over the accounts and the permits that are out.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    backend::Backend,
    charge::{Charge, Phase},
    lane::Lane,
    queue::{Queue, Verdict},
    state::State,
    usage::Usage,
    wait::WaitReason,
};

/// The longest that a query that fits waits before an idle backend.
pub(super) const IDLE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Holdings before a step: a budget that shrank below them is not exceeded.
pub(super) struct Before {
    backends: Vec<[Usage; 4]>,
    /// Heavy queries at each backend.
    heavy: Vec<u64>,
    tenants: Vec<Usage>,
}

fn accounts(backend: &Backend) -> [Usage; 4] {
    [backend.lane(Lane::Light).used, backend.lane(Lane::Heavy).used, backend.stalled, backend.slow]
}

impl Before {
    pub(super) fn of(state: &State) -> Self {
        Self {
            backends: state.backends.iter().map(accounts).collect(),
            heavy: state.backends.iter().map(|backend| backend.lane(Lane::Heavy).own()).collect(),
            tenants: state.tenants.iter().map(|account| account.used).collect(),
        }
    }
}

/// Everything that is broken, in words. A tenant that the configuration once named keeps its account when a reload drops
/// the name, so those come on top of the bound: `named_ever`.
pub(super) fn broken(
    state: &State,
    permits: &[(Charge, Phase)],
    before: &Before,
    named_ever: usize,
    now: Instant,
) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(leaks(state, permits));
    wrong.extend(excesses(state, before));
    wrong.extend(forgotten(state, now));
    if state.tenants.len() > state.policy.tenants_max + named_ever {
        wrong.push(format!("{} tenants have accounts", state.tenants.len()));
    }
    wrong
}

fn sum<'a>(charges: impl Iterator<Item = &'a Charge>) -> Usage {
    charges.fold(Usage::default(), |sum, charge| sum.plus(charge.bytes))
}

/// The accounts equal the sum of permits that are out and charges that linger, everywhere.
fn leaks(state: &State, permits: &[(Charge, Phase)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let lingering = state.backends.iter().flat_map(|backend| backend.lingering.values());
    let all: Vec<_> = permits.iter().chain(lingering).collect();
    for (slot, backend) in state.backends.iter().enumerate() {
        let of = |phase: Phase, lane: Option<Lane>| {
            let here = all.iter().filter(move |(charge, in_phase)| {
                charge.backend == slot && *in_phase == phase && lane.is_none_or(|lane| charge.lane == lane)
            });
            here.map(|(charge, _)| charge)
        };
        for lane in Lane::ALL {
            let account = backend.lane(lane);
            if account.used != sum(of(Phase::Runs, Some(lane))) {
                wrong
                    .push(format!("{lane:?} lane of {}: {:?} is held by nobody", backend.name, account.used));
            }
            for (class, used) in account.by_class.iter().enumerate() {
                if *used != sum(of(Phase::Runs, Some(lane)).filter(|charge| charge.class == class)) {
                    wrong.push(format!("class {class} at {}: {used:?} is held by nobody", backend.name));
                }
            }
        }
        if backend.slow != sum(of(Phase::Runs, None).filter(|charge| charge.slow)) {
            wrong.push(format!("slow lane of {}: {:?} is held by nobody", backend.name, backend.slow));
        }
        if backend.stalled != sum(of(Phase::Stalled, None)) {
            wrong.push(format!("{}: {:?} is stalled for nobody", backend.name, backend.stalled));
        }
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        let mine = all.iter().flat_map(|(charge, _)| charge.payers.iter().map(move |payer| (payer, charge)));
        if account.used != sum(mine.filter(|(payer, _)| **payer == slot).map(|(_, charge)| charge)) {
            wrong.push(format!("tenant {}: {:?} is held by nobody", account.id, account.used));
        }
    }
    wrong
}

fn grew(now: Usage, before: Option<Usage>) -> bool {
    let before = before.unwrap_or_default();
    now.memory > before.memory || now.queries > before.queries
}

/// Permits pass no budget, and heavy bytes stay within the window unless one runs alone. A budget or a window that
/// shrank may be passed until permits come back.
fn excesses(state: &State, before: &Before) -> Vec<String> {
    let mut wrong = Vec::new();
    for (slot, backend) in state.backends.iter().enumerate() {
        let [light, heavy, stalled, slow] = accounts(backend);
        let was = before.backends.get(slot).copied();
        let was = |at: usize| was.map(|was| was[at]);
        for (lane, used, at) in [(Lane::Light, light, 0), (Lane::Heavy, heavy, 1)] {
            let whole = backend.budget.whole(lane);
            if !used.within(whole.memory, whole.slots) && grew(used, was(at)) {
                wrong.push(format!("{lane:?} lane of {}: {used:?} passes {whole:?}", backend.name));
            }
        }
        let share = backend.budget.slow();
        if slow.queries > 1 && !slow.within(share.memory, share.slots) && grew(slow, was(3)) {
            wrong.push(format!("slow lane of {}: {slow:?} passes {share:?}", backend.name));
        }
        let memory = backend.budget.whole(Lane::Heavy).memory;
        let all_grew = grew(heavy, was(1)) || grew(stalled, was(2));
        if !heavy.and(stalled).within(memory, None) && all_grew {
            wrong.push(format!("{}: {heavy:?} and {stalled:?} pass its budget", backend.name));
        }
        let own = backend.lane(Lane::Heavy).own();
        if backend.heavy_slots().is_some_and(|slots| own > slots)
            && own > before.heavy.get(slot).copied().unwrap_or(0)
        {
            wrong.push(format!("{}: {own} heavy queries pass its places", backend.name));
        }
        let open = backend.open(Lane::Heavy).memory;
        if own > 1 && !heavy.within(open, None) && grew(heavy, was(1)) {
            wrong.push(format!("{}: {heavy:?} passes its window {open:?}", backend.name));
        }
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        let narrow = account.policy.in_flight;
        if !account.used.within(narrow.memory.enforced(), narrow.queries.enforced())
            && grew(account.used, before.tenants.get(slot).copied())
        {
            wrong.push(format!("tenant {}: {:?} passes its limit", account.id, account.used));
        }
    }
    wrong
}

/// No query waits that could run; light queries always have their lane; a query that fits does not wait for long before an
/// idle backend, nor any query longer than it may; queues and accounts agree on the waiting queries.
fn forgotten(state: &State, now: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    for backend in &state.backends {
        for lane in Lane::ALL {
            let account = backend.lane(lane);
            if !account.queue.is_sound() {
                wrong.push(format!("the {lane:?} queue of {} does not agree with itself", backend.name));
            }
            if let Some(first) = account.queue.first()
                && matches!(state.verdict(first, None, now), Verdict::Runs | Verdict::RunsLast)
            {
                let age = now.saturating_duration_since(first.asked);
                let verdict = state.verdict(first, None, now);
                wrong.push(format!(
                    "{} could run at {} after {age:?}: {verdict:?}, {:?}",
                    first.id, backend.name, first.charge
                ));
            }
            for waiter in account.queue.parked_fronts() {
                if state.fits(&waiter.charge, now).is_ok() {
                    wrong.push(format!("{} is parked at {} and could run", waiter.id, backend.name));
                }
            }
            for waiter in account.queue.iter() {
                if now.saturating_duration_since(waiter.asked) > waiter.longest {
                    wrong.push(format!("{} waits for too long at {}", waiter.id, backend.name));
                }
                if !backend.is_alive {
                    wrong.push(format!("{} waits for dead {}", waiter.id, backend.name));
                }
            }
            let by_class = |class: usize| account.queue.iter().filter(|w| w.charge.class == class).count();
            if (0..state.classes.len()).any(|class| account.waiting_by_class[class] != by_class(class)) {
                wrong.push(format!("{}: {:?} wait by class", backend.name, account.waiting_by_class));
            }
        }
        wrong.extend(shut_out(state, backend, now));
    }
    for (slot, account) in state.tenants.iter().enumerate() {
        let queues = state.backends.iter().flat_map(|b| Lane::ALL.map(|lane| &b.lane(lane).queue));
        let waiting = queues.flat_map(Queue::iter).filter(|w| w.charge.payers.contains(&slot)).count();
        if account.waiting != waiting {
            wrong.push(format!("tenant {}: {} wait, not {}", account.id, waiting, account.waiting));
        }
    }
    wrong
}

/// A query that waits for a backend, and not for its own tenant, waits because a query of the same lane runs there.
fn shut_out(state: &State, backend: &Backend, now: Instant) -> Vec<String> {
    let mut wrong = Vec::new();
    let is_idle = backend.used().is_nothing();
    for waiter in backend.lane(Lane::Heavy).queue.fronts() {
        let age = now.saturating_duration_since(waiter.asked);
        if is_idle && age > IDLE_WAIT_MAX {
            wrong.push(format!("{} waits {age:?} before idle {}", waiter.id, backend.name));
        }
    }
    let light = backend.lane(Lane::Light);
    let whole = backend.budget.whole(Lane::Light);
    if let Some(first) = light.queue.first()
        && state.fits(&first.charge, now) == Err(WaitReason::LightLane)
        && light.used.plus(first.charge.bytes).within(whole.memory, whole.slots)
    {
        wrong.push(format!("light {} waits though the light lane of {} has room", first.id, backend.name));
    }
    wrong
}
