//! Reads on threads of their own: bounded in number, stopped by their deadline or when nobody waits any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Settings, error::Failure};
use crate::base::ErrorKind;

/// Counts and bounds reads.
#[derive(Debug)]
pub(super) struct ReadLimiter {
    outstanding: Arc<Semaphore>,
    running: Arc<Semaphore>,
    max: usize,
    refused: AtomicU64,
    done: AtomicU64,
}

/// A place among the outstanding reads; given back when dropped, which is after the last byte of the answer.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Raises the flag when dropped: the client left, or time is up.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl ReadLimiter {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            outstanding: Arc::new(Semaphore::new(settings.reads_outstanding)),
            running: Arc::new(Semaphore::new(settings.reads_running)),
            max: settings.reads_outstanding,
            refused: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    /// Reads that were not given back yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.max.saturating_sub(self.outstanding.available_permits()) as u64
    }

    /// Reads refused because there were too many.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Reads that ran to their end, well or not.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Runs `read` on a thread for blocking work; it is to look at the flag often and give up once it is raised.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl FnOnce(&AtomicBool) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(T, Place), Failure> {
        let late = || {
            let message = format!("the query took longer than {} s", timeout.as_secs_f64());
            Failure::new(ErrorKind::QueueTimeout, message)
        };
        if timeout.is_zero() {
            return Err(late());
        }
        let Ok(permit) = Arc::clone(&self.outstanding).try_acquire_owned() else {
            self.refused.fetch_add(1, Relaxed);
            let message = format!("the node has {} reads outstanding, and takes no more", self.max);
            return Err(Failure::new(ErrorKind::QueueFull, message));
        };
        let place = Place { _permit: permit };
        let (running, outstanding, max) =
            (Arc::clone(&self.running), Arc::clone(&self.outstanding), self.max);
        let cancel = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&cancel));
        let work = async move {
            let turn = running.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // Both are held until the thread is done, however early the client leaves.
                let _turn = turn;
                let outcome = read(&cancel).map_err(|failure| match failure.exhausted {
                    // No other read holds anything that could come back.
                    Some(exhausted) if outstanding.available_permits() + 1 == max => {
                        Failure::new(ErrorKind::LimitExceeded, exhausted.by_itself())
                    }
                    _ => failure,
                });
                (outcome, place)
            })
            .await
        };
        let ended = tokio::time::timeout(timeout, work).await;
        self.done.fetch_add(1, Relaxed);
        match ended {
            Ok(Ok((outcome, place))) => outcome.map(|value| (value, place)),
            Ok(Err(_)) => Err(Failure::new(ErrorKind::Internal, "a defect in the node; its log says more")),
            Err(_) => Err(late()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{engine::EvalError, pool::PoolExhausted};

    #[tokio::test]
    async fn who_alone_needs_too_much_is_not_asked_to_come_again() {
        let reads = ReadLimiter::new(&Settings::default());
        let exhausted = PoolExhausted { asked: 8, lent: 96, cap: 100 };
        let needy =
            || reads.run(Duration::MAX, move |_| Err::<(), _>(EvalError::Exhausted(exhausted).into()));
        let alone = needy().await.unwrap_err();
        assert_eq!((alone.kind, alone.message), (ErrorKind::LimitExceeded, exhausted.by_itself()));
        let ((), _other) = reads.run(Duration::MAX, |_| Ok(())).await.unwrap();
        let among_others = needy().await.unwrap_err();
        assert_eq!(
            (among_others.kind, among_others.message),
            (ErrorKind::BackendSick, exhausted.to_string())
        );
    }
}
