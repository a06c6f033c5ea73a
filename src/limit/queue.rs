//! The order of the queries that wait for one lane of a backend: self-clocked fair queueing, which is deficit round
//! robin without the rounds.
//!
//! Every sub-queue (a tenant's queries of one class) has a virtual start, and its turn comes at the start plus the cost of
//! its next query. The earliest turn is next, and its start moves on by its cost. So a cheap query comes before an
//! expensive one that arrived with it, and an expensive one is passed only until others had the same cost. Inside a
//! sub-queue the same is done once more between flows: an actor's queries of similar cost, first in, first out.
//!
//! The order is strict: a query whose turn it is and that finds no room at the backend holds up all behind it, but for
//! those whom [`Verdict`] lets pass. A sub-queue whose tenant has no room is parked and costs nothing until its tenant gets
//! some.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::charge::{Charge, Payers};
use crate::base::share::Amount;

/// A query that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    /// The caller's own number of the query.
    pub(super) tag: u64,
    pub(super) actor: Arc<str>,
    pub(super) charge: Charge,
    pub(super) asked: Instant,
    /// How long it may wait.
    pub(super) longest: Duration,
}

/// The scheduler's verdict on a waiting query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs.
    Runs,
    /// It runs if nobody behind it can.
    RunsLast,
    /// It waits, and others may pass it.
    IsPassed,
    /// It waits, and holds up those behind it.
    Blocks,
    /// It waits for room that no other query of the queue holds up.
    Parks(Parked),
}

/// The account whose room a sub-queue waits for, out of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parked {
    /// Its tenant's.
    ForTenant,
    /// That of the slow lane.
    ForSlowLane,
}

/// Under which the sub-queues that wait for the slow lane are kept, in place of a tenant's number.
const SLOW_LANE: usize = usize::MAX;

/// Bytes that every query counts for beside its own, so that small ones are not free.
const TURN: u64 = 1 << 20;
/// Shares looked at behind one that holds them up, for one that may pass.
const PASSING_MAX: usize = 256;

/// The cost of a query to its sub-queue and its flow.
fn cost(charge: &Charge) -> u128 {
    u128::from(charge.bytes) + u128::from(TURN)
}

/// Queries within a factor of 2 queue behind each other.
fn band(charge: &Charge) -> u32 {
    charge.bytes.saturating_add(TURN).ilog2()
}

/// A tenant's queries of one class, in the slow lane or not.
type SubQueueKey = (Payers, usize, bool);

fn key_of(charge: &Charge) -> SubQueueKey {
    (charge.payers.clone(), charge.class, charge.slow)
}

/// A key that sorts before every other.
fn first_key() -> SubQueueKey {
    (Payers::new(), 0, false)
}

#[derive(Debug)]
struct Flow {
    actor: Arc<str>,
    band: u32,
    start: u128,
    waiters: VecDeque<Waiter>,
}

impl Flow {
    /// When its next query's turn is; a flow is never empty.
    fn turn(&self) -> u128 {
        self.start + self.waiters.front().map_or(0, |waiter| cost(&waiter.charge))
    }
}

#[derive(Debug, Default)]
struct SubQueue {
    start: u128,
    /// Its place in the order of sub-queues.
    turn: u128,
    clock: u128,
    parked: Option<Parked>,
    flows: Vec<Flow>,
    /// When a query of it ran last.
    served: Option<Instant>,
    /// It waited for its tenant's lease: its next query keeps its turn, and the others earn none for that time.
    late: bool,
}

/// The best candidate of one sub-queue.
struct Offer {
    /// The flow that runs.
    runs: Option<usize>,
    /// The flow that runs if nobody else can.
    runs_last: Option<usize>,
    blocks: Option<Instant>,
    parks: Option<Parked>,
}

impl SubQueue {
    /// Its next waiter, and since when that has waited for this turn: a query of it ran last then, or the waiter came.
    fn next(&self) -> Option<(Instant, &Waiter)> {
        let first = self.flows.iter().min_by_key(|flow| flow.turn())?.waiters.front()?;
        Some((self.served.map_or(first.asked, |served| served.max(first.asked)), first))
    }

