//! The state of one backend's probes: places, memory, and the answers that are kept.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use tokio::{
    sync::{AcquireError, Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    cache::{Answers, Shares, Values},
    counts::{Counters, Counts},
    request::{ProbeError, ProbeRequest},
};
use crate::backend::{ProbeSettings, endpoint::Endpoint};

/// Most probes at a time, under any configuration.
const CONCURRENCY_MAX: u32 = 1_024;
/// Bytes that all probes of a backend may make it hold at a time; a larger one comes alone.
pub(super) const PROBES_BYTES_MAX: u64 = 64 << 20;
/// Their unit.
const BYTES_UNIT: u64 = 1 << 10;
/// Most tenants whose turns are kept.
const TENANTS_MAX: u64 = 10_000;
/// How long a tenant's turns are kept after its last probe: longer than any of its probes waits.
const TENANT_IDLE: Duration = Duration::from_secs(600);
/// Bytes that a backend holds for a series of a list: 188 MiB for 200,000, measured on Prometheus 2.42.
pub(super) const LISTED_BYTES: u64 = 1 << 10;
/// Bytes of a probe that is answered from an index or from counters.
pub(super) const COUNTED_BYTES: u64 = 64 << 10;

/// Places of a tenant's part, and of all, until they are dropped.
type Places<'p> = (OwnedSemaphorePermit, SemaphorePermit<'p>);
/// Memory and a place of a probe, until it is dropped.
pub(super) type Booked<'p> = (SemaphorePermit<'p>, Places<'p>);

/// One tenant among those whose probes wait.
#[derive(Debug)]
struct Tenant {
    /// The places that it may hold.
    part: Arc<Semaphore>,
    /// Held by its one probe in the queue of all tenants for a place, and for memory: each tenant has one turn there.
    place_turn: Mutex<()>,
    memory_turn: Mutex<()>,
}

/// The probes of one backend.
#[derive(Debug)]
pub(in crate::backend) struct Probes {
    pub(super) settings: ProbeSettings,
    places: Semaphore,
    /// Places that one tenant may hold: all but one, so that no other waits for its slow probes.
    pub(super) tenant_places: u32,
    /// The memory that all probes make the backend hold, in [`BYTES_UNIT`]s.
    memory: Semaphore,
    tenants: Cache<String, Arc<Tenant>>,
    pub(super) answers: Answers,
    pub(super) shares: Shares,
    pub(super) values: Values,
    pub(super) counters: Counters,
    /// Whether the backend's `/api/v1/series` takes a limit, and when that was found out.
    pub(super) series_limit: Mutex<Option<(bool, Instant)>>,
    /// Mimir's cardinality API.
    pub(super) cardinality: Endpoint,
}

impl Probes {
    pub(in crate::backend) fn new(settings: ProbeSettings) -> Self {
        let concurrency = u32::try_from(settings.concurrency).unwrap_or(CONCURRENCY_MAX);
        let concurrency = concurrency.clamp(1, CONCURRENCY_MAX);
        Self {
            settings,
            places: Semaphore::new(concurrency as usize),
            tenant_places: (concurrency - 1).max(1),
            memory: Semaphore::new((PROBES_BYTES_MAX / BYTES_UNIT) as usize),
            tenants: Cache::builder().max_capacity(TENANTS_MAX).time_to_idle(TENANT_IDLE).build(),
            answers: Answers::new(&settings),
            shares: Shares::new(&settings),
            values: Values::new(&settings),
            counters: Counters::default(),
            series_limit: Mutex::new(None),
            cardinality: Endpoint::default(),
        }
    }

