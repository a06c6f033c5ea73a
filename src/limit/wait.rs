//! Why a query waits: a closed list, with one name for metrics, logs and pages and one sentence for people.

use crate::base::distress::Signal;

use super::window::Cut;

/// Why a query waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its own reason.
    pub reason: WaitReason,
    /// Of one that waited for its turn, the reason of the first heavy query.
    pub first: Option<WaitReason>,
}

impl Waited {
    /// The reason, as in "waits for …".
    pub fn sentence(self) -> String {
        let own = self.reason.sentence();
        self.first.map_or_else(
            || own.to_owned(),
            |first| format!("{own}, of which the first waits for {}", first.sentence()),
        )
    }
}

/// Why a query does not run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitReason {
    /// The light lane of the backend is in use.
    LightLane,
    /// The heavy lane's slots are in use.
    Slots,
    /// The heavy lane's congestion window is in use, and was not cut.
    Window,
    /// The congestion window was cut.
    Cut(Cut),
    /// The slow lane is in use.
    SlowLane,
    /// The free part is reserved for other classes.
    Reserve,
    /// Earlier heavy queries are next.
    Turn,
    /// It can only run alone, and smaller ones go first.
    SmallerFirst,
    /// Other proxies hold the part of the budget that it needs, or the store of leases is not there.
    Lease,
    /// Slow readers and clients that left still hold the budget.
    Budget,
    /// The tenant's queries in flight are at its limit.
    TenantQueries,
    /// The memory of the tenant's queries in flight is at its limit.
    TenantMemory,
    /// Other proxies hold the part of the tenant's limits that it needs, or the store of leases is not there.
    TenantLease,
    /// The tenant holds its part of the lane's slots.
    TenantSlots,
}

impl WaitReason {
    /// Every reason, for metrics and tests.
    pub const ALL: [Self; 18] = [
        Self::LightLane,
        Self::Slots,
        Self::Window,
        Self::Cut(Cut::Pressure(Signal::Memory)),
        Self::Cut(Cut::Pressure(Signal::Pools)),
        Self::Cut(Cut::Pressure(Signal::Saturation)),
        Self::Cut(Cut::Estimates),
        Self::Cut(Cut::Silence),
        Self::SlowLane,
        Self::Reserve,
        Self::Turn,
        Self::SmallerFirst,
        Self::Lease,
        Self::Budget,
        Self::TenantQueries,
        Self::TenantMemory,
        Self::TenantLease,
        Self::TenantSlots,
    ];

    /// Its name in metrics, logs and `/status.json`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::LightLane => "light_lane",
            Self::Slots => "slots",
            Self::Window => "window",
            Self::Cut(Cut::Pressure(Signal::Memory)) => "pressure_memory",
            Self::Cut(Cut::Pressure(Signal::Pools)) => "pressure_pools",
            Self::Cut(Cut::Pressure(Signal::Saturation)) => "pressure_saturation",
            Self::Cut(Cut::Estimates) => "estimates",
            Self::Cut(Cut::Silence) => "silence",
            Self::SlowLane => "slow_lane",
            Self::Reserve => "reserve",
            Self::Turn => "turn",
            Self::SmallerFirst => "smaller_first",
            Self::Lease => "lease",
            Self::Budget => "budget",
            Self::TenantQueries => "tenant_queries",
            Self::TenantMemory => "tenant_memory",
            Self::TenantLease => "tenant_lease",
            Self::TenantSlots => "tenant_slots",
        }
    }

    /// Whether it is the tenant that has no room, so that other tenants need not wait behind it.
    pub const fn is_tenants(self) -> bool {
        matches!(self, Self::TenantQueries | Self::TenantMemory | Self::TenantLease | Self::TenantSlots)
    }

    /// The reason, as in "waits for …".
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::LightLane => "the light lane, which is full",
            Self::Slots => "one of the slots for heavy queries",
            Self::Window => "the window for heavy queries, which grows as they complete",
            Self::Cut(Cut::Pressure(Signal::Memory)) => {
                "the window for heavy queries, cut by pressure on its memory"
            }
            Self::Cut(Cut::Pressure(Signal::Pools)) => {
                "the window for heavy queries, cut by pressure on its pools"
            }
            Self::Cut(Cut::Pressure(Signal::Saturation)) => {
                "the window for heavy queries, cut because it is saturated"
            }
            Self::Cut(Cut::Estimates) => {
                "the window for heavy queries, cut because they hold more than estimated"
            }
            Self::Cut(Cut::Silence) => "the window for heavy queries, cut because its metrics stay away",
            Self::SlowLane => "the slow lane",
            Self::Reserve => "memory that is not reserved for other classes",
            Self::Turn => "its turn among heavy queries",
            Self::SmallerFirst => "smaller heavy queries, which go first",
            Self::Lease => "a lease on the budget that several proxies share",
            Self::Budget => "memory that slow readers and clients that left still hold",
            Self::TenantQueries => "in_flight.queries",
            Self::TenantMemory => "in_flight.memory",
            Self::TenantLease => "a lease on its in_flight limits, which several proxies share",
            Self::TenantSlots => "its part of the lane",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_sentences_are_distinct() {
        for of in [WaitReason::label as fn(WaitReason) -> &'static str, WaitReason::sentence] {
            let mut all = WaitReason::ALL.map(of);
            all.sort_unstable();
            assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
        }
    }
}
