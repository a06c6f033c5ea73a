//! What is told of an answer on its way, and what is told to it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::http::ResponseDeadline;

/// An answer that breaks off by itself, and says why, has this long to do it before its connection is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Shared between the one who forwards an answer and those who watch it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    recalled: AtomicBool,
    told: Notify,
    deadline: ResponseDeadline,
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
        self.set_deadline(Instant::now());
        // There is one who waits, now or soon.
        self.told.notify_one();
    }

    /// Whether it is to be broken off.
    pub fn is_recalled(&self) -> bool {
        self.recalled.load(Relaxed)
    }

    /// It must have ended by then; its connection is cut soon after.
    pub fn set_deadline(&self, until: Instant) {
        self.deadline.set_deadline(until + LAST_WORDS);
    }

    /// It has ended, one way or another.
    pub(in crate::proxy) fn end(&self) {
        self.deadline.end();
    }

    /// Whether the client did not take it in time.
    pub fn is_late(&self) -> bool {
        self.deadline.is_expired()
    }

    /// Ends when it is to be broken off.
    pub async fn recalled(&self) {
        while !self.is_recalled() {
            self.told.notified().await;
        }
    }
}

impl AsRef<ResponseDeadline> for Progress {
    fn as_ref(&self) -> &ResponseDeadline {
        &self.deadline
    }
}
