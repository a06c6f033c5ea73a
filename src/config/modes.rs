//! Limits with their modes, as admission obeys them.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use super::{
    raw,
    raw::{LimitKey, TenantLimits},
    scalar,
};
use crate::limit::{Limit, Mode, Rate, RateLimit};

/// The burst of a rate, as the time in which it accrues: a dashboard sends all its queries within a second.
const BURST: Duration = Duration::from_secs(4);

pub(super) const fn mode(written: Option<raw::Mode>) -> Mode {
    match written {
        Some(raw::Mode::Shadow) => Mode::Shadow,
        Some(raw::Mode::Off) => Mode::Off,
        Some(raw::Mode::Enforce) | None => Mode::Enforce,
    }
}

/// The mode of each limit: its own, or that of all.
pub(super) struct Modes<'a>(pub(super) &'a TenantLimits);

impl Modes<'_> {
    pub(super) fn of(&self, key: LimitKey) -> Mode {
        let own = self.0.modes.as_ref().and_then(|modes| modes.get(&key)).copied();
        mode(own.or(self.0.mode))
    }

    pub(super) fn limit(&self, key: LimitKey, max: Option<NonZeroU64>) -> Limit {
        Limit { max, mode: self.of(key) }
    }

    pub(super) fn rate(&self, key: LimitKey, rate: Option<scalar::Limit<scalar::Rate>>) -> RateLimit {
        let rate = rate.and_then(scalar::Limit::at).map(|rate| {
            // The same rate over a longer time: a dashboard's queries may come at once, not only a second's.
            let times = BURST.as_secs().div_ceil(rate.per.as_secs().max(1)).max(1) as u32;
            Rate {
                count: rate
                    .count
                    .saturating_mul(NonZeroU64::from(NonZeroU32::new(times).unwrap_or(NonZeroU32::MIN))),
                per: rate.per * times,
            }
        });
        RateLimit { rate, mode: self.of(key) }
    }

    pub(super) fn quota(&self, key: LimitKey, quota: Option<scalar::Limit<scalar::Quota>>) -> RateLimit {
        let quota = quota.and_then(scalar::Limit::at);
        let rate = quota.map(|scalar::Quota { count, per }| Rate { count, per });
        RateLimit { rate, mode: self.of(key) }
    }
}
