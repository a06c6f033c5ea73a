//! When a response has to be over, carried by the response itself.
//!
//! A body is asked for its next bytes only when the client's socket has room for them. A client that reads slowly, or
//! not at all, would hold a permit and the backend's connection as long as it likes; so the connection looks at the
//! deadline of the response under way.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const EXPIRED: u8 = 2;

/// When one response has to be over, and whether it was.
#[derive(Debug, Default)]
pub struct ResponseDeadline {
    at: Mutex<Option<Instant>>,
    /// Running => Ended by [`Self::end`], or Expired by [`Self::expired`]; the first wins.
    state: AtomicU8,
    changed: Notify,
}

/// The extension of a response whose connection is cut when the deadline is over.
#[derive(Clone)]
pub struct Timed(pub Arc<dyn AsRef<ResponseDeadline> + Send + Sync>);

impl std::fmt::Debug for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (*self.0).as_ref().fmt(f)
    }
}

impl ResponseDeadline {
    /// The response has to be over at `at`; of several such times the earliest counts.
    pub fn set_deadline(&self, at: Instant) {
        let mut earliest = self.at.lock();
        if earliest.is_none_or(|before| at < before) {
            *earliest = Some(at);
            drop(earliest);
            // Somebody waits, now or soon.
            self.changed.notify_one();
        }
    }

    /// When it has to be over; `None` where nothing was set.
    pub fn deadline(&self) -> Option<Instant> {
        *self.at.lock()
    }

    /// The response is over, one way or another.
    pub fn end(&self) {
        let _ = self.state.compare_exchange(RUNNING, ENDED, Relaxed, Relaxed);
    }

    /// Whether the response is over, by its end or its deadline.
    pub fn is_over(&self) -> bool {
        self.state.load(Relaxed) != RUNNING
    }

    /// Whether the deadline was over first.
    pub fn is_expired(&self) -> bool {
        self.state.load(Relaxed) == EXPIRED
    }

    /// Ends when the deadline is over and the response is not; never for a response that ended before.
    pub async fn expired(&self) {
        loop {
            let passed = async {
                match self.deadline() {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => continue,
                () = passed => {}
            }
            match self.state.compare_exchange(RUNNING, EXPIRED, Relaxed, Relaxed) {
                Ok(_) | Err(EXPIRED) => return,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn ending_in(seconds: u64) -> ResponseDeadline {
        let deadline = ResponseDeadline::default();
        deadline.set_deadline(Instant::now() + Duration::from_secs(seconds));
        deadline
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_expires_at_the_earliest_time_unless_it_ended_before() {
        let began = Instant::now();
        let (ended, late, moved) = (ending_in(5), ending_in(10), ending_in(100));
        ended.end();
        assert!(timeout(Duration::from_secs(8), ended.expired()).await.is_err());
        late.set_deadline(began + Duration::from_secs(50));
        late.expired().await;
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        assert!(late.is_expired() && !ended.is_expired());
        late.end();
        assert!(late.is_expired(), "an end that comes later changes nothing");
        let ((), ()) = tokio::join!(moved.expired(), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            moved.set_deadline(Instant::now() + Duration::from_secs(1));
        });
        assert_eq!(began.elapsed(), Duration::from_secs(12));
        assert!(timeout(Duration::from_secs(9), ResponseDeadline::default().expired()).await.is_err());
    }
}