    /// Books memory at the backend, and then a place: a probe that waits for memory holds up no other.
    pub(super) async fn book(
        &self,
        bytes: u64,
        request: &ProbeRequest<'_>,
    ) -> Result<Booked<'_>, ProbeError> {
        let bytes = bytes.clamp(COUNTED_BYTES, PROBES_BYTES_MAX);
        let tenant = self.tenant(request.tenant);
        let taking = async {
            let _turn = tenant.memory_turn.lock().await;
            self.memory.acquire_many((bytes / BYTES_UNIT) as u32).await
        };
        let memory = taken(taking, request.deadline).await?;
        Ok((memory, self.places(1, request).await?))
    }

    /// Takes places, first come, first served within a tenant's part. Tenants take turns.
    pub(super) async fn places(
        &self,
        count: u32,
        request: &ProbeRequest<'_>,
    ) -> Result<Places<'_>, ProbeError> {
        let tenant = self.tenant(request.tenant);
        let taking = async {
            let own = Arc::clone(&tenant.part).acquire_many_owned(count).await?;
            let _turn = tenant.place_turn.lock().await;
            Ok((own, self.places.acquire_many(count).await?))
        };
        taken(taking, request.deadline).await
    }

    fn tenant(&self, name: &str) -> Arc<Tenant> {
        let new = || {
            let part = Arc::new(Semaphore::new(self.tenant_places as usize));
            Arc::new(Tenant { part, place_turn: Mutex::default(), memory_turn: Mutex::default() })
        };
        self.tenants.get_with_by_ref(name, new)
    }

    pub(in crate::backend) fn counts(&self) -> Counts {
        self.counters.counts()
    }
}

async fn taken<P>(
    taking: impl Future<Output = Result<P, AcquireError>>,
    deadline: Instant,
) -> Result<P, ProbeError> {
    match timeout_at(deadline, taking).await {
        Ok(Ok(permits)) => Ok(permits),
        _ => Err(ProbeError::Busy),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;
    use crate::{backend::DataScope, base::TimeRange};

    fn probes(concurrency: usize) -> Probes {
        Probes::new(ProbeSettings { concurrency, ..ProbeSettings::default() })
    }

    fn of<'a>(tenant: &'a str, scope: &'a DataScope) -> ProbeRequest<'a> {
        ProbeRequest {
            selector: "up",
            metric: None,
            window: TimeRange { start: 0, end: 1 },
            limit: 1,
            enough: 0,
            match_all: false,
            scope,
            tenant,
            deadline: Instant::now() + Duration::from_secs(60),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_waits_for_memory_holds_no_place() {
        let (probes, scope) = (probes(3), DataScope::default());
        let request = of("a", &scope);
        let large = probes.book(u64::MAX, &request).await.unwrap();
        let waiting = probes.book(u64::MAX, &request);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(probes.places(1, &request).await.is_ok(), "the other place is free");
        drop(large);
        assert!(waiting.await.is_ok());
    }

    /// How long one probe of a tenant waits behind twelve of two seconds, each, of these other tenants.
    async fn waits(concurrency: usize, busy: &[&str], places: u32, bytes: Option<u64>) -> Duration {
        let (probes, scope) = (probes(concurrency), DataScope::default());
        let slow = |tenant| {
            let (probes, request) = (&probes, of(tenant, &scope));
            async move {
                let second = Duration::from_secs(1);
                if let Some(bytes) = bytes {
                    let _booked = probes.book(bytes, &request).await.unwrap();
                    return sleep(2 * second).await;
                }
                let _places = probes.places(places, &request).await.unwrap();
                sleep(2 * second).await;
            }
        };
        let crowd = join_all(busy.iter().flat_map(|tenant| (0..12).map(|_| slow(tenant))));
        let light = async {
            sleep(Duration::from_millis(1)).await;
            let (began, request) = (Instant::now(), of("light", &scope));
            match bytes {
                Some(bytes) => drop(probes.book(bytes, &request).await.unwrap()),
                None => drop(probes.places(1, &request).await.unwrap()),
            }
            began.elapsed()
        };
        let (_, waited) = tokio::join!(crowd, light);
        waited
    }

    /// First come, first served over all tenants, it waited 4 s for a place, 24 s behind probes that were repeated alone,
    /// and 24 s for memory.
    #[tokio::test(start_paused = true)]
    async fn one_tenants_slow_probes_hold_up_no_other_tenant() {
        for (concurrency, busy, places, bytes, seconds) in [
            (4, &["a"][..], 1, None, 0),
            (4, &["a"], 3, None, 0),
            // One in turn of each other tenant.
            (4, &["a", "b", "c"], 1, None, 2),
            (1, &["a", "b"], 1, None, 4),
            (4, &["a"], 1, Some(PROBES_BYTES_MAX), 4),
        ] {
            let waited = waits(concurrency, busy, places, bytes).await;
            let case = format!("{concurrency} places, {busy:?} {places} {bytes:?}: {waited:?}");
            assert!(waited <= Duration::from_secs(seconds), "{case}");
        }
    }
}
