//! Who runs next of those that wait for a backend: self-clocked fair queueing, which is deficit round robin without
//! the rounds.
//!
//! Every lane (a tenant's queries of one class) has a virtual start, and its turn comes at the start plus the cost of
//! its next query. Whoever has the earliest turn runs, if it fits, and its start moves on by what it cost. So a cheap
//! query comes before a dear one that arrived with it, and a dear one is passed only until others had as much.
//! Inside a lane the same is done once more between flows: an actor's queries of similar cost, first in, first out.
//!
//! A lane whose tenant has no room left is set aside and costs nothing until its tenant gets room.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{
    permit::{Held, Permit},
    refusal::Refusal,
};

/// A query that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) actor: Arc<str>,
    pub(super) held: Held,
    pub(super) hand_over: oneshot::Sender<Result<Permit, Refusal>>,
}

/// Whether a query has room now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It may run.
    Enough,
    /// Its tenant has none.
    TenantFull,
    /// The backend has none.
    BackendFull,
}

/// Bytes that every query counts for beside its own, so that small ones are not free.
const TURN: u64 = 1 << 20;

/// What a query costs its lane and its flow.
fn cost(held: &Held) -> u128 {
    u128::from(held.weight) + u128::from(TURN)
}

/// Queries within a factor of 16 queue behind each other.
fn band(held: &Held) -> u32 {
    (held.weight + TURN).ilog2() / 4
}

/// A tenant's queries of one class.
type LaneKey = (usize, usize);

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
        self.start + self.waiters.front().map_or(0, |waiter| cost(&waiter.held))
    }
}

#[derive(Debug, Default)]
struct Lane {
    start: u128,
    /// Its place in the order of lanes.
    turn: u128,
    /// Bytes of the lightest of its flows' next queries.
    lightest: u64,
    clock: u128,
    set_aside: bool,
    flows: Vec<Flow>,
}

impl Lane {
    /// When the turn of its next query is.
    fn next_turn(&self) -> u128 {
        let first = self.flows.iter().min_by_key(|flow| flow.turn());
        self.start + first.and_then(|flow| flow.waiters.front()).map_or(0, |waiter| cost(&waiter.held))
    }

    fn lightest(&self) -> u64 {
        let fronts = self.flows.iter().filter_map(|flow| flow.waiters.front());
        fronts.map(|waiter| waiter.held.weight).min().unwrap_or(0)
    }

    /// The flow that runs next of those with room; or else the first that only the backend has no room for.
    fn choose(&self, room: &mut impl FnMut(&Waiter) -> Room) -> Result<usize, Option<usize>> {
        let (mut ready, mut blocked) = (None, None);
        for (at, flow) in self.flows.iter().enumerate() {
            let Some(waiter) = flow.waiters.front() else { continue };
            let first = match room(waiter) {
                Room::Enough => &mut ready,
                Room::BackendFull => &mut blocked,
                Room::TenantFull => continue,
            };
            let turn = flow.turn();
            if first.is_none_or(|(earliest, _)| turn < earliest) {
                *first = Some((turn, at));
            }
        }
        ready.map(|(_, at)| at).ok_or(blocked.map(|(_, at)| at))
    }

    /// Id and share of the next query of a flow.
    fn front(&self, at: usize) -> Option<(u64, Held)> {
        self.flows.get(at)?.waiters.front().map(|waiter| (waiter.id, waiter.held))
    }

    /// Takes the next query of a flow out.
    fn take(&mut self, at: usize) -> Option<Waiter> {
        let flow = self.flows.get_mut(at)?;
        self.clock = self.clock.max(flow.turn());
        let waiter = flow.waiters.pop_front()?;
        flow.start += cost(&waiter.held);
        self.start += cost(&waiter.held);
        if flow.waiters.is_empty() {
            self.flows.swap_remove(at);
        }
        Some(waiter)
    }
}

