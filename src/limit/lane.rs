//! The two lanes of a backend. The light lane is for light queries only and is closed by nothing but the backend's
//! death; the heavy lane is bounded by the congestion window. A light query may use the heavy lane while nobody waits for
//! it; a heavy one never uses the light lane.

use std::num::NonZeroU64;

use super::{
    fractions::{self, percent_of},
    policy::{BackendBudget, Limit, Sharing, SlowLane},
};
use crate::base::share::Amount;

/// One of the two lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// For queries that need no more than a small part of the backend's memory.
    Light,
    /// For all others; a light query may use it while nobody waits for it.
    Heavy,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Light, Self::Heavy];

    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Heavy => "heavy",
        }
    }
}

/// The open part of a lane; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) memory: Option<u64>,
    pub(super) slots: Option<u64>,
}

/// A backend's budget, divided into lanes, and this proxy's part of it. Of the heavy lane a part is fixed and the rest
/// leased; the light lane is all fixed, so that light queries never wait for a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    memory: Limit,
    queries: Limit,
    slow: SlowLane,
    sharing: Sharing,
    /// Held of the heavy lane beyond the fixed part.
    pub(super) leased: Amount,
}

impl Budget {
    pub(super) const fn of(budget: &BackendBudget, sharing: Sharing, leased: Amount) -> Self {
        Self { memory: budget.memory, queries: budget.queries, slow: budget.slow, sharing, leased }
    }

    /// Light queries need no more of the memory than a small part, and fit the light lane of every proxy; without a budget
    /// of memory, all are light.
    pub(super) fn is_light(&self, bytes: u64) -> bool {
        self.light().is_none_or(|most| bytes <= most)
    }

    /// Bytes up to which a query is light; `None` without a budget of memory.
    pub(super) fn light(&self) -> Option<u64> {
        self.memory.max.map(|max| fractions::light_each(max.get(), self.replicas()))
    }

    pub(super) const fn replicas(&self) -> u64 {
        self.sharing.replicas_max.get()
    }

    /// A number below 2^53 that stands for this configuration.
    pub(super) fn digest(&self) -> u64 {
        let [memory, queries] = [self.memory, self.queries].map(|limit| limit.max.map_or(0, NonZeroU64::get));
        let mix = |sum: u64, number: u64| sum.wrapping_mul(1_000_003) ^ number;
        [memory, queries, self.replicas()].into_iter().fold(0, mix) & ((1 << 53) - 1)
    }

    /// The part of the heavy lane that needs no lease; zero where nothing is bounded.
    pub(super) fn fixed(&self) -> Amount {
        let fixed = |whole: u64| fractions::fixed(whole, self.sharing, fractions::TENTH);
        let slots = self.queries.max.map_or(0, |max| fractions::heavy_slots(max.get()));
        Amount {
            bytes: fixed(self.heavy_memory().unwrap_or(0)),
            // One each, where there are that many.
            queries: fixed(slots).max(1).min(slots / self.replicas()),
        }
    }

    /// The part of the heavy lane that all proxies lease of, once; `None` where nothing is leased or enforced.
    pub(super) fn pool(&self) -> Option<Amount> {
        let memory = self.memory.enforced()?;
        let whole = Amount {
            bytes: fractions::heavy_memory(memory),
            queries: fractions::heavy_slots(self.queries.enforced()?),
        };
        let replicas = self.replicas();
        let all_fixed = self.fixed().zip(Amount::NONE, |fixed, _| fixed * replicas);
        (self.sharing.leased && replicas > 1).then(|| whole.less(all_fixed))
    }

    /// The part of the pool that a window and the database's places let be leased: all but the fixed parts. One query
    /// larger than the window runs alone, with `alone` bytes of the pool.
    pub(super) fn pool_within(&self, window: u64, alone: u64, places: Option<u64>) -> Option<Amount> {
        let pool = self.pool()?;
        let open = window.saturating_sub(self.fixed_within(window).saturating_mul(self.replicas()));
        let fixed = self.fixed().queries.saturating_mul(self.replicas());
        let places = places.map_or(u64::MAX, |all| fractions::heavy_slots(all).saturating_sub(fixed));
        Some(Amount { bytes: pool.bytes.min(open.max(alone)), queries: pool.queries.min(places) })
    }

    /// Heavy queries that may run here at once, where the database itself has `places` for queries: in all of those, they
    /// would keep light ones waiting there.
    pub(super) fn heavy_queries(&self, places: Option<u64>) -> Option<u64> {
        let slots = self.whole(Lane::Heavy).slots;
        // All proxies that lease share them by the size of the pool.
        let places = places.filter(|_| self.pool().is_none());
        let places = places.map(|all| (fractions::heavy_slots(all) / self.replicas()).max(1));
        [slots, places].into_iter().flatten().min()
    }

    /// Bytes of the fixed part that are open under a window over all proxies.
    fn fixed_within(&self, window: u64) -> u64 {
        self.fixed().bytes.min(window / self.replicas())
    }

    /// Bytes of the heavy lane that are open here under a window: over all proxies where they lease, else over this one.
    pub(super) fn open_within(&self, window: u64) -> u64 {
        let fixed = if self.sharing.leased { self.fixed_within(window) } else { self.fixed().bytes };
        fixed.saturating_add(self.leased.bytes).min(window)
    }

    /// Windows over the budget: one for each proxy, or one for all that lease.
    pub(super) const fn windows(&self) -> u64 {
        if self.sharing.leased { 1 } else { self.sharing.replicas_max.get() }
    }

    /// Bytes that the window here is over. Where each proxy has one, those are its part: cut to a part of the load here, the
    /// cuts of all proxies add up to one.
    pub(super) fn windowed(&self) -> Option<u64> {
        let heavy = self.heavy_memory()?;
        Some(if self.sharing.leased || self.memory.enforced().is_none() { heavy } else { self.fixed().bytes })
    }

    /// The heaviest query that this proxy can ever run: the fixed part of the others is never lent.
    pub(super) fn heaviest(&self) -> Option<u64> {
        self.memory.max.map(|max| fractions::heaviest(max.get(), self.sharing))
    }

    /// Bytes of the whole budget, whether it is enforced or only watched.
    pub(super) const fn memory(&self) -> Limit {
        self.memory
    }

    /// Queries of the whole budget, whether it is enforced or only watched.
    pub(super) const fn queries(&self) -> Limit {
        self.queries
    }

    /// Bytes of the heavy lane, whether they are enforced or only watched.
    pub(super) fn heavy_memory(&self) -> Option<u64> {
        self.memory.max.map(|max| fractions::heavy_memory(max.get()))
    }

    /// The share of the slow lane, whose queries draw on the other lanes as well.
    pub(super) fn slow(&self) -> Open {
        let part = |max| percent_of(max, self.slow.memory_percent) / self.replicas();
        let slots = (self.slow.queries.get() / self.replicas()).max(1);
        Open { memory: self.memory.enforced().map(part), slots: Some(slots) }
    }

    /// The whole capacity of this proxy's lane, behind any window.
    pub(super) fn whole(&self, lane: Lane) -> Open {
        let (memory, slots) = (self.memory.enforced(), self.queries.enforced());
        match lane {
            Lane::Light => Open {
                memory: memory.map(|max| fractions::light_memory(max) / self.replicas()),
                slots: slots.map(|max| fractions::light_slots(max) / self.replicas()),
            },
            Lane::Heavy => {
                let here = self.fixed().plus(self.leased);
                Open { memory: memory.map(|_| here.bytes), slots: slots.map(|_| here.queries) }
            }
        }
    }
}
