//! Recent counts by tenant: two windows of five minutes; the older one is dropped when the newer is over.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::base::TenantId;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(300);
/// The most tenants of a window; those that come later are counted as `other`.
const TENANTS_MAX: usize = 1_000;

/// The counts of one tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct TenantCounts {
    /// Queries admitted.
    pub admitted: u64,
    /// Samples that they were expected to read, where that was known.
    pub samples: u64,
    /// Queries refused or failed, by the id of the reason.
    pub refused: SmallVec<[(&'static str, u64); 2]>,
}

impl TenantCounts {
    /// All refusals together.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.iter().map(|(_, n)| n).sum()
    }

    fn refuse(&mut self, reason: &'static str, times: u64) {
        match self.refused.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, n)) => *n += times,
            None => self.refused.push((reason, times)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.samples = self.samples.saturating_add(other.samples);
        for (reason, times) in &other.refused {
            self.refuse(reason, *times);
        }
    }
}

#[derive(Debug)]
struct Window {
    began: Instant,
    tenants: HashMap<TenantId, TenantCounts>,
}

/// The window that is filled, and the one before.
#[derive(Debug)]
pub(in crate::proxy) struct RecentTenants {
    now: Window,
    before: Window,
}

impl RecentTenants {
    pub(in crate::proxy) fn new(began: Instant) -> Self {
        let empty = || Window { began, tenants: HashMap::new() };
        Self { now: empty(), before: empty() }
    }

    /// Counts an admitted query and its estimated samples; `u64::MAX` is unknown.
    pub(in crate::proxy) fn admitted(&mut self, tenant: &TenantId, samples: u64, now: Instant) {
        let tally = self.tally(tenant, now);
        tally.admitted += 1;
        tally.samples = tally.samples.saturating_add(if samples == u64::MAX { 0 } else { samples });
    }

    /// A query was refused or failed.
    pub(in crate::proxy) fn refused(&mut self, tenant: &TenantId, reason: &'static str, now: Instant) {
        self.tally(tenant, now).refuse(reason, 1);
    }

    /// The counts of every tenant over both windows, and their length together.
    pub(in crate::proxy) fn totals(&mut self, now: Instant) -> (Duration, Vec<(TenantId, TenantCounts)>) {
        self.turn(now);
        let mut all = self.before.tenants.clone();
        for (tenant, tally) in &self.now.tenants {
            all.entry(tenant.clone()).or_default().add(tally);
        }
        (now.saturating_duration_since(self.before.began), all.into_iter().collect())
    }

    fn tally(&mut self, tenant: &TenantId, now: Instant) -> &mut TenantCounts {
        self.turn(now);
        let tenants = &mut self.now.tenants;
        let full = tenants.len() >= TENANTS_MAX;
        let tenant = if full && !tenants.contains_key(tenant) { TenantId::other() } else { tenant.clone() };
        match tenants.entry(tenant) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(TenantCounts::default()),
        }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.now.began);
        if age < WINDOW {
            return;
        }
        let fresh = Window { began: now, tenants: HashMap::new() };
        self.before = std::mem::replace(&mut self.now, fresh);
        if age >= WINDOW * 2 {
            self.before = Window { began: now, tenants: HashMap::new() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_forgotten_and_tenants_are_bounded() {
        let start = Instant::now();
        let mut recent = RecentTenants::new(start);
        let tenant = |n: u32| TenantId::new(&format!("t{n}")).unwrap();
        for n in 0..2_000 {
            recent.admitted(&tenant(n), 10, start);
        }
        recent.admitted(&tenant(0), u64::MAX, start);
        recent.refused(&tenant(0), "weir-max-series", start);
        let later = start + WINDOW;
        recent.refused(&tenant(0), "weir-max-series", later);
        recent.refused(&tenant(0), "weir-queue-full", later);
        let (span, all) = recent.totals(later + Duration::from_secs(60));
        assert_eq!(span, Duration::from_secs(360));
        assert_eq!(all.len(), TENANTS_MAX + 1);
        let of = |name: &str| all.iter().find(|(tenant, _)| tenant.as_str() == name).unwrap().1.clone();
        assert_eq!((of("other").admitted, of("t0").admitted, of("t0").samples), (1_000, 2, 10));
        assert_eq!(of("t0").refused.as_slice(), [("weir-max-series", 2), ("weir-queue-full", 1)]);
        assert_eq!(of("t0").refusals(), 3);
        assert!(recent.totals(later + WINDOW * 3).1.is_empty());
    }
}
