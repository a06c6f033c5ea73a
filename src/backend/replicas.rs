//! Which replica is asked: the least loaded of those that work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use hyper::body::Incoming;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    connection::Connection,
    pool::{Lane, Pool},
    settings::{BaseUrl, Settings},
};

/// Answers that stayed away, one after the other, before a replica that accepts connections is left alone.
const FAILURES_BEFORE_EJECTION: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(60);
/// Checks that failed in a row before a replica counts as unhealthy: one lost packet is not an outage.
const CHECKS_BEFORE_UNHEALTHY: u32 = 2;

/// The replicas of one backend.
#[derive(Debug)]
pub(super) struct Replicas {
    each: Vec<Arc<Replica>>,
    /// Where the search starts, so that equals share the load.
    next: AtomicUsize,
}

/// One replica: its connections and what is known of its health.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) pool: Pool,
    in_flight: AtomicUsize,
    born: Instant,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// Ejections in a row, for the backoff.
    ejections: AtomicU32,
    /// Milliseconds after `born`.
    ejected_until: AtomicU64,
    healthy: AtomicBool,
    failed_checks: AtomicU32,
}

/// How a replica failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It could not be connected to: nothing listens there.
    Unreachable,
    /// It took the request and gave no (whole) answer, or one of its own failure: maybe the query's fault.
    Unanswered,
}

impl Replicas {
    pub(super) fn new(settings: &Settings) -> Self {
        let each = settings.urls.iter().map(|url| Arc::new(Replica::new(url.clone(), settings))).collect();
        Self { each, next: AtomicUsize::new(0) }
    }

    /// Takes over which of them fail, by URL, until the next check says otherwise.
    pub(super) fn know_of(&self, others: &Self) {
        for replica in &self.each {
            let known = others.each.iter().find(|other| other.pool.url() == replica.pool.url());
            if known.is_some_and(|known| !known.works(Instant::now())) {
                replica.healthy.store(false, Relaxed);
            }
        }
    }

    /// The least loaded replica that works, other than `not`; when none works, the least loaded of all: a guess
    /// costs less than a refusal that may be wrong.
    pub(super) fn choose(&self, not: Option<&Arc<Replica>>) -> Option<&Arc<Replica>> {
        if let ([only], None) = (self.each.as_slice(), not) {
            return Some(only);
        }
        let now = Instant::now();
        let (before, after) = self.each.split_at(self.next.fetch_add(1, Relaxed) % self.each.len().max(1));
        let others = after.iter().chain(before).filter(|r| not.is_none_or(|not| !Arc::ptr_eq(r, not)));
        others.min_by_key(|r| (!r.works(now), r.in_flight.load(Relaxed)))
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<Replica>> {
        self.each.iter()
    }

    pub(super) const fn several(&self) -> bool {
        self.each.len() > 1
    }

    /// Whether any replica is believed to answer.
    pub(super) fn any_works(&self) -> bool {
        let now = Instant::now();
        self.each.iter().any(|r| r.works(now))
    }

    /// Whether any other replica is.
    pub(super) fn works_without(&self, replica: &Arc<Replica>) -> bool {
        let now = Instant::now();
        self.each.iter().any(|r| !Arc::ptr_eq(r, replica) && r.works(now))
    }
}

impl Replica {
    fn new(url: BaseUrl, settings: &Settings) -> Self {
        Self {
            pool: Pool::new(url, settings),
            in_flight: AtomicUsize::new(0),
            born: Instant::now(),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            failed_checks: AtomicU32::new(0),
        }
    }

    /// Counts a request as in flight until the lease ends, before it has a connection: who waits is load too.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Relaxed);
        Lease { replica: Arc::clone(self), connection: None, place: None }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    pub(super) fn ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until > 0 && self.age_ms(now) < until
    }

    fn works(&self, now: Instant) -> bool {
        self.healthy() && !self.ejected(now)
    }

    fn age_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
    }

    /// It answered: whatever it was, it works again.
    pub(super) fn succeeded(&self) {
        // Read first: the ordinary case writes nothing that other cores read.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if self.ejected_until.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// It failed a request: left alone at once when nothing listens, each time twice as long as the last; after a few in
    /// a row and shortly otherwise, since it may have been the query.
    pub(super) fn failed(&self, how: Failure) {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if how == Failure::Unanswered && failures < FAILURES_BEFORE_EJECTION {
            return;
        }
        let now = Instant::now();
        // Requests that were under way together fail together: they are one reason to wait longer, not many.
        if self.ejected(now) {
            return;
        }
        let pause = match how {
            Failure::Unanswered => FIRST_EJECTION,
            Failure::Unreachable => {
                let before = self.ejections.fetch_add(1, Relaxed).min(16);
                (FIRST_EJECTION * (1 << before)).min(LONGEST_EJECTION)
            }
        };
        self.failures.store(0, Relaxed);
        self.ejected_until.store(self.age_ms(now) + pause.as_millis() as u64, Relaxed);
    }

    /// The outcome of a health check. A good one ends an ejection: the check is the trial.
    pub(super) fn checked(&self, good: bool) {
        if good {
            self.failed_checks.store(0, Relaxed);
            self.healthy.store(true, Relaxed);
            self.succeeded();
        } else if self.failed_checks.fetch_add(1, Relaxed) + 1 >= CHECKS_BEFORE_UNHEALTHY {
            self.healthy.store(false, Relaxed);
        }
    }
}

/// A request's hold on a replica: its count, its place and its connection, until the last byte of the answer.
#[derive(Debug)]
pub(super) struct Lease {
    replica: Arc<Replica>,
    /// Dropped unless it is put back: a connection with an unread answer on it is closed.
    connection: Option<Connection>,
    place: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Waits for a place among the replica's connections.
    pub(super) async fn take_place(&mut self, lane: Lane, deadline: Instant) -> bool {
        self.place = self.replica.pool.place(lane, deadline).await;
        self.place.is_some()
    }

    pub(super) fn hold(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// The next frame of the answer; `None` as well when no connection is held.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.connection.as_mut().map_or(Poll::Ready(None), |connection| connection.poll_frame(incoming, cx))
    }

    /// The answer has ended: the connection is free for the next request.
    pub(super) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.replica.pool.put_back(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.replica.in_flight.fetch_sub(1, Relaxed);
    }
}