/// The queue of one backend.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes that are not set aside, by turn.
    order: BTreeSet<(u128, LaneKey)>,
    /// The same lanes by the least that one of them needs.
    weights: BTreeSet<(u64, LaneKey)>,
    clock: u128,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The least that any lane in order needs, in bytes; with less room, looking further is of no use.
    pub(super) fn lightest(&self) -> Option<u64> {
        self.weights.first().map(|(weight, _)| *weight)
    }

    pub(super) fn push(&mut self, waiter: Waiter) {
        let key = (waiter.held.tenant, waiter.held.class);
        let clock = self.clock;
        let lane = self.lanes.entry(key).or_insert_with(|| Lane { start: clock, ..Lane::default() });
        let band = band(&waiter.held);
        match lane.flows.iter_mut().find(|flow| flow.band == band && flow.actor == waiter.actor) {
            Some(flow) => flow.waiters.push_back(waiter),
            None => lane.flows.push(Flow {
                actor: Arc::clone(&waiter.actor),
                band,
                start: lane.clock,
                waiters: VecDeque::from([waiter]),
            }),
        }
        self.len += 1;
        self.put_in_order(key);
    }

    /// Takes out the query whose turn is the earliest of those with room.
    pub(super) fn pop(&mut self, mut room: impl FnMut(&Waiter) -> Room) -> Popped {
        let mut blocked = None;
        let mut aside = Vec::new();
        let mut chosen = None;
        for &(turn, key) in &self.order {
            let Some(lane) = self.lanes.get(&key) else { continue };
            match lane.choose(&mut room) {
                Ok(flow) => {
                    chosen = Some((turn, key, flow));
                    break;
                }
                Err(Some(flow)) => blocked = blocked.or_else(|| lane.front(flow)),
                Err(None) => aside.push((turn, key)),
            }
        }
        for place in aside {
            self.order.remove(&place);
            if let Some(lane) = self.lanes.get_mut(&place.1) {
                lane.set_aside = true;
                self.weights.remove(&(lane.lightest, place.1));
            }
        }
        let waiter = chosen.and_then(|(turn, key, flow)| {
            self.clock = self.clock.max(turn);
            let waiter = self.lanes.get_mut(&key)?.take(flow)?;
            self.len -= 1;
            self.put_in_order(key);
            Some(waiter)
        });
        Popped { waiter, blocked }
    }

    /// The newest query of the tenant's actor that waits with the most, if `actor` would still wait with no more
    /// than it after taking its place.
    pub(super) fn greediest(&self, tenant: usize, actor: &Arc<str>) -> Option<(Held, u64)> {
        let mut waiting: HashMap<&Arc<str>, (usize, &Waiter)> = HashMap::new();
        let mine = self.lanes.iter().filter(|((owner, _), _)| *owner == tenant);
        for waiter in mine.flat_map(|(_, lane)| &lane.flows).flat_map(|flow| &flow.waiters) {
            let (count, newest) = waiting.entry(&waiter.actor).or_insert((0, waiter));
            *count += 1;
            if waiter.id > newest.id {
                *newest = waiter;
            }
        }
        let own = waiting.get(actor).map_or(0, |(count, _)| *count);
        let (count, newest) = waiting.into_values().max_by_key(|(count, newest)| (*count, newest.id))?;
        (count > own + 1).then_some((newest.held, newest.id))
    }

    /// Takes out one that gave up; `None` when it was handed over already.
    pub(super) fn remove(&mut self, held: &Held, id: u64) -> Option<Removed> {
        let key = (held.tenant, held.class);
        let lane = self.lanes.get_mut(&key)?;
        let band = band(held);
        let (at, place) = lane
            .flows
            .iter()
            .enumerate()
            .filter(|(_, flow)| flow.band == band)
            .find_map(|(at, flow)| Some((at, flow.waiters.iter().position(|waiter| waiter.id == id)?)))?;
        let waiter = lane.flows[at].waiters.remove(place)?;
        let next = if place == 0 { lane.front(at) } else { None };
        if lane.flows[at].waiters.is_empty() {
            lane.flows.swap_remove(at);
        }
        self.len -= 1;
        self.put_in_order(key);
        Some(Removed { waiter, next })
    }

    /// Takes out all who are such; the others keep their turns.
    pub(super) fn take_all(&mut self, is_such: impl Fn(&Held) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        let keys: Vec<_> = self.lanes.keys().copied().collect();
        for key in keys {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            for flow in &mut lane.flows {
                let (out, stay): (Vec<_>, Vec<_>) = flow.waiters.drain(..).partition(|w| is_such(&w.held));
                taken.extend(out);
                flow.waiters.extend(stay);
            }
            lane.flows.retain(|flow| !flow.waiters.is_empty());
            self.put_in_order(key);
        }
        self.len -= taken.len();
        taken
    }

    /// A tenant got room: its lane of a class is looked at again. While it had none it earned no turns.
    pub(super) fn look_again(&mut self, tenant: usize, class: usize) {
        let key = (tenant, class);
        let Some(lane) = self.lanes.get_mut(&key).filter(|lane| lane.set_aside) else { return };
        lane.start = lane.start.max(self.clock);
        self.put_in_order(key);
    }

    /// Limits changed: every lane is looked at again.
    pub(super) fn look_again_at_all(&mut self) {
        let aside: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.set_aside).map(|(key, _)| *key).collect();
        for (tenant, class) in aside {
            self.look_again(tenant, class);
        }
    }

    /// Gives a lane the place that its next query has now; an empty one goes.
    fn put_in_order(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        self.order.remove(&(lane.turn, key));
        self.weights.remove(&(lane.lightest, key));
        if lane.flows.is_empty() {
            self.lanes.remove(&key);
            if self.lanes.is_empty() {
                self.clock = 0;
            }
            return;
        }
        lane.set_aside = false;
        lane.turn = lane.next_turn();
        lane.lightest = lane.lightest();
        self.order.insert((lane.turn, key));
        self.weights.insert((lane.lightest, key));
    }
}

/// What leaving the queue changed.
#[derive(Debug)]
pub(super) struct Removed {
    /// Who left.
    pub(super) waiter: Waiter,
    /// Who is next now of its flow, if it was that itself.
    pub(super) next: Option<(u64, Held)>,
}

/// What a look into the queue found.
#[derive(Debug)]
pub(super) struct Popped {
    /// The next to run.
    pub(super) waiter: Option<Waiter>,
    /// The first before it that the backend has no room for.
    pub(super) blocked: Option<(u64, Held)>,
}

#[cfg(test)]
impl Queue {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.lanes.values().flat_map(|lane| &lane.flows).flat_map(|flow| &flow.waiters)
    }

    /// The next of every flow: those that must not have room while they wait.
    pub(super) fn fronts(&self) -> impl Iterator<Item = &Waiter> {
        self.lanes.values().flat_map(|lane| &lane.flows).filter_map(|flow| flow.waiters.front())
    }

    /// Whether the order, the lanes and the count agree.
    pub(super) fn is_sound(&self) -> bool {
        let in_order = self.lanes.iter().all(|(key, lane)| {
            self.order.contains(&(lane.turn, *key)) != lane.set_aside
                && self.weights.contains(&(lane.lightest, *key)) != lane.set_aside
                && lane.lightest == lane.lightest()
                && !lane.flows.is_empty()
                && lane.flows.iter().all(|flow| !flow.waiters.is_empty())
        });
        let placed = self.lanes.values().filter(|lane| !lane.set_aside).count();
        in_order
            && self.order.len() == placed
            && self.weights.len() == placed
            && self.iter().count() == self.len
    }
}