    /// When the turn of its next query is.
    fn next_turn(&self) -> u128 {
        let first = self.flows.iter().min_by_key(|flow| flow.turn());
        self.start + first.and_then(|flow| flow.waiters.front()).map_or(0, |waiter| cost(&waiter.charge))
    }

    /// Looks at its flows in the order of their turns, up to the first that holds up the others.
    fn offer(
        &self,
        held_up: Option<Instant>,
        room: &mut impl FnMut(&Waiter, Option<Instant>) -> Verdict,
    ) -> Offer {
        let mut offer = Offer { runs: None, runs_last: None, blocks: None, parks: None };
        let mut after = None;
        while let Some((turn, at, waiter)) = self.next_front(after) {
            let was_passed = after.replace((turn, at)).is_some();
            match room(waiter, held_up) {
                Verdict::Runs => offer.runs = Some(at),
                Verdict::RunsLast => {
                    offer.runs_last = offer.runs_last.or(Some(at));
                    continue;
                }
                Verdict::IsPassed => continue,
                Verdict::Blocks => offer.blocks = Some(waiter.asked),
                // One that was passed may run before there is room of that kind.
                Verdict::Parks(parked) => offer.parks = Some(parked).filter(|_| !was_passed),
            }
            break;
        }
        offer
    }

    /// The next query of the flow whose turn is the earliest after that of another.
    fn next_front(&self, after: Option<(u128, usize)>) -> Option<(u128, usize, &Waiter)> {
        let turns = self.flows.iter().enumerate().map(|(at, flow)| (flow.turn(), at));
        let (turn, at) = turns.filter(|turn| after.is_none_or(|after| *turn > after)).min()?;
        Some((turn, at, self.flows.get(at)?.waiters.front()?))
    }

    /// Takes the next query of a flow out.
    fn take(&mut self, at: usize) -> Option<Waiter> {
        let flow = self.flows.get_mut(at)?;
        self.clock = self.clock.max(flow.turn());
        let waiter = flow.waiters.pop_front()?;
        flow.start += cost(&waiter.charge);
        self.start += cost(&waiter.charge);
        if flow.waiters.is_empty() {
            self.flows.swap_remove(at);
        }
        Some(waiter)
    }
}

/// The queue of one lane of one backend.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queues: HashMap<SubQueueKey, SubQueue>,
    /// Shares that are not parked, by turn.
    order: BTreeSet<(u128, SubQueueKey)>,
    /// Shares that are, by each tenant that pays for them, or under [`SLOW_LANE`].
    parked: BTreeSet<(usize, SubQueueKey)>,
    clock: u128,
    len: usize,
}

impl Queue {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits for the backend; somebody may wait for room of its tenant.
    pub(super) fn is_open(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether one that pays like this waits for room of its tenant, or for the slow lane as this one would.
    pub(super) fn is_parked(&self, charge: &Charge) -> bool {
        let has =
            |of: usize| self.parked.range((of, first_key())..).next().is_some_and(|(known, _)| *known == of);
        has(charge.payers.first().copied().unwrap_or(0)) || (charge.slow && has(SLOW_LANE))
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        let key = key_of(&waiter.charge);
        let clock = self.clock;
        let queue = self
            .queues
            .entry(key.clone())
            .or_insert_with(|| SubQueue { start: clock, ..SubQueue::default() });
        let band = band(&waiter.charge);
        match queue.flows.iter_mut().find(|flow| flow.band == band && flow.actor == waiter.actor) {
            Some(flow) => flow.waiters.push_back(waiter),
            None => queue.flows.push(Flow {
                actor: Arc::clone(&waiter.actor),
                band,
                start: queue.clock,
                waiters: VecDeque::from([waiter]),
            }),
        }
        self.len += 1;
        self.put_in_order(&key);
    }

    /// Takes out the query that runs next. `room` judges a query, given since when the one that holds it up waits;
    /// nobody passes that one unless `some_pass`.
    pub(super) fn pop(
        &mut self,
        some_pass: bool,
        mut room: impl FnMut(&Waiter, Option<Instant>) -> Verdict,
    ) -> Option<Waiter> {
        let (mut chosen, mut last, mut held_up, mut behind) = (None, None, None, 0);
        let mut parks = Vec::new();
        for (turn, key) in &self.order {
            let Some(queue) = self.queues.get(key) else { continue };
            let offer = queue.offer(held_up, &mut room);
            if let Some(flow) = offer.runs {
                chosen = Some((*turn, key.clone(), flow));
                break;
            }
            if let Some(flow) = offer.runs_last.filter(|_| last.is_none()) {
                last = Some((*turn, key.clone(), flow));
            }
            if let Some(parked) = offer.parks {
                parks.push((key.clone(), parked));
            }
            held_up = held_up.or(offer.blocks);
            behind += usize::from(held_up.is_some());
            if held_up.is_some() && (!some_pass || behind > PASSING_MAX) {
                break;
            }
        }
        for (key, parked) in parks {
            self.park(&key, parked);
        }
        let (turn, key, flow) = chosen.or(last)?;
        self.clock = self.clock.max(turn);
        let queue = self.queues.get_mut(&key)?;
        let waiter = queue.take(flow)?;
        if std::mem::take(&mut queue.late) {
            queue.start = queue.start.max(self.clock);
        }
        self.len -= 1;
        self.put_in_order(&key);
        Some(waiter)
    }

    fn park(&mut self, key: &SubQueueKey, parked: Parked) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        self.order.remove(&(queue.turn, key.clone()));
        queue.parked = Some(parked);
        match parked {
            Parked::ForTenant => self.parked.extend(key.0.iter().map(|tenant| (*tenant, key.clone()))),
            Parked::ForSlowLane => _ = self.parked.insert((SLOW_LANE, key.clone())),
        }
    }

