//! The progress of an answer, its cancellation and its deadline.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{http::ResponseDeadline, limit::PermitHandle};

/// An answer that breaks off by itself, and says why, has this long to do it before its connection is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Shared between the one who forwards an answer and those who watch it.
#[derive(Debug)]
pub struct Progress {
    born: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `born` at which the client was handed bytes and has asked for no more since; or a word.
    handed: AtomicU64,
    permit: OnceLock<PermitHandle>,
    cancelled: AtomicBool,
    told: Notify,
    deadline: ResponseDeadline,
}

/// In place of the time since which a client was handed bytes: it waits for the backend.
const WAITS: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            bytes: AtomicU64::new(0),
            handed: AtomicU64::new(WAITS),
            permit: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            told: Notify::new(),
            deadline: ResponseDeadline::default(),
        }
    }
}

impl Progress {
    /// The answer comes under this permit.
    pub(super) fn under(&self, permit: PermitHandle) {
        // The first to say so is right: an answer has one.
        let _ = self.permit.set(permit);
    }

    /// The client was handed bytes, or waits for the backend.
    pub(in crate::proxy) fn handed(&self, some: bool) {
        let now = self.born.elapsed().as_millis() as u64;
        self.handed.store(if some { now } else { WAITS }, Relaxed);
    }

    /// The backend's last byte has come.
    pub(super) fn backend_done(&self, answered: bool) {
        if let Some(permit) = self.permit.get() {
            permit.backend_done(answered);
        }
    }

    /// Gives back the slot of an answer whose client has not read for this time.
    pub(in crate::proxy) fn give_way(&self, stalled_for: Duration) {
        if self.is_stalled(stalled_for) {
            self.permit.get().map(PermitHandle::stalled);
        }
    }

    /// Whether the client has not read for this time after it was handed bytes.
    pub(in crate::proxy) fn is_stalled(&self, stalled_for: Duration) -> bool {
        let handed = self.handed.load(Relaxed);
        let since = self.born.elapsed().as_millis() as u64;
        handed != WAITS && since.saturating_sub(handed) >= stalled_for.as_millis() as u64
    }

    /// Bytes that have come so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Breaks it off: at once while the backend has not answered, and with the next bytes after that.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        self.set_deadline(Instant::now());
        // There is one who waits, now or soon.
        self.told.notify_one();
    }

    /// Whether it is to be broken off.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
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
    pub async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.told.notified().await;
        }
    }
}

impl AsRef<ResponseDeadline> for Progress {
    fn as_ref(&self) -> &ResponseDeadline {
        &self.deadline
    }
}
