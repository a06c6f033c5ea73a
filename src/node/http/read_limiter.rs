//! Reads on threads of their own: bounded in number, stopped by their deadline or when nobody waits any more.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Settings, error::Failure};
use crate::{
    base::ErrorKind,
    node::pool::{Cap, Claim, Others},
};

/// Places in the line of reads that run again.
const LINE: u32 = 4;

/// Counts and bounds reads.
///
/// A read runs beside all others at first. If the pool has no memory for it among them it gives back all that it holds,
/// and runs again beside fewer: with a quarter of the line, then half of it, then all of it. So reads that fill the pool
/// together without one of them being able to end run a few at a time, and those that need little wait for nobody. While one
/// has all of the line others leave memory to it ([`Cap::give_way`]), and it waits for those that began before: new ones, however
/// many come, keep it from nothing.
#[derive(Debug)]
pub(super) struct ReadLimiter {
    outstanding: Arc<Semaphore>,
    running: Arc<Semaphore>,
    line: Arc<Semaphore>,
    cap: Arc<Cap>,
    /// Reads that run or are being sent.
    holders: Arc<Mutex<Holders>>,
    max: usize,
    refused: AtomicU64,
    done: AtomicU64,
    again: AtomicU64,
}

/// A place among the outstanding reads, and that of its answer among those that hold memory; given back when dropped,
/// which is after the last byte of the answer.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _holding: Option<Holding>,
}

/// Reads that may hold memory, by number.
#[derive(Debug, Default)]
struct Holders {
    now: BTreeSet<u64>,
    latest: u64,
}

/// One of them.
#[derive(Debug)]
struct Holding {
    holders: Arc<Mutex<Holders>>,
    number: u64,
    /// Whether there was no other one when it began.
    began_alone: bool,
}

impl Holding {
    fn new(holders: &Arc<Mutex<Holders>>) -> Self {
        let mut all = holders.lock();
        all.latest += 1;
        let (number, began_alone) = (all.latest, all.now.is_empty());
        all.now.insert(number);
        drop(all);
        Self { holders: Arc::clone(holders), number, began_alone }
    }

    /// Whether there was no other one at any time since it began.
    fn was_alone(&self) -> bool {
        self.began_alone && self.holders.lock().latest == self.number
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.holders.lock().now.remove(&self.number);
    }
}

/// All reads but one.
#[derive(Debug)]
struct AllBut {
    holders: Arc<Mutex<Holders>>,
    number: u64,
}

impl Others for AllBut {
    fn latest(&self) -> u64 {
        self.holders.lock().latest
    }

    fn remain(&self, number: u64) -> bool {
        self.holders.lock().now.range(..=number).any(|other| *other != self.number)
    }
}

/// The signals that a running read looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    /// Raised once nobody wants the answer any more: to be looked at often.
    pub(super) canceled: &'a AtomicBool,
    /// The other reads, if it has the whole line, so that they leave memory to it.
    pub(super) first: Option<&'a Arc<dyn Others>>,
}

impl<'t> Turn<'t> {
    /// Whether nobody wants the answer any more.
    pub(super) fn is_over(&self) -> bool {
        self.canceled.load(Relaxed)
    }

    /// The read's claim on memory.
    pub(super) fn claim<'a>(&self, gone: &'a dyn Fn() -> bool) -> Claim<'a>
    where
        't: 'a,
    {
        Claim::until(gone).first(self.first.map(|others| &**others))
    }
}

/// Raises the flag when dropped: the client left, or time is up.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl ReadLimiter {
    /// Limits the reads that share the memory under `cap`.
    pub(super) fn new(settings: &Settings, cap: Arc<Cap>) -> Self {
        Self {
            outstanding: Arc::new(Semaphore::new(settings.reads_outstanding)),
            running: Arc::new(Semaphore::new(settings.reads_running)),
            line: Arc::new(Semaphore::new(LINE as usize)),
            cap,
            holders: Arc::default(),
            max: settings.reads_outstanding,
            refused: AtomicU64::new(0),
            done: AtomicU64::new(0),
            again: AtomicU64::new(0),
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

    /// How often a read ran again, beside fewer others.
    pub(super) fn again(&self) -> u64 {
        self.again.load(Relaxed)
    }

    /// Runs `read` on a thread for blocking work, and again while it fails for want of memory that others hold.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl Fn(Turn<'_>) -> Result<T, Failure> + Send + Sync + 'static,
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
        let place = Place { _permit: permit, _holding: None };
        let canceled = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&canceled));
        let ended = tokio::time::timeout(timeout, self.turns(place, canceled, Arc::new(read))).await;
        self.done.fetch_add(1, Relaxed);
        ended.unwrap_or_else(|_| Err(late()))
    }

    async fn turns<T: Send + 'static>(
        &self,
        mut place: Place,
        canceled: Arc<AtomicBool>,
        read: Arc<impl Fn(Turn<'_>) -> Result<T, Failure> + Send + Sync + 'static>,
    ) -> Result<(T, Place), Failure> {
        let mut share = 0;
        loop {
            // Neither semaphore is ever closed. A read that waits for a turn has its part of the line, and those that
            // have a turn wait for neither.
            let line = match share {
                0 => None,
                share => Arc::clone(&self.line).acquire_many_owned(share).await.ok(),
            };
            let running = Arc::clone(&self.running).acquire_owned().await;
            let (read, canceled) = (Arc::clone(&read), Arc::clone(&canceled));
            let holding = Holding::new(&self.holders);
            let cap = (share == LINE).then(|| Arc::clone(&self.cap));
            let turn = move || {
                // All are held until the thread is done, however early the client leaves. An answer that is being sent
                // has no part of the line: its client may read slowly, and the next one waits for its memory alone.
                let _held = (running, line);
                let _gave_way = cap.as_ref().map(Cap::give_way);
                let others = AllBut { holders: Arc::clone(&holding.holders), number: holding.number };
                let first = cap.is_some().then(|| Arc::new(others) as Arc<dyn Others>);
                let outcome = read(Turn { canceled: &canceled, first: first.as_ref() });
                match outcome {
                    Ok(value) => (Ok(value), Place { _holding: Some(holding), ..place }),
                    Err(failure) => (Err(explained(failure, &holding)), place),
                }
            };
            let ended = tokio::task::spawn_blocking(turn).await;
            let Ok((outcome, given_back)) = ended else {
                return Err(Failure::new(ErrorKind::Internal, "a defect in the node; its log says more"));
            };
            place = given_back;
            match outcome {
                Ok(value) => return Ok((value, place)),
                Err(failure) if failure.exhausted.is_none() || share == LINE => return Err(failure),
                Err(_) => share = (2 * share).max(1),
            }
            self.again.fetch_add(1, Relaxed);
        }
    }
}

