//! The state of one backend's probes: places, memory, and the answers that are kept.

use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    cache::{Answers, Shares, Values},
    counts::{Counters, Counts},
    request::ProbeError,
};
use crate::backend::{ProbeSettings, endpoint::Endpoint};

/// Most probes at a time, under any configuration.
const CONCURRENCY_MAX: u32 = 1_024;
/// Bytes that all probes of a backend may make it hold at a time; a larger one comes alone.
const PROBES_BYTES_MAX: u64 = 64 << 20;
/// Their unit.
const BYTES_UNIT: u64 = 1 << 10;
/// Bytes that a backend holds for a series of a list: 188 MiB for 200,000, measured on Prometheus 2.42.
pub(super) const LISTED_BYTES: u64 = 1 << 10;
/// Bytes of a probe that is answered from an index or from counters.
pub(super) const COUNTED_BYTES: u64 = 64 << 10;

/// Memory and a place of a probe, until it is dropped.
pub(super) type Booked<'p> = (SemaphorePermit<'p>, SemaphorePermit<'p>);

/// The probes of one backend.
#[derive(Debug)]
pub(in crate::backend) struct Probes {
    pub(super) settings: ProbeSettings,
    pub(super) places: Semaphore,
    pub(super) concurrency: u32,
    /// The memory that all probes make the backend hold, in [`BYTES_UNIT`]s.
    pub(super) memory: Semaphore,
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
            concurrency,
            memory: Semaphore::new((PROBES_BYTES_MAX / BYTES_UNIT) as usize),
            answers: Answers::new(&settings),
            shares: Shares::new(&settings),
            values: Values::new(&settings),
            counters: Counters::default(),
            series_limit: Mutex::new(None),
            cardinality: Endpoint::default(),
        }
    }

    /// Books memory at the backend, and then a place: a probe that waits for memory holds up no other.
    pub(super) async fn book(&self, bytes: u64, deadline: Instant) -> Result<Booked<'_>, ProbeError> {
        let bytes = bytes.clamp(COUNTED_BYTES, PROBES_BYTES_MAX);
        let memory = taken(&self.memory, (bytes / BYTES_UNIT) as u32, deadline).await?;
        let place = taken(&self.places, 1, deadline).await?;
        Ok((memory, place))
    }

    pub(in crate::backend) fn counts(&self) -> Counts {
        self.counters.counts()
    }
}

/// Acquires this number of permits, first come, first served.
pub(super) async fn taken(
    of: &Semaphore,
    count: u32,
    deadline: Instant,
) -> Result<SemaphorePermit<'_>, ProbeError> {
    match timeout_at(deadline, of.acquire_many(count)).await {
        Ok(Ok(permits)) => Ok(permits),
        _ => Err(ProbeError::Busy),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_waits_for_memory_holds_no_place() {
        let probes = Probes::new(ProbeSettings { concurrency: 2, ..ProbeSettings::default() });
        let deadline = Instant::now() + Duration::from_secs(1);
        let large = probes.book(u64::MAX, deadline).await.unwrap();
        let waiting = probes.book(u64::MAX, deadline);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(taken(&probes.places, 1, deadline).await.is_ok(), "the other place is free");
        drop(large);
        assert!(waiting.await.is_ok());
    }
}
