//! The choice of the waiting query that runs next.
//!
//! A query runs when its tenants and a lane of its backend have room for it. In the heavy lane the order of turns is
//! strict, with two exceptions. A class may use its reserve though another query is next, for two seconds. And a query
//! larger than the window, which can only run alone, lets smaller ones go first for half of the time that it may wait.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    charge::Charge,
    lane::Lane,
    queue::{Parked, Verdict, Waiter},
    state::{Handovers, PAUSE, State},
    wait::WaitReason,
};

/// How long classes with a reserve may pass the query that is next.
const PASSED_MAX: Duration = Duration::from_secs(2);

impl State {
    /// The lane in which a query that has just come runs at once: nobody waits before it there.
    pub(super) fn runs_at_once(&self, charge: &Charge, now: Instant) -> Option<Lane> {
        let backend = &self.backends[charge.backend];
        let queue = &backend.lane(charge.own_lane()).queue;
        let is_next = queue.is_open() && !queue.is_parked(charge);
        let pauses = backend.window.is_unproven() && backend.runs_alone(charge);
        if is_next && !pauses { self.fits(charge, now).ok() } else { None }
    }

    /// The lane that a query fits now, or the first reason why it fits none: its tenants' limits before the backend's.
    pub(super) fn fits(&self, charge: &Charge, now: Instant) -> Result<Lane, WaitReason> {
        let accounts = || charge.payers.iter().map(|slot| self.tenants.get(*slot));
        accounts().try_for_each(|account| account.fits(charge, now))?;
        let backend = &self.backends[charge.backend];
        backend.fits_slow(charge)?;
        let is_shared = backend.is_shared(&charge.payers, now);
        let fits_in = |lane: Lane| {
            let is_reserved = || backend.lane(lane).is_reserved(charge, backend.open(lane), &self.reserves);
            if is_shared && !is_reserved() {
                let whole = backend.budget.whole(lane);
                accounts().try_for_each(|account| account.fits_lane(charge, lane, whole))?;
            }
            backend.fits(charge, lane, &self.reserves)
        };
        match fits_in(charge.own_lane()) {
            Ok(()) => Ok(charge.own_lane()),
            // A light query may use the heavy lane while nobody waits for it.
            Err(_) if charge.light && backend.lends_slots() && fits_in(Lane::Heavy).is_ok() => {
                Ok(Lane::Heavy)
            }
            Err(reason) => Err(reason),
        }
    }

    /// The verdict on a waiting query; `blocked` is when the first blocked query before it began to wait.
    pub(super) fn verdict(&self, waiter: &Waiter, blocked: Option<Instant>, now: Instant) -> Verdict {
        let charge = &waiter.charge;
        let backend = &self.backends[charge.backend];
        let age = now.saturating_duration_since(waiter.asked);
        let gives_way = backend.runs_alone(charge) && age < waiter.longest / 2;
        let pauses = gives_way && backend.window.is_unproven() && age < PAUSE;
        match self.fits(charge, now) {
            // Room of this kind may come back with the queries of others as well.
            Err(WaitReason::TenantSlots) => Verdict::IsPassed,
            Err(reason) if reason.is_tenants() => Verdict::Parks(Parked::ForTenant),
            Err(WaitReason::SlowLane) => Verdict::Parks(Parked::ForSlowLane),
            Err(_) if gives_way => Verdict::IsPassed,
            Err(_) => Verdict::Blocks,
            Ok(_) if pauses => Verdict::IsPassed,
            Ok(_) if gives_way && blocked.is_none() => Verdict::RunsLast,
            Ok(lane) => {
                let is_reserved =
                    || backend.lane(lane).is_reserved(charge, backend.open(lane), &self.reserves);
                let may_pass = |since| now.saturating_duration_since(since) < PASSED_MAX && is_reserved();
                if blocked.is_none_or(may_pass) { Verdict::Runs } else { Verdict::Blocks }
            }
        }
    }

    /// The reason why a query waits; `is_first` says that it is the first of its queue.
    pub(super) fn why(&self, waiter: &Waiter, is_first: bool, now: Instant) -> WaitReason {
        match self.fits(&waiter.charge, now) {
            Err(reason) if reason.is_tenants() || is_first || waiter.charge.light => reason,
            Err(WaitReason::SlowLane) => WaitReason::SlowLane,
            _ if self.verdict(waiter, None, now) == Verdict::IsPassed => WaitReason::SmallerFirst,
            _ => WaitReason::Turn,
        }
    }

    /// Why the first heavy query of a backend's queue waits; of one that waits for its own turn.
    pub(super) fn behind(&self, reason: WaitReason, backend: usize, now: Instant) -> Option<WaitReason> {
        let queue = &self.backends[backend].lane(Lane::Heavy).queue;
        let first = queue.first().filter(|_| reason == WaitReason::Turn)?;
        Some(self.why(first, true, now))
    }

    /// Frees charges that lingered until `now`, gives up leases that ended, and forgets the alarms of that time.
    pub(super) fn end_lingering(&mut self, now: Instant) {
        while self.alarms.first().is_some_and(|(at, _)| *at <= now) {
            self.alarms.pop_first();
        }
        for slot in 0..self.backends.len() {
            self.backends[slot].end_lease(now);
            let lingering =
                |state: &Self| state.backends[slot].lingering.first_key_value().map(|((at, _), _)| *at);
            while lingering(self).is_some_and(|until| until <= now) {
                if let Some((_, (charge, phase))) = self.backends[slot].lingering.pop_first() {
                    self.give_back(&charge, phase);
                }
            }
        }
    }

    /// Lets waiting queries that find room run at `now`, in the order of turns.
    pub(super) fn dispatch(&mut self, now: Instant) -> Handovers {
        self.end_lingering(now);
        let mut ready = Handovers::new();
        for slot in 0..self.backends.len() {
            // Light queries use the part of the heavy lane that nobody waits for.
            for lane in [Lane::Heavy, Lane::Light] {
                self.dispatch_lane(slot, lane, now, &mut ready);
            }
        }
        ready
    }

    fn dispatch_lane(&mut self, slot: usize, lane: Lane, now: Instant, ready: &mut Handovers) {
        while !self.backends[slot].lane(lane).queue.is_open() {
            let account = self.backends[slot].lane_mut(lane);
            let some_pass = self.reserves.iter().any(|reserve| account.waiting_by_class[reserve.class] > 0);
            // Taken out while its waiters are judged; put back before the lock is released.
            let mut queue = std::mem::take(&mut account.queue);
            let next = queue.pop(some_pass, |waiter, blocked| self.verdict(waiter, blocked, now));
            if let Some(waiter) = &next {
                queue.served(&waiter.charge, now);
            }
            self.backends[slot].lane_mut(lane).queue = queue;
            let Some(mut waiter) = next else { break };
            self.left(&waiter.charge);
            waiter.charge.lane = self.fits(&waiter.charge, now).unwrap_or(lane);
            self.charge(&waiter.charge, now);
            ready.push((waiter.id, Ok(waiter.charge)));
        }
    }

    /// A query does not wait any more.
    pub(super) fn left(&mut self, charge: &Charge) {
        self.tenants.waiting(&charge.payers, -1);
        let account = self.backends[charge.backend].lane_mut(charge.own_lane());
        account.waiting_by_class[charge.class] -= 1;
    }
}
