//! The account of one lane: the queries that run in it, and those that wait for it.

use super::{
    charge::Charge,
    fractions::percent_of,
    lane::{Lane, Open},
    queue::{Queue, Waiter},
    usage::Usage,
    wait::WaitReason,
};

/// A class as lanes see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    pub(super) class: usize,
    pub(super) percent: u8,
}

/// The account of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneAccount {
    pub(super) used: Usage,
    /// Light queries among them that use the heavy lane.
    guests: u64,
    pub(super) by_class: Vec<Usage>,
    pub(super) queue: Queue,
    /// Waiting queries by class.
    pub(super) waiting_by_class: Vec<usize>,
}

impl LaneAccount {
    pub(super) fn add(&mut self, charge: &Charge) {
        self.used.add(charge.bytes);
        self.guests += u64::from(charge.light && charge.lane == Lane::Heavy);
        self.by_class[charge.class].add(charge.bytes);
    }

    /// One more waits.
    pub(super) fn wait(&mut self, waiter: Waiter) {
        self.waiting_by_class[waiter.charge.class] += 1;
        self.queue.push(waiter);
    }

    /// Takes out all that wait.
    pub(super) fn take_waiting(&mut self) -> Vec<Waiter> {
        self.waiting_by_class.fill(0);
        self.queue.take_all().collect()
    }

    pub(super) fn remove(&mut self, charge: &Charge) {
        self.used.remove(charge.bytes);
        self.guests -= u64::from(charge.light && charge.lane == Lane::Heavy);
        self.by_class[charge.class].remove(charge.bytes);
    }

    /// Queries that run in their own lane.
    pub(super) const fn own(&self) -> u64 {
        self.used.queries - self.guests
    }

    /// Whether a charge fits the open part of the lane beside the running queries. An empty lane takes any, and one
    /// without heavy queries any heavy one, so that neither the window nor a reserve shuts a query out. The reason is the
    /// first that applies.
    pub(super) fn fits(&self, charge: &Charge, open: Open, reserves: &[Reserve]) -> Result<(), WaitReason> {
        let with = self.used.plus(charge.bytes);
        if open.slots.is_some_and(|slots| with.queries > slots) {
            return Err(WaitReason::Slots);
        }
        let beside = if charge.light { self.used.queries } else { self.own() };
        if beside == 0 {
            return Ok(());
        }
        if !with.within(open.memory, None) {
            return Err(WaitReason::Window);
        }
        let others = || reserves.iter().filter(|reserve| reserve.class != charge.class);
        let used = |reserve: &Reserve| self.by_class[reserve.class];
        let slots = open.slots.map(|slots| {
            let kept = others().map(|of| percent_of(slots, of.percent).saturating_sub(used(of).queries));
            slots.saturating_sub(kept.sum())
        });
        let memory = open.memory.map(|memory| {
            let kept =
                others().map(|of| u128::from(percent_of(memory, of.percent)).saturating_sub(used(of).memory));
            u64::try_from(u128::from(memory).saturating_sub(kept.sum())).unwrap_or(u64::MAX)
        });
        if with.within(memory, slots) { Ok(()) } else { Err(WaitReason::Reserve) }
    }

    /// Whether a charge is within the reserve of its class.
    pub(super) fn is_reserved(&self, charge: &Charge, open: Open, reserves: &[Reserve]) -> bool {
        let own = reserves.iter().find(|reserve| reserve.class == charge.class);
        own.is_some_and(|own| {
            let part = |whole: Option<u64>| whole.map(|whole| percent_of(whole, own.percent));
            self.by_class[own.class].plus(charge.bytes).within(part(open.memory), part(open.slots))
        })
    }
}
