//! The background refill of pools, and its budget.

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use crate::base::sync::Mutex;

/// One refill, to be run away from the query that set it off.
pub type Job = Box<dyn FnOnce() + Send>;

/// Refills waiting for the thread: every pool has at most one, so this is a bound on pools, not on load.
const JOBS_MAX: usize = 256;

/// Runs refills in the background.
#[derive(Clone)]
pub struct Refiller {
    run: Arc<dyn Fn(Job) -> bool + Send + Sync>,
}

impl Refiller {
    /// Runs each job by `run`, which says whether it took the job.
    pub fn new(run: impl Fn(Job) -> bool + Send + Sync + 'static) -> Self {
        Self { run: Arc::new(run) }
    }

    /// Runs jobs one after the other on a thread of its own, which ends with the last clone of this.
    pub fn thread() -> std::io::Result<Self> {
        let (send, jobs): (SyncSender<Job>, _) = sync_channel(JOBS_MAX);
        std::thread::Builder::new().name("weir-pool-refill".to_owned()).spawn(move || {
            for job in jobs {
                job();
            }
        })?;
        Ok(Self::new(move |job| send.try_send(job).is_ok()))
    }

    pub(super) fn run(&self, job: Job) -> bool {
        (self.run)(job)
    }
}

impl fmt::Debug for Refiller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refiller").finish_non_exhaustive()
    }
}

/// Bounds the objects that refills may allocate per second, over all pools that share it: a storm of queries does
/// not add a storm of refills to its own.
pub struct RefillBudget {
    per_second: u64,
    now: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Objects left, and when that was worked out.
    left: Mutex<(f64, Duration)>,
}

impl RefillBudget {
    /// `per_second` objects, a second's number at once; 0 refills nothing.
    pub fn per_second(per_second: u64) -> Self {
        let start = Instant::now();
        Self::with_clock(per_second, move || start.elapsed())
    }

    /// The same over a clock of the caller's.
    pub fn with_clock(per_second: u64, now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let left = Mutex::new((per_second as f64, now()));
        Self { per_second, now: Box::new(now), left }
    }

    /// Takes one object of the budget.
    pub(super) fn take(&self) -> bool {
        let now = (self.now)();
        let Ok(mut left) = self.left.lock() else { return false };
        let earned = now.saturating_sub(left.1).as_secs_f64() * self.per_second as f64;
        let have = (left.0 + earned).min(self.per_second as f64);
        let taken = have >= 1.0;
        *left = (if taken { have - 1.0 } else { have }, now);
        taken
    }
}

impl fmt::Debug for RefillBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefillBudget").field("per_second", &self.per_second).finish_non_exhaustive()
    }
}
