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
    time::{sleep, sleep_until},
};

use super::meter::Progress;

/// What breaks an answer off by itself, and says why, gets so long to do it.
const GRACE: Duration = Duration::from_secs(1);

/// Holds one connection: the answer that is on its way there, if it is one that takes time.
#[derive(Debug, Default)]
pub(super) struct Leash {
    held: Mutex<Option<Arc<Progress>>>,
    changed: Notify,
}

impl Leash {
    /// This answer is on its way from now on.
    pub(super) fn hold(&self, progress: Arc<Progress>) {
        *self.lock() = Some(progress);
        self.changed.notify_one();
    }

    /// Ends when the connection has to: its answer is over time, or recalled, and still under way.
    pub(super) async fn pulled(&self) {
        loop {
            let held = self.lock().as_ref().and_then(|held| Some((Arc::clone(held), held.until()?)));
            let Some((progress, until)) = held else {
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
            self.lock().take_if(|held| Arc::ptr_eq(held, &progress));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Progress>>> {
        // Nothing that panics runs under the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    fn ending_in(seconds: u64) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        progress.must_end(Instant::now() + Duration::from_secs(seconds));
        progress
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_over_time_or_recalled_pulls_and_one_that_ended_does_not() {
        let (leash, began) = (Leash::default(), Instant::now());
        let (first, second, third) = (ending_in(5), ending_in(10), ending_in(100));
        leash.hold(first.clone());
        first.end();
        assert!(timeout(Duration::from_secs(8), leash.pulled()).await.is_err(), "it has ended");
        leash.hold(second.clone());
        leash.pulled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(11));
        assert!(second.is_late() && !first.is_late());
        leash.hold(third.clone());
        third.recall();
        leash.pulled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(12));
    }
}
