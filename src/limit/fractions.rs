//! Every fraction of a budget that admission obeys.

use super::policy::Sharing;

/// A query is light up to this part of the backend's memory.
const LIGHT_QUERY: u64 = 128;
/// The light lane's part of the memory.
const LIGHT_MEMORY: u64 = 32;
/// The light lane's part of the slots.
const LIGHT_SLOTS: u64 = 2;
/// One tenant's part of a lane, as numerator and denominator.
const TENANT_PART: (u64, u64) = (3, 4);
/// The part of a quota that runs in the slow lane beyond it.
const QUOTA_GRACE: u64 = 10;
/// The part of the heavy lane, of a tenant's memory and of quotas that all proxies together need not lease. What one proxy
/// has for itself and does not use no other can: beside half of it two queries of 40 % of a budget would not fit.
pub(super) const TENTH: u64 = 10;
/// The same of a tenant's queries in flight and rates, which light queries need at every proxy without a round trip.
pub(super) const HALF: u64 = 2;
/// The growth of a cut window for each window's worth of completed bytes, as a part of the budget.
const WINDOW_STEP: u64 = 16;

// Several of the largest light queries run at the same time.
const _: () = assert!(LIGHT_QUERY / LIGHT_MEMORY >= 4);
// Heavy queries keep most of the memory and at least half of the slots.
const _: () = assert!(LIGHT_MEMORY >= 8 && LIGHT_SLOTS >= 2);
// A tenant has most of a lane, and never all of it.
const _: () = assert!(TENANT_PART.0 < TENANT_PART.1 && TENANT_PART.0 * 2 > TENANT_PART.1);

/// Bytes up to which a query is light, of a budget of `memory` bytes.
pub const fn light(memory: u64) -> u64 {
    memory / LIGHT_QUERY
}

/// The same for each of `replicas` proxies: it fits the light lane of each.
pub fn light_each(memory: u64, replicas: u64) -> u64 {
    light(memory).min(light_memory(memory) / replicas.max(1))
}

/// Bytes of the heaviest query that one proxy can ever run, of a budget of `memory` bytes: the fixed parts of the others are
/// never lent.
pub const fn heaviest(memory: u64, sharing: Sharing) -> u64 {
    let (whole, replicas) = (heavy_memory(memory), sharing.replicas_max.get());
    let fixed = fixed(whole, sharing, TENTH);
    if sharing.leased { whole - fixed * (replicas - 1) } else { fixed }
}

/// Bytes of the light lane.
pub(super) const fn light_memory(memory: u64) -> u64 {
    memory / LIGHT_MEMORY
}

/// Bytes of the heavy lane.
pub(super) const fn heavy_memory(memory: u64) -> u64 {
    memory - light_memory(memory)
}

/// Slots of the light lane; of a single slot, none.
pub(super) const fn light_slots(slots: u64) -> u64 {
    slots / LIGHT_SLOTS
}

/// Slots of the heavy lane.
pub(super) const fn heavy_slots(slots: u64) -> u64 {
    slots - light_slots(slots)
}

/// The part of `whole` that each proxy has for itself: an equal one of all, or with leases of the `part`-th of it.
pub(super) const fn fixed(whole: u64, sharing: Sharing, part: u64) -> u64 {
    match (sharing.replicas_max.get(), sharing.leased) {
        (1, _) => whole,
        (replicas, true) => whole / part / replicas,
        (replicas, false) => whole / replicas,
    }
}

/// The parts of a tenant's limit: that which each proxy has for itself, `least` or more, and that which all lease of.
/// Without leases every proxy counts by itself.
pub(super) const fn divide(whole: u64, sharing: Sharing, part: u64, least: u64) -> (u64, u64) {
    let replicas = sharing.replicas_max.get();
    if !sharing.leased || replicas == 1 {
        return (whole, 0);
    }
    let fixed = fixed(whole, sharing, part);
    let fixed = if fixed < least { least } else { fixed };
    (fixed, whole.saturating_sub(fixed.saturating_mul(replicas)))
}

/// The part of a quota that runs in the slow lane beyond it.
pub(super) const fn quota_grace(whole: u64) -> u64 {
    whole / QUOTA_GRACE
}

/// The part of a lane's slots or bytes that one tenant may hold.
pub(super) const fn tenant_part(whole: u64) -> u64 {
    let most = whole / TENANT_PART.1 * TENANT_PART.0 + whole % TENANT_PART.1 * TENANT_PART.0 / TENANT_PART.1;
    if most == 0 { 1 } else { most }
}

/// Bytes that completing `bytes` adds to a window of `window` bytes that grows additively.
pub(super) fn window_step(budget: u64, bytes: u64, window: u64) -> u64 {
    let step = u128::from(budget / WINDOW_STEP);
    (step * u128::from(bytes) / u128::from(window.max(bytes).max(1))) as u64
}

/// The part of `whole` that is `percent` of it, rounded down.
pub(super) fn percent_of(whole: u64, percent: u8) -> u64 {
    (u128::from(whole) * u128::from(percent) / 100) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_parts_of_the_budget_at_every_size() {
        for whole in [0, 1, 2, 3, 4, 7, 20, 100, 4 << 30, u64::MAX] {
            assert_eq!(light_memory(whole) + heavy_memory(whole), whole);
            assert_eq!(light_slots(whole) + heavy_slots(whole), whole);
            assert!(tenant_part(whole) >= 1 && (whole < 2 || tenant_part(whole) < whole), "{whole}");
            assert!(light(whole) <= light_memory(whole));
        }
        assert_eq!([20, 10, 4, 3, 2, 1].map(tenant_part), [15, 7, 3, 2, 1, 1]);
    }

    #[test]
    fn a_window_that_was_cut_grows_by_one_step_for_each_of_its_own_sizes() {
        assert_eq!(window_step(1600, 50, 100), 50);
        assert_eq!(window_step(1600, 100, 100), 100);
        assert_eq!(
            window_step(1600, 500, 100),
            100,
            "one that was larger than the window is one of its sizes"
        );
        assert_eq!(window_step(1600, 0, 0), 0);
        assert_eq!(window_step(u64::MAX, u64::MAX, u64::MAX), u64::MAX / 16);
    }
}