/// A read that was alone had no memory to wait for.
fn explained(failure: Failure, holding: &Holding) -> Failure {
    match failure.exhausted {
        Some(exhausted) if holding.was_alone() => {
            Failure::new(ErrorKind::LimitExceeded, exhausted.by_itself())
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{
        engine::EvalError,
        pool::{Mode, PoolExhausted},
    };

    const EXHAUSTED: PoolExhausted = PoolExhausted { asked: 8, lent: 96, cap: 100 };

    fn limiter(settings: &Settings) -> ReadLimiter {
        ReadLimiter::new(settings, Arc::new(Cap::new(Mode::Unbounded)))
    }

    fn exhausted<T>() -> Result<T, Failure> {
        Err(EvalError::Exhausted(EXHAUSTED).into())
    }

    #[tokio::test]
    async fn who_alone_needs_too_much_is_not_asked_to_come_again() {
        let reads = limiter(&Settings::default());
        let needy = || reads.run(Duration::MAX, |_| exhausted::<()>());
        let alone = needy().await.unwrap_err();
        assert_eq!((alone.kind, alone.message), (ErrorKind::LimitExceeded, EXHAUSTED.by_itself()));
        assert_eq!(reads.again(), 0);
        let ((), _other) = reads.run(Duration::MAX, |_| Ok(())).await.unwrap();
        let among_others = needy().await.unwrap_err();
        assert_eq!(
            (among_others.kind, among_others.message),
            (ErrorKind::BackendSick, EXHAUSTED.to_string())
        );
        assert_eq!(reads.again(), 3);
    }

    #[tokio::test]
    async fn reads_that_need_much_run_a_few_at_a_time() {
        const CROWD: usize = 24;
        let reads = limiter(&Settings { reads_running: CROWD, ..Settings::default() });
        // As long as its answer is being sent nobody is alone.
        let ((), _other) = reads.run(Duration::MAX, |_| Ok(())).await.unwrap();
        let all_run = Arc::new(std::sync::Barrier::new(CROWD));
        // Of each turn, how many run now, and the most that did.
        let inside = Arc::new(Mutex::new([(0, 0); 3]));
        let read = |_| {
            let (all_run, inside, turns) = (Arc::clone(&all_run), Arc::clone(&inside), AtomicU64::new(0));
            reads.run(Duration::MAX, move |_| {
                let turn = turns.fetch_add(1, Relaxed) as usize;
                let mut all = inside.lock();
                let (now, most) = &mut all[turn];
                *now += 1;
                *most = (*most).max(*now);
                drop(all);
                if turn == 0 {
                    all_run.wait();
                }
                std::thread::yield_now();
                inside.lock()[turn].0 -= 1;
                if turn < 2 { exhausted() } else { Ok(()) }
            })
        };
        let crowd = (0..CROWD).map(read).map(async |one| one.await.map(drop));
        let ended = futures_util::future::join_all(crowd).await;
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
        let most = inside.lock().map(|(_, most)| most);
        assert!(most[0] == CROWD && most[1] <= 4 && most[2] <= 2, "{most:?}");
        assert_eq!((reads.again(), reads.outstanding()), (2 * CROWD as u64, 1));
    }

    #[tokio::test]
    async fn the_last_turn_goes_first_and_an_answer_that_is_sent_has_no_part_of_the_line() {
        let reads = limiter(&Settings::default());
        let ((), other) = reads.run(Duration::MAX, |_| Ok(())).await.unwrap();
        let turns = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&turns);
        let read = move |turn: Turn<'_>| {
            // It waits for the other one, and for none that has not come yet.
            let others = turn.first.map(|others| (others.remain(others.latest()), others.remain(0)));
            noted.lock().push(others);
            if others.is_none() { exhausted() } else { Ok(()) }
        };
        let ((), place) = reads.run(Duration::MAX, read).await.unwrap();
        assert_eq!(*turns.lock(), [None, None, None, Some((true, false))]);
        assert_eq!((reads.line.available_permits(), reads.holders.lock().now.len()), (LINE as usize, 2));
        drop((place, other));
        assert_eq!(reads.holders.lock().now.len(), 0);
    }
}
