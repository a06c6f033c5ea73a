//! The progress of an answer, its cancellation and its deadline.

use std::{
    future::poll_fn,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::Cancellation;
use crate::{http::ResponseDeadline, limit::PermitHandle};

/// An answer that is late breaks off by itself, and says why, in this time, or its connection is cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Shared between the task that forwards an answer and its observers.
#[derive(Debug)]
pub struct Progress {
    born: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `born` at which the client was handed bytes and has asked for no more since; or a word.
    handed: AtomicU64,
    permit: OnceLock<PermitHandle>,
    /// Parts of the query that were answered.
    parts: AtomicU64,
    cancelled: OnceLock<Cancellation>,
    /// The one task that waits for a cancellation: the request's own.
    waiting: AtomicWaker,
    deadline: ResponseDeadline,
}

/// In place of the time since which a client was handed bytes: it waits for the backend.
const WAITS: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Self::since(Instant::now())
    }
}

impl Progress {
    /// That of a request which came then.
    pub(in crate::proxy) fn since(born: Instant) -> Self {
        Self {
            born,
            bytes: AtomicU64::new(0),
            handed: AtomicU64::new(WAITS),
            permit: OnceLock::new(),
            parts: AtomicU64::new(0),
            cancelled: OnceLock::new(),
            waiting: AtomicWaker::new(),
            deadline: ResponseDeadline::default(),
        }
    }

    /// The answer comes under this permit.
    pub(super) fn under(&self, permit: PermitHandle) {
        // The first to say so is right: an answer has one.
        let _ = self.permit.set(permit);
    }

    /// The client was handed bytes, or waits for the backend.
    pub(in crate::proxy) fn handed(&self, some: bool) {
        let since = if some { self.born.elapsed().as_millis() as u64 } else { WAITS };
        self.handed.store(since, Relaxed);
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

    /// Whether the head of its answer has come.
    pub(in crate::proxy) fn is_answered(&self) -> bool {
        self.permit.get().is_some()
    }

    /// Parts of the query that were answered.
    pub(in crate::proxy) fn parts(&self) -> u64 {
        self.parts.load(Relaxed)
    }

    pub(in crate::proxy) fn set_parts(&self, answered: u64) {
        self.parts.store(answered, Relaxed);
    }

    /// Ends it now: with an error while its client has seen nothing, else by cutting the client's connection, since
    /// half an answer must not pass for whole. Both drop the backend's connection. `false` if it was cancelled or over
    /// before.
    pub fn cancel(&self, why: Cancellation) -> bool {
        let is_first = !self.deadline.is_over() && self.cancelled.set(why).is_ok();
        if is_first {
            self.deadline.set_deadline(Instant::now());
            self.waiting.wake();
        }
        is_first
    }

    /// Why it is to end, if it is.
    pub fn cancelled(&self) -> Option<&Cancellation> {
        self.cancelled.get()
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

    /// Ends when it is cancelled; for one task at a time.
    pub async fn cancellation(&self) -> &Cancellation {
        poll_fn(|cx| {
            // Before the look: one that comes between the two wakes.
            self.waiting.register(cx.waker());
            self.cancelled.get().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl AsRef<ResponseDeadline> for Progress {
    fn as_ref(&self) -> &ResponseDeadline {
        &self.deadline
    }
}