    /// The newest query of the tenant's actor that waits with the most, if `actor` would still wait with no more than
    /// it after taking its place.
    pub(super) fn longest_of(&self, tenant: usize, actor: &Arc<str>) -> Option<(Charge, u64)> {
        let mut waiting: HashMap<&Arc<str>, (usize, &Waiter)> = HashMap::new();
        let mine = self.queues.iter().filter(|((payers, ..), _)| payers.contains(&tenant));
        for waiter in mine.flat_map(|(_, queue)| &queue.flows).flat_map(|flow| &flow.waiters) {
            let (count, newest) = waiting.entry(&waiter.actor).or_insert((0, waiter));
            *count += 1;
            if waiter.id > newest.id {
                *newest = waiter;
            }
        }
        let own = waiting.get(actor).map_or(0, |(count, _)| *count);
        let (count, newest) = waiting.into_values().max_by_key(|(count, newest)| (*count, newest.id))?;
        (count > own + 1).then(|| (newest.charge.clone(), newest.id))
    }

    /// Takes out one that gave up; `None` when it was handed over already.
    pub(super) fn remove(&mut self, charge: &Charge, id: u64) -> Option<Waiter> {
        let key = key_of(charge);
        let queue = self.queues.get_mut(&key)?;
        let (at, place) = queue
            .flows
            .iter()
            .enumerate()
            .find_map(|(at, flow)| Some((at, flow.waiters.iter().position(|waiter| waiter.id == id)?)))?;
        let waiter = queue.flows.get_mut(at)?.waiters.remove(place)?;
        queue.flows.retain(|flow| !flow.waiters.is_empty());
        self.len -= 1;
        self.put_in_order(&key);
        Some(waiter)
    }

