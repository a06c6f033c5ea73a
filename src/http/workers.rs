//! The threads that carry connections, each with a runtime of its own.
//!
//! A request, its client's connection and the backend's connection stay on one thread from the first byte to the last:
//! nothing is handed over or woken across threads, which is most of the cost of a small request on a runtime with
//! several threads. The price: a long computation holds up the other connections of its thread, so none may be long
//! (parsing and inflating are bounded).

use std::{io, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
    time::timeout,
};

use crate::base::WorkerId;

/// A timer that is due before all others wakes its runtime when it is set. One that is always due soon keeps the timers
/// of requests, which mostly never fire, from doing so.
const TICK: Duration = Duration::from_secs(1);

/// Where connections are served. Dropped, its threads end, and their connections are dropped.
#[derive(Debug)]
pub struct Workers {
    each: Vec<Worker>,
    _stop: watch::Sender<()>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Lent once for each connection.
    load: Arc<()>,
}

/// A connection's share of a worker, given back by its drop.
pub(super) type Load = Arc<()>;

impl Workers {
    /// `count` threads.
    ///
    /// # Errors
    /// The system gives no thread, or no runtime.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let start = |number: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut stopped = stopped.clone();
            let carry = move || {
                WorkerId::set(number);
                runtime.block_on(async {
                    // The sender's end is the signal.
                    while timeout(TICK, stopped.changed()).await.is_err() {}
                });
            };
            thread::Builder::new().name(format!("worker-{number}")).spawn(carry)?;
            Ok(Worker::new(handle))
        };
        Ok(Self { each: (1..=count.get()).map(start).collect::<io::Result<_>>()?, _stop: stop })
    }

    /// No threads of their own: connections are served by the runtime of the caller.
    pub fn here() -> Self {
        Self { each: vec![Worker::new(Handle::current())], _stop: watch::channel(()).0 }
    }

    /// The worker with the fewest connections, which has one more from now on.
    pub(super) fn least(&self) -> (&Handle, Load) {
        let least = self.each.iter().min_by_key(|worker| Arc::strong_count(&worker.load));
        // There is one at least, by either way of making them.
        let worker = least.unwrap_or(&self.each[0]);
        (&worker.runtime, Arc::clone(&worker.load))
    }
}

impl Worker {
    fn new(runtime: Handle) -> Self {
        Self { runtime, load: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let workers = Workers::start(NonZeroUsize::new(3).unwrap()).unwrap();
        let number = |load: &Load| workers.each.iter().position(|worker| Arc::ptr_eq(&worker.load, load));
        let mut loads: Vec<_> = (0..6).map(|_| workers.least().1).collect();
        let numbers: Vec<_> = loads.iter().map(|load| number(load).unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 0, 1, 2]);
        loads.retain(|load| number(load) != Some(1));
        assert_eq!([number(&workers.least().1), number(&workers.least().1)], [Some(1), Some(1)]);
    }

    #[test]
    fn each_thread_has_a_number_and_ends_with_the_workers() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let (seen, numbers) = std::sync::mpsc::channel();
        for worker in &workers.each {
            let seen = seen.clone();
            worker.runtime.spawn(async move {
                seen.send(WorkerId::current()).unwrap();
                // Dropped with its runtime, and the sender with it.
                std::future::pending::<()>().await;
            });
        }
        drop(seen);
        let (one, other) = (numbers.recv().unwrap(), numbers.recv().unwrap());
        assert!(one != other && one != WorkerId::current() && other != WorkerId::current());
        drop(workers);
        assert!(numbers.recv().is_err(), "both threads have ended");
    }
}
