//! What is told of an answer on its way, and what is told to it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::{sync::Notify, time::Instant};

/// Shared between the one who forwards an answer and those who watch it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    recalled: AtomicBool,
    told: Notify,
    until: OnceLock<Instant>,
    late: AtomicBool,
    ended: AtomicBool,
}

impl Progress {
    /// Bytes that have come so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Breaks it off: at once while the backend has not answered, and with the next bytes after that.
    pub fn recall(&self) {
        self.recalled.store(true, Relaxed);
        // There is one who waits, now or soon.
        self.told.notify_one();
    }

    /// Whether it is to be broken off.
    pub fn is_recalled(&self) -> bool {
        self.recalled.load(Relaxed)
    }

    /// It must have ended then.
    pub fn must_end(&self, until: Instant) {
        // The first to say so is right: a query is admitted once.
        let _ = self.until.set(until);
    }

    /// When it must have ended; `None` where nobody said so.
    pub fn until(&self) -> Option<Instant> {
        self.until.get().copied()
    }

    /// It has ended, one way or another.
    pub(in crate::proxy) fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// The client did not take it in time; `false`, and nothing done, if it has ended.
    pub(in crate::proxy) fn give_up(&self) -> bool {
        let gives_up = !self.ended.load(Relaxed);
        self.late.store(gives_up, Relaxed);
        gives_up
    }

    /// Whether it was given up.
    pub fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// Ends when it is to be broken off.
    pub async fn recalled(&self) {
        while !self.is_recalled() {
            self.told.notified().await;
        }
    }
}