    /// Takes out everybody.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waiter> {
        let all = std::mem::take(self);
        all.queues.into_values().flat_map(|queue| queue.flows).flat_map(|flow| flow.waiters)
    }

    /// A tenant got room: its parked sub-queues are looked at again. While they were parked they earned no turns; one that
    /// waited for a lease alone keeps the turn that it had.
    pub(super) fn unpark(&mut self, tenant: usize, by_lease: bool) {
        let of_tenant = self.parked.range((tenant, first_key())..).take_while(|(of, _)| *of == tenant);
        let keys: Vec<_> = of_tenant.map(|(_, key)| key.clone()).collect();
        for key in keys {
            if let Some(queue) = self.queues.get_mut(&key) {
                if by_lease {
                    queue.late = true;
                } else {
                    queue.start = queue.start.max(self.clock);
                }
            }
            self.put_in_order(&key);
        }
    }

    /// The slow lane got room.
    pub(super) fn unpark_slow(&mut self) {
        self.unpark(SLOW_LANE, false);
    }

    /// Gives a sub-queue the place that its next query has now; an empty one goes.
    fn put_in_order(&mut self, key: &SubQueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        self.order.remove(&(queue.turn, key.clone()));
        match queue.parked.take() {
            None => {}
            Some(Parked::ForSlowLane) => _ = self.parked.remove(&(SLOW_LANE, key.clone())),
            Some(Parked::ForTenant) => {
                for tenant in &key.0 {
                    self.parked.remove(&(*tenant, key.clone()));
                }
            }
        }
        if queue.flows.is_empty() {
            self.queues.remove(key);
            if self.queues.is_empty() {
                self.clock = 0;
            }
            return;
        }
        queue.turn = queue.next_turn();
        self.order.insert((queue.turn, key.clone()));
    }

    /// The sum that queries waiting for the backend need, and the number of their tenants.
    pub(super) fn waiting(&self) -> (Amount, u64) {
        let for_backend = self.queues.iter().filter(|(_, queue)| queue.parked.is_none());
        let (mut sum, mut tenants) = (Amount::NONE, BTreeSet::<usize>::new());
        for ((payers, ..), queue) in for_backend {
            tenants.extend(payers.first());
            for waiter in queue.flows.iter().flat_map(|flow| &flow.waiters) {
                sum = sum.plus(Amount { bytes: waiter.charge.bytes, queries: 1 });
            }
        }
        (sum, tenants.len() as u64)
    }

    /// All that wait, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.queues.values().flat_map(|queue| &queue.flows).flat_map(|flow| &flow.waiters)
    }

    /// The next waiter if the backend had room; `None` when nobody waits for it.
    pub(super) fn first(&self) -> Option<&Waiter> {
        self.first_turn().map(|(_, first)| first)
    }

    /// The same, and since when it has waited for its turn.
    pub(super) fn first_turn(&self) -> Option<(Instant, &Waiter)> {
        let (_, key) = self.order.first()?;
        self.queues.get(key)?.next()
    }

    /// The next waiter of every sub-queue, and since when it has waited for its turn, in no order.
    pub(super) fn turns(&self) -> impl Iterator<Item = (Instant, &Waiter)> {
        self.queues.values().filter_map(SubQueue::next)
    }

    /// A query that was popped runs.
    pub(super) fn served(&mut self, charge: &Charge, now: Instant) {
        if let Some(queue) = self.queues.get_mut(&key_of(charge)) {
            queue.served = Some(now);
        }
    }
}

#[cfg(test)]
impl Queue {
    /// The next of every sub-queue that is not parked, in the order of turns, and all of their flows' next.
    pub(super) fn fronts(&self) -> impl Iterator<Item = &Waiter> {
        let queues = self.order.iter().filter_map(|(_, key)| self.queues.get(key));
        queues.flat_map(|queue| &queue.flows).filter_map(|flow| flow.waiters.front())
    }

    /// The next of every parked sub-queue.
    pub(super) fn parked_fronts(&self) -> impl Iterator<Item = &Waiter> {
        let queues = self.queues.values().filter(|queue| queue.parked.is_some());
        queues.filter_map(|queue| queue.flows.iter().min_by_key(|flow| flow.turn())?.waiters.front())
    }

    /// Whether the order, the sub-queues and the count agree.
    pub(super) fn is_sound(&self) -> bool {
        let in_order = self.queues.iter().all(|(key, queue)| {
            let (for_tenant, for_slow_lane) =
                (queue.parked == Some(Parked::ForTenant), queue.parked == Some(Parked::ForSlowLane));
            self.order.contains(&(queue.turn, key.clone())) == queue.parked.is_none()
                && key.0.iter().all(|tenant| self.parked.contains(&(*tenant, key.clone())) == for_tenant)
                && self.parked.contains(&(SLOW_LANE, key.clone())) == for_slow_lane
                && !queue.flows.is_empty()
                && queue.flows.iter().all(|flow| !flow.waiters.is_empty())
        });
        let placed = self.queues.values().filter(|queue| queue.parked.is_none()).count();
        in_order && self.order.len() == placed && self.iter().count() == self.len
    }
}
