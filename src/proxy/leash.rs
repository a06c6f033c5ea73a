//! Ends a connection whose client does not take its answer in time.
//!
//! A body is asked for its next bytes only when the client's socket has room for them. Who reads slowly, or nothing at all,
//! would hold a permit and the backend's connection for as long as it likes, so an answer's time is kept beside its
//! connection.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::meter::Progress;

/// What breaks an answer off by itself, and says why, gets so long to do it.
const GRACE: Duration = Duration::from_secs(1);

/// When an answer under way must have ended.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    /// Its last moment.
    pub until: Instant,
    /// Whether it has ended, and whether it is to.
    pub progress: Arc<Progress>,
}

/// Holds one connection: the answer that is on its way there, if it is one that takes time.
#[derive(Debug, Default)]
pub(super) struct Leash {
    held: Mutex<Option<Bound>>,
    changed: Notify,
}

impl Leash {
    /// This answer is on its way from now on.
    pub(super) fn hold(&self, bound: Bound) {
        *self.lock() = Some(bound);
        self.changed.notify_one();
    }

    /// Ends when the connection has to: its answer is over time, or recalled, and still under way.
    pub(super) async fn pulled(&self) {
        loop {
            let held = self.lock().clone();
            let Some(Bound { until, progress }) = held else {
                self.changed.notified().await;
                continue;
            };
            let late = async {
                tokio::select! {
                    () = sleep_until(until + GRACE) => {}
                    () = progress.recalled() => sleep(GRACE).await,
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => continue,
                () = late => {}
            }
            if progress.give_up() {
                return;
            }
            self.lock().take_if(|held| Arc::ptr_eq(&held.progress, &progress));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bound>> {
        // Nothing that panics runs under the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn bound(seconds: u64) -> Bound {
        Bound { until: Instant::now() + Duration::from_secs(seconds), progress: Arc::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_over_time_or_recalled_pulls_and_one_that_ended_does_not() {
        let (leash, began) = (Leash::default(), Instant::now());
        let (first, second, third) = (bound(5), bound(10), bound(100));
        leash.hold(first.clone());
        first.progress.end();
        assert!(timeout(Duration::from_secs(8), leash.pulled()).await.is_err(), "it has ended");
        leash.hold(second.clone());
        leash.pulled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(11));
        assert!(second.progress.is_late() && !first.progress.is_late());
        leash.hold(third.clone());
        third.progress.recall();
        leash.pulled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(12));
    }
}
