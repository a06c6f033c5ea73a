//! Faults of a running database: refused writes, failed upkeep, a full disk.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::error::{MaintainError, WriteError};

/// Time between two lines in the log about writes that are refused.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Room on the disk of the data folder, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Free for this process.
    pub free: u64,
    /// In all.
    pub size: u64,
}

impl Disk {
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
    }
}

/// Counts of failures, and whether writes are refused now.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why the last write, or the last probe, was refused.
    refused: Mutex<Option<WriteError>>,
    writes_failed: [AtomicU64; WriteError::REASONS.len()],
    upkeep_failed: AtomicU64,
    upkeep_succeeded_ms: AtomicI64,
    clock_steps: AtomicU64,
    disk: Mutex<Option<Disk>>,
    complaints: Complaints,
}

/// When the last complaint was logged: writes are refused by the thousand.
#[derive(Debug, Default)]
struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether one is due now; the next one is not for a while then.
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAINT_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Health {
    /// A write was refused.
    pub(super) fn write_failed(&self, error: &WriteError) {
        let reason = WriteError::REASONS.iter().position(|reason| *reason == error.reason());
        if let Some(count) = reason.and_then(|at| self.writes_failed.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.refuse(error);
    }

    /// The disk would refuse a write.
    pub(super) fn refuse(&self, error: &WriteError) {
        *self.refused.lock() = Some(error.clone());
        if self.complaints.is_due(Instant::now()) {
            tracing::error!(%error, "writes are refused; this is logged once a minute at most");
        }
    }

    /// Why the last write, or the last probe, was refused; `None` if it was taken.
    pub(super) fn refusal(&self) -> Option<WriteError> {
        self.refused.lock().clone()
    }

    /// A write, or a probe, was taken.
    pub(super) fn write_taken(&self) {
        let before = self.refused.lock().take();
        if before.is_some() {
            tracing::info!("writes are taken again");
        }
    }

    /// The clock was stepped.
    pub(super) fn clock_stepped(&self) {
        self.clock_steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes that failed, by reason.
    pub(super) fn writes_failed(&self) -> [(&'static str, u64); WriteError::REASONS.len()] {
        std::array::from_fn(|at| {
            let count = self.writes_failed.get(at).map_or(0, |count| count.load(Ordering::Relaxed));
            (WriteError::REASONS.get(at).copied().unwrap_or_default(), count)
        })
    }

    pub(super) fn upkeep_failed(&self) -> u64 {
        self.upkeep_failed.load(Ordering::Relaxed)
    }

    pub(super) fn upkeep_succeeded_ms(&self) -> i64 {
        self.upkeep_succeeded_ms.load(Ordering::Relaxed)
    }

    pub(super) fn clock_steps(&self) -> u64 {
        self.clock_steps.load(Ordering::Relaxed)
    }

    pub(super) fn disk(&self) -> Option<Disk> {
        *self.disk.lock()
    }

    pub(super) fn set_disk(&self, disk: Option<Disk>) {
        *self.disk.lock() = disk;
    }

    /// Notes how a round of upkeep ended.
    pub(super) fn upkeep_ended(&self, result: &Result<(), MaintainError>, now_ms: i64) {
        match result {
            Ok(()) => self.upkeep_succeeded_ms.store(now_ms, Ordering::Relaxed),
            Err(_) => drop(self.upkeep_failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_seldom() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let due = |seconds| complaints.is_due(start + Duration::from_secs(seconds));
        assert_eq!([0, 1, 59, 60, 61, 119, 120].map(due), [true, false, false, true, false, false, true]);
    }
}
