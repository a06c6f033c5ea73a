//! The places on connections to a replica: queries and light requests have separate ones, so that neither waits for the
//! other, and those of light requests are shared between tenants.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::pool::Lane;
use crate::base::TenantId;

/// Connections that may be in use at a time.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    pub(super) max: usize,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Waits for a place; `None` when there was none before the deadline.
    async fn take(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(place);
        }
        timeout_at(deadline, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()
    }

    /// Places taken now.
    pub(super) fn taken(&self) -> usize {
        self.max.saturating_sub(self.free.available_permits())
    }
}

/// The places of light requests. One tenant has three quarters of them at most. An answer whose client does not read
/// gives its place back, as long as no more have done so than there are places.
#[derive(Debug)]
pub(super) struct LightPlaces {
    pub(super) all: Places,
    stalled: Places,
    /// The share of each tenant that has requests under way.
    shares: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

impl LightPlaces {
    pub(super) fn new(max: usize) -> Self {
        Self { all: Places::new(max), stalled: Places::new(max), shares: Mutex::default() }
    }

    async fn take(&self, tenant: &TenantId, deadline: Instant) -> Option<LightPlace> {
        let share = timeout_at(deadline, self.share(tenant).acquire_owned()).await.ok()?.ok()?;
        let taken = Taken { _place: self.all.take(deadline).await?, _share: Some(share) };
        Some(LightPlace { taken: Arc::new(Mutex::new(taken)), stalled: self.stalled.clone() })
    }

    fn share(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new((self.all.max * 3 / 4).max(1)));
        shares.insert(tenant.clone(), Arc::downgrade(&share));
        share
    }
}

/// The owner of the place that a request takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim<'a> {
    Query,
    Light(&'a TenantId),
}

impl Claim<'_> {
    /// The lane, for metrics and messages.
    pub(super) const fn lane(self) -> Lane {
        match self {
            Self::Query => Lane::Queries,
            Self::Light(_) => Lane::Light,
        }
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) enum Place {
    Query { _place: OwnedSemaphorePermit },
    Light(LightPlace),
}

impl Place {
    /// Waits for a place; `None` when there was none before the deadline.
    pub(super) async fn take(
        (queries, light): (&Places, &LightPlaces),
        claim: Claim<'_>,
        deadline: Instant,
    ) -> Option<Self> {
        match claim {
            Claim::Query => Some(Self::Query { _place: queries.take(deadline).await? }),
            Claim::Light(tenant) => Some(Self::Light(light.take(tenant, deadline).await?)),
        }
    }
}

#[derive(Debug)]
pub(super) struct LightPlace {
    taken: Arc<Mutex<Taken>>,
    stalled: Places,
}

#[derive(Debug)]
struct Taken {
    _place: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl LightPlace {
    pub(super) fn handle(&self) -> PlaceHandle {
        PlaceHandle { taken: Arc::downgrade(&self.taken), stalled: self.stalled.clone() }
    }
}

/// Gives back the place of a light request whose client does not read; after the answer's end it does nothing.
#[derive(Debug)]
pub struct PlaceHandle {
    taken: Weak<Mutex<Taken>>,
    stalled: Places,
}

impl PlaceHandle {
    /// The place goes to the next request. `false` when too many answers did that already: this one keeps its place.
    pub fn stalled(&self) -> bool {
        let Some(taken) = self.taken.upgrade() else { return true };
        let Ok(place) = Arc::clone(&self.stalled.free).try_acquire_owned() else { return false };
        *taken.lock() = Taken { _place: place, _share: None };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_leaves_places_to_others_and_stalled_answers_leave_theirs() {
        let light = LightPlaces::new(4);
        let soon = Instant::now() + Duration::from_secs(1);
        let [a, b] = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(light.take(&a, soon).await.unwrap());
        }
        assert!(light.take(&a, soon).now_or_never().is_none(), "three quarters are taken");
        held.push(light.take(&b, soon).await.unwrap());
        assert!(light.take(&b, soon).now_or_never().is_none(), "all are");
        let handles: Vec<_> = held.iter().map(LightPlace::handle).collect();
        assert!(handles.iter().all(PlaceHandle::stalled));
        let more: Vec<_> = (0..3).map(|_| light.take(&a, soon).now_or_never().flatten().unwrap()).collect();
        assert!(!more[0].handle().stalled(), "as many as there are places");
        drop(held);
        assert!(more[0].handle().stalled() && handles[0].stalled());
        drop(more);
        assert_eq!((light.all.taken(), light.stalled.taken()), (0, 0));
        let _last = light.share(&b);
        assert_eq!(light.shares.lock().len(), 1, "shares of tenants without requests are forgotten");
    }
}
